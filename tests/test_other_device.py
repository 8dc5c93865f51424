"""The four steps on devices that are not the CPU: a made one, which stands for a GPU where there is none, and a GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.drawn import Bench, trained
from tests.test_cli import answer


@pytest.fixture(scope="module")
def made(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return trained(tmp_path_factory.mktemp("set") / "set")


def elsewhere(program: Sequence[object], *words: object) -> dict[str, Any]:
    """As `answer`, in a process of its own, since PyTorch keeps the device that it is told of."""
    command = [sys.executable, "-m", *map(str, (*program, *words)), "--json", "-"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def program_for(device: str, folder: Path) -> tuple[object, ...]:
    """What Python is to run for commands to know the device."""
    if device == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("there is no GPU")
        return ("yoloprune",)
    missing = [name for name in ("c++", "ninja") if shutil.which(name) is None]
    header = Path(sysconfig.get_path("include"), "Python.h")
    missing += [] if header.exists() else [str(header)]
    if missing:
        pytest.skip(f"the device can't be compiled without {', '.join(missing)}")
    folder.mkdir()
    return "tests.oracles.other_device", folder


@pytest.mark.parametrize("device", ["other", "cuda"])
def test_every_step_on_another_device_gives_what_it_gives_on_the_cpu(device: str, made: Bench, tmp_path: Path) -> None:
    program = program_for(device, tmp_path / "device")
    there = "--device", device
    measured = elsewhere(program, "map", *made.inputs, *there), answer("map", *made.inputs)
    assert measured[0].pop("ap") == pytest.approx(measured[1].pop("ap"))
    assert measured[0] == pytest.approx(measured[1])

    here, other = tmp_path / "here", tmp_path / "other"
    found = []
    for space, ask, place in ((here, answer, ()), (other, partial(elsewhere, program), there)):
        ask("ana", *made.inputs, "--calibrate", 8, "-w", space, *place)
        curves = json.loads((space / "round-1" / "sensitivity.json").read_text())["curves"]
        points = [(point["dropped"], round(point["accuracy"], 6)) for curve in curves for point in curve["points"]]
        cut = ask("prune", "--ratio", 0.3, "-w", space, *place)
        found.append((points, cut["after"]["bflops"], cut["after"]["parameters"]))
    assert found[0] == found[1]

    for criterion in ("apoz", "taylor", "thinet"):
        asked = "--criterion", criterion, "--bn-recalibrate", "--sparsities", 0.5, "--calibrate", 4
        elsewhere(program, "ana", *made.inputs, *asked, "-w", tmp_path / criterion, *there)

    words = "finetune", "--iterations", 4, "--distill", "--ema", 0.9, "--force", "--workers", 0
    figures = [answer(*words, "-w", here)["after"], elsewhere(program, *words, "-w", other, *there)["after"]]
    assert figures[1] == pytest.approx(figures[0], abs=1e-3)
    elsewhere(program, *words, "--bf16", "-w", other, *there)
