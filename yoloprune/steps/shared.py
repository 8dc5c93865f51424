"""The long steps of `run` in several processes: each is its command, as a user would share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.errors import InputError
from yoloprune.option import words_of
from yoloprune.prune.sensitivity import TOLERANCES
from yoloprune.run_options import RunOptions
from yoloprune.steps.goal import Goal
from yoloprune.train.launch import launch
from yoloprune.workspace import Workspace


@dataclass(frozen=True)
class SharedSteps:
    """What a run hands to its processes."""

    options: RunOptions
    folder: Path
    """Of the workspace."""
    device: str
    quiet: bool

    def ana(self, goal: Goal) -> None:
        """Measure what the next round chooses by; `prune` then finds all of it. Nothing where no curve is asked."""
        if goal.prescribed:
            return
        workspace, options = Workspace.load(self.folder), self.options.analysis
        if goal.threshold is not None and not options.tolerances and not options.sparsities:
            assert workspace.original is not None
            scale = workspace.original.accuracy if self.options.prune.relative else 1.0
            options = replace(options, tolerances=tuple(sorted({*TOLERANCES, goal.threshold * scale})))
        inputs = (workspace.cfg.path, workspace.weights.path, "--data", workspace.data.path)
        self._launch("ana", *inputs, *words_of(workspace.settings), *words_of(options))

    def finetune(self) -> None:
        """Train the last round."""
        self._launch("finetune", *words_of(self.options.training))

    def _launch(self, *words: str) -> None:
        where = self.options.where
        own: Sequence[str] = ("-w", str(self.folder), "--device", self.device, *(("--quiet",) if self.quiet else ()))
        if status := launch([*words, *own], where.count, where.devices or (), answers=False):
            raise InputError(f"{words[0]} in {where.count} processes ended with status {status}")
