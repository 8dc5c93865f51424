"""What repeats a job: its commands, out of the options that the workspace keeps, and the versions of programs."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch

import yoloprune
from yoloprune.choices import CHANNEL, MULTIPLE
from yoloprune.option import Option, options_of
from yoloprune.options import PruneOptions
from yoloprune.prune.sensitivity import TOLERANCES, Sensitivity
from yoloprune.workspace import Workspace

_FIRST: Final = PruneOptions(granularity=CHANNEL, exclude=(), multiple=MULTIPLE, min_keep=1)
"""What `prune` fills in the first time."""
_OF_ANALYSIS: Final = ("criterion", "calibrate", "compensation", "granularity", "block", "block_pooling", "n_of_m")


def commands(workspace: Workspace, analyses: Mapping[int, Sensitivity]) -> tuple[str, ...]:
    """The command lines of a job, in order. analyses: by the round that chooses by each, where it has measured.

    `ana` is left out where nothing was measured; `export` is there once something is pruned, with a folder of its own.
    """
    folder = ["-w", workspace.folder.resolve().name]
    lines: list[list[str]] = []
    known = _FIRST
    for number in range(1, len(workspace.rounds) + 2):
        analysis = analyses.get(number)
        if analysis is not None or number == 1:
            files = (workspace.cfg.path, workspace.weights.path, "--data", workspace.data.path)
            options = [] if analysis is None else _of_analysis(analysis)
            lines.append(["ana", *files, *folder, *words_of(workspace.settings), *options])
        if number > len(workspace.rounds):
            break
        done = workspace.rounds[number - 1]
        again = known if analysis is None else replace(known, **_shared(analysis))
        lines.append(["prune", *folder, *words_of(done.options, again)])
        known = done.options
        if done.finetuning is not None:
            lines.append(["finetune", *folder, *words_of(done.finetuning)])
    if workspace.rounds:
        lines.append(["export", *folder, "-o", "slim"])
    return tuple(f"yoloprune {shlex.join(words)}" for words in lines)


def versions() -> dict[str, str]:
    """Of the programs that compute, here and now."""
    return {
        "yoloprune": yoloprune.__version__,
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
        "OpenCV": cv2.__version__,
    }


def words_of(options: Any, known: Any = None) -> list[str]:
    """Options as the command line says them. known: others of the class, which needn't be said again."""
    words: list[str] = []
    for name, option in options_of(type(options)).items():
        value = getattr(options, name)
        before = option.default if known is None else getattr(known, name)
        if value is not None and value not in (option.default, before):
            words += _said(option, value)
    return words


def _said(option: Option, value: Any) -> list[str]:
    for flag, (meant, _) in option.help.switches.items():
        if value == meant:
            return [flag]
    if not option.help.text:
        return []  # what no switch says is the usual
    plain = f"--{option.name.replace('_', '-')}"
    flags = option.help.flags or (plain,)
    if isinstance(value, bool):
        on, _, off = flags[0].partition("/")
        return [on.strip() if value else off.strip() or plain.replace("--", "--no-", 1)]
    if isinstance(value, tuple):
        return [flags[0], ",".join(map(_text, value)) or "none"]
    return [flags[0], _text(value)]


def _text(value: object) -> str:
    """Numbers with all of their digits."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _of_analysis(analysis: Sensitivity) -> list[str]:
    options = replace(
        analysis.options,
        granularity=None if analysis.options.granularity == CHANNEL else analysis.options.granularity,
        tolerances=None if analysis.tolerances == TOLERANCES else analysis.tolerances or None,
        sparsities=analysis.sparsities or None,
    )
    return words_of(options)


def _shared(analysis: Sensitivity) -> dict[str, Any]:
    return {name: getattr(analysis.options, name) for name in _OF_ANALYSIS}


def file_names(workspace: Workspace) -> dict[str, tuple[str, str]]:
    """The inputs: name and SHA-256 of each."""
    roles = {"cfg": workspace.cfg, "weights": workspace.weights, "data": workspace.data}
    return {role: (Path(each.path).name, each.sha256) for role, each in roles.items()}
