"""What the going of each residual branch costs, measured: `branches.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from yoloprune.artefacts import load_json, save_json
from yoloprune.detect.measure import network_for_measuring
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, Progress
from yoloprune.prune.branches import Branch, branches
from yoloprune.prune.channels import KeepMask, trace
from yoloprune.prune.sensitivity import Setup
from yoloprune.steps.job import Job
from yoloprune.steps.method import Method


def branch_accuracies(
    job: Job, setup: Setup, method: Method, device: str, progress: OnProgress
) -> Mapping[Branch, float]:
    """The accuracy without each branch that is still there, alone; compensated as a cut of channels.

    Kept in the round's `branches.json`; what was measured with the same setup is not measured again.
    """
    file = job.workspace.round_folder(job.next_round) / "branches.json"
    known: dict[int, float] = {}
    if file.exists():
        payload = load_json(file, "branches")
        try:
            if payload["setup"] == vars(setup):
                known = {int(layer): float(accuracy) for layer, accuracy in payload["accuracies"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"lacks or garbles {error}", file=file) from error
    found = [branch for branch in branches(job.model.graph) if branch.sum not in job.channels.removed]
    measure = job.measure(device)
    pictures = cache(lambda: method.pictures(job, device))
    for done, branch in enumerate(found):
        if branch.sum not in known:
            progress(Progress("branches", done, len(found), f"without {branch.inside[0]}..{branch.sum}"))
            one = without(job, (branch,))
            pruner = replace(method.pruner(one, device), keep=everything(one), pictures=pictures)
            known[branch.sum] = measure.accuracy(network_for_measuring(pruner.together(one.keep), device))
            save_json(file, "branches", {"setup": vars(setup), "accuracies": known})
    return {branch: known[branch.sum] for branch in found}


def without(job: Job, gone: tuple[Branch, ...]) -> Job:
    """The job with these branches gone too, and what was left of the rest."""
    channels = trace(job.model.graph, (*job.channels.branches, *gone))
    return replace(job, channels=channels, keep=job.channels.carried(job.keep, channels))


def everything(job: Job) -> KeepMask:
    """What a pruner takes for there, so that it also refits where only a branch goes."""
    return np.ones(job.channels.units, np.bool_)
