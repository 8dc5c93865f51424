"""Spoilt files are read or refused; and the fuzzer sees what it looks for."""

from __future__ import annotations

import random
from pathlib import Path

import fuzz
import pytest

from yoloprune.darknet import weights as weights_file


def test_a_few_thousand_spoilt_files() -> None:
    tally = fuzz.run(3000, seed=1)
    assert tally.failures == []
    assert sum(tally.counts.values()) == 3000
    for kind in set(fuzz.KINDS):  # each kind goes both ways, else it tests nothing
        assert min(tally.counts[kind, "read"], tally.counts[kind, "refused"]) > 10, tally.counts


def test_an_input_follows_from_its_number(tmp_path: Path) -> None:
    made = [fuzz.Bench(tmp_path).make(random.Random(f"3/{number}")) for number in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [(ValueError("odd"), "ValueError at"), (MemoryError(), "asked for more"), (fuzz.TooSlow(), "took more")],
)
def test_failures_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, outcome: str
) -> None:
    def read(*_: object) -> None:
        raise raised

    monkeypatch.setattr(fuzz.Bench, "read", read)
    assert fuzz.one(fuzz.Bench(tmp_path), 0, 0)[1].startswith(outcome)


DAMAGES = {
    "truncated": lambda data: data[:-4],
    "cut within a number": lambda data: data[:-1],
    "longer": lambda data: data + bytes(4),
    "edited as text": lambda data: data.decode("ascii", "replace").encode(),
    "bytes over 0x7f replaced": lambda data: bytes(63 if byte > 127 else byte for byte in data),
    "line ends": lambda data: data.replace(b"\x0a", b"\x0d\x0a") + b"\x0d\x0a",
    "zero bytes": lambda data: bytes(len(data)),
    "empty": lambda data: b"",
    "header only": lambda data: data[:20],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights(tmp_path: Path, damage: str) -> None:
    """What happens to files in practice."""
    bench = fuzz.Bench(tmp_path)
    layers = bench.nets[0].layers
    path = tmp_path / "a.weights"
    path.write_bytes(bench.weights[0])
    weights_file.read(path, layers)
    path.write_bytes(DAMAGES[damage](bench.weights[0]))
    with pytest.raises(fuzz.InputError, match=r"a\.weights: (byte|no byte)"):
        weights_file.read(path, layers)


def test_weights_of_another_cfg(tmp_path: Path) -> None:
    bench = fuzz.Bench(tmp_path)
    path = tmp_path / "a.weights"
    path.write_bytes(bench.weights[1])
    with pytest.raises(fuzz.InputError, match=r"expected \d+ bytes by the cfg"):
        weights_file.read(path, bench.nets[0].layers)
