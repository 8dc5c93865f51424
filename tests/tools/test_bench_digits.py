"""Every part of the benchmark on tiny networks; what is done isn't done again."""

from __future__ import annotations

import json
from pathlib import Path

import bench_digits
import pytest

from tests.tools.test_make_digits import made_up

NET = """[net]
batch=8
width=6
height=6
channels=1
learning_rate=.01
max_batches=10
flip=0
[convolutional]
filters=8
size=3
pad=1
activation=relu
[convolutional]
filters=8
size=1
activation=relu
[connected]
output=12
activation=relu
[connected]
output=10
activation=linear
[softmax]
"""


def test_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    made_up(tmp_path / "mnist", 5140, 30)
    (tmp_path / "cfg").mkdir()
    for name in (bench_digits.LARGE, bench_digits.SMALL):
        (tmp_path / "cfg" / f"{name}.cfg").write_text(NET)
    monkeypatch.setattr(bench_digits, "CFGS", tmp_path / "cfg")
    monkeypatch.setattr(bench_digits, "MAGNITUDES", (0.4, 0.6))
    monkeypatch.setattr(bench_digits, "SHOWN", (1, 2))
    rounds = {bench_digits.LARGE: ((0.3, 1, 0.01), (0.5, 1, 0.01)), bench_digits.SMALL: ((0.5, 1, 0.01),)}
    monkeypatch.setattr(bench_digits, "ROUNDS", rounds)
    monkeypatch.setattr(bench_digits, "CHANNELS", (0.5,))
    ways = {name: bench_digits.WAYS[name] for name in ("random", "ours refitted")}
    monkeypatch.setattr(bench_digits, "WAYS", ways)
    words = ["--mnist", str(tmp_path / "mnist"), "-o", str(tmp_path / "out"), "--seeds", "1", "--workers", "0"]
    words += ["--limit", "128", "--epochs", "0.3"]
    bench_digits.main(words)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]

    rows = [json.loads(file.read_text()) for file in (tmp_path / "out").glob("seed-1/rows/*.json")]
    assert len(rows) == len(said) - 2 == 2 + 2 + 3 + 1 + (1 + 3) + 1 + 4
    weights = 8 * 9 + 8 * 8 + 8 * 36 * 12 + 12 * 10
    floats = weights + 8 + 8 + 12 + 10
    by_what = {(row["part"], row["network"], row["what"]): row for row in rows}
    assert by_what["dense", bench_digits.LARGE, "dense"]["nonzero"] <= floats
    left = by_what["a", bench_digits.LARGE, "connected layers, 60.0% off in 2 rounds"]["nonzero"]
    assert left <= floats - round(0.6 * (8 * 36 * 12)) - round(0.6 * 120) + 2
    assert (
        by_what["b", bench_digits.LARGE, "90 % along a cubic"]["nonzero"] <= floats - 0.9 * (weights - 8 * 9) + 4
    )  # the first layer reads pictures: all stay
    for row in rows:
        assert 0 <= row["top1"] <= 1
        assert row["weights"] in (20 + 4 * floats, 20 + 4 * (4 * 9 + 4 * 4 + 4 * 36 * 6 + 60 + 4 + 4 + 6 + 10))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a command that ended is run again")

    monkeypatch.setattr(bench_digits, "app", refuse)
    bench_digits.main(words)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")] == said


def test_the_table_has_means_and_half_the_range() -> None:
    row = {"part": "a", "network": "n", "what": "w", "nonzero": 10, "weights": 4000, "gzip": 3000, "packed": 2000}
    dense = row | {"part": "dense", "what": "dense"}
    rows = [
        dense | {"seed": 1, "top1": 0.99},
        dense | {"seed": 2, "top1": 0.98},
        row | {"seed": 1, "top1": 0.985},
        row | {"seed": 2, "top1": 0.985},
    ]
    lines = bench_digits.table(rows).splitlines()
    assert lines[2] == "| a | n | w | 98.50 +-0.00 | 0.00 +-0.50 | 10 | 4 | 3 | 2 | 2 |"
    assert lines[3] == "| dense | n | dense | 98.50 +-0.50 | 0.00 +-0.00 | 10 | 4 | 3 | 2 | 2 |"
