"""What the going of each residual branch costs, measured: `branches.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from yoloprune.artefacts import load_json, save_json, typed
from yoloprune.detect.measure import network_for_measuring
from yoloprune.errors import InputError
from yoloprune.options import AnalysisOptions
from yoloprune.progress import OnProgress, Progress
from yoloprune.prune.branches import Branch, branches
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.sensitivity import Setup
from yoloprune.steps.job import Job


@dataclass(frozen=True)
class _Measured:
    """What `branches.json` says."""

    setup: Setup
    options: AnalysisOptions
    accuracies: Mapping[str, float] = field(default_factory=dict)
    """By the layer that adds the branch."""

    @classmethod
    def load(cls, file: Path) -> _Measured:
        """Read `branches.json`. InputError if it is no such file."""
        return typed(cls, load_json(file, "branches", "without it, branches are measured anew"), file)


def branch_accuracies(
    job: Job, setup: Setup, options: AnalysisOptions, device: str, progress: OnProgress
) -> Mapping[Branch, float]:
    """The accuracy without each branch that is still there, alone; compensated as pruning of channels is.

    Kept in the round's `branches.json`; what was measured with the same setup and options is not measured again.
    InputError where units aren't channels.
    """
    units = job.units
    if not isinstance(units, ChannelUnits):
        raise InputError(f"--drop-branches: expected --granularity channel, found {units.name}")
    file = job.workspace.round_folder(job.next_round) / "branches.json"
    known: dict[str, float] = {}
    if file.exists() and ((measured := _Measured.load(file)).setup, measured.options) == (setup, options):
        known = dict(measured.accuracies)
    found = [branch for branch in branches(job.model.graph) if branch.sum not in units.channels.removed]
    for done, branch in enumerate(found):
        if str(branch.sum) not in known:
            progress(Progress("branches", done, len(found), f"without {branch.inside[0]}..{branch.sum}"))
            without = units.without_branches((branch,))
            model = replace(job, units=without).pruner(options, device).together({}, {})[1]
            network = network_for_measuring(model, device)
            known[str(branch.sum)] = job.inputs.measure.accuracy(network)
            save_json(file, "branches", asdict(_Measured(setup, options, known)))
    return {branch: known[str(branch.sum)] for branch in found}
