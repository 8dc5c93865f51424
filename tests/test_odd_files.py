"""The steps on files as users have them: odd values, a short header, variances of converters."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.drawn import bench
from tests.helpers import worst
from yoloprune import cli
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import load
from yoloprune.darknet.network import build
from yoloprune.darknet.weights import Header

ODD = {"learning_rate=0.01": "learning_rate=0.01,0.0005", "batch=4": "batch=4/1", "hue=.1": "hue=.1\npolicy=cosine"}
VARIANCES = (-9.9999e-6, -7e-44, 1e-40)


def command(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@dataclass(frozen=True)
class Odd:
    cfg: Path
    weights: Path
    told: str
    """What `ana` said on stderr."""
    masked: Path


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Odd:
    """A job, pruned, on a cfg and weights that are odd."""
    folder = tmp_path_factory.mktemp("odd")
    made = bench(folder)
    text = made.cfg.read_text()
    for plain, value in ODD.items():
        assert plain in text
        text = text.replace(plain, value)
    cfg, weights = folder / "odd.cfg", folder / "odd.weights"
    cfg.write_text(text)
    original = load(made.cfg, made.weights, ALEXEYAB)
    arrays = [dict(each) for each in original.weights.layers]
    arrays[0]["variance"] = arrays[0]["variance"].copy()
    arrays[0]["variance"][: len(VARIANCES)] = VARIANCES
    arrays[0]["scale"] = arrays[0]["scale"] * np.where(np.arange(8) < len(VARIANCES), np.float32(1e-3), np.float32(1))
    short = replace(original.weights, header=Header(0, 1, 0, 77), layers=tuple(arrays))
    weights_file.write(weights, short, original.graph.layers)
    space = ["-w", folder / "space"]
    done = command("ana", cfg, weights, "--data", made.data, "--calibrate", "0", "--images", "2", *space)
    assert done.exit_code == 0, done.stderr
    pruned = command("prune", "--ratio", "0.2", "--exclude", "0", "--calibrate", "0", "--json", "-", *space)
    assert pruned.exit_code == 0, pruned.stderr
    return Odd(cfg, weights, done.stderr, Path(json.loads(pruned.stdout)["files"]["weights"]))


def exported(odd: Odd, out: Path, *words: str) -> tuple[Result, Path, Path]:
    done = command("export", "-o", out, "-w", odd.masked.parents[1], "--keep-seen", *words)
    return done, out / "odd-slim.cfg", out / "odd-slim.weights"


def entering(cfg: Path, weights: Path) -> np.ndarray:
    x = torch.from_numpy(np.random.default_rng(1).random((2, 3, 64, 64), np.float32))
    model = load(cfg, weights, ALEXEYAB)
    with torch.inference_mode():
        return build(model)(x, want=model.graph.head_inputs)[model.graph.head_inputs[0]].numpy()


def test_what_darknet_takes_is_told_with_its_line(odd: Odd) -> None:
    told = re.findall(r"warning: .*odd\.cfg:(\d+): .*Darknet takes (\S+)", odd.told)
    numbers = {line: number for number, line in enumerate(odd.cfg.read_text().splitlines(), 1)}
    taken = {"learning_rate=0.01,0.0005": "0.01", "batch=4/1": "4", "policy=cosine": "constant"}
    assert sorted(told) == sorted((str(numbers[line]), value) for line, value in taken.items())


@pytest.mark.filterwarnings("ignore:.*Darknet takes")
def test_export_writes_plain_values_and_a_header_as_long(odd: Odd, tmp_path: Path) -> None:
    done, cfg, weights = exported(odd, tmp_path)
    assert done.exit_code == 0, done.stderr
    assert {"learning_rate=0.01", "batch=4", "policy=constant"} <= set(cfg.read_text().splitlines())
    data = weights.read_bytes()
    slim = load(cfg, weights, ALEXEYAB)
    assert slim.weights.header == Header(0, 1, 0, 77)
    assert len(data) == 16 + 4 * slim.graph.parameters
    floats = np.frombuffer(data, "<f4", offset=16)
    assert not ((floats != 0) & (np.abs(floats) < 2.0**-126)).any()
    assert np.float32(VARIANCES[0]) in slim.weights.layers[0]["variance"]
    assert worst(entering(cfg, weights), entering(odd.cfg, odd.masked)) < 1e-5
    assert "variance: -9.9999e-06, which becomes NaN in pjreddie's Darknet, OpenCV; --fold-bn" in done.stderr


@pytest.mark.filterwarnings("ignore:.*Darknet takes")
def test_export_for_a_reader_that_makes_nan_of_it(odd: Odd, tmp_path: Path) -> None:
    refused, cfg, _ = exported(odd, tmp_path / "a", "--for", "pjreddie")
    assert (refused.exit_code, cfg.exists()) == (2, False)
    assert "variance: -9.9999e-06, which becomes NaN in pjreddie's Darknet; --fold-bn" in refused.stderr
    done, cfg, weights = exported(odd, tmp_path / "b", "--for", "pjreddie", "--fold-bn")
    assert done.exit_code == 0, done.stderr
    assert worst(entering(cfg, weights), entering(odd.cfg, odd.masked)) < 1e-4  # folded; the first filters are large


def test_check_names_who_makes_nan_of_it(odd: Odd) -> None:
    done = command("check", odd.cfg, odd.weights, "--json", "-")
    assert done.exit_code == 1
    found = [each for each in json.loads(done.stdout)["findings"] if "NaN" in each["message"]]
    assert {each["reader"] for each in found} == {"pjreddie", "opencv"}
