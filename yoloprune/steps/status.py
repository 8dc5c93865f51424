"""`status`: how far a workspace's job is, and what has become of the files that it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yoloprune.artefacts import is_file
from yoloprune.darknet.data import read_data
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, silent
from yoloprune.prune.search import is_whole
from yoloprune.prune.sensitivity import Sensitivity
from yoloprune.steps.job import open_job, slim_models
from yoloprune.steps.milliseconds import Times, timed
from yoloprune.train import checkpoint
from yoloprune.train.run_folder import CHECKPOINT
from yoloprune.workspace import DEFAULT, ROLES, Figures, Role, Workspace


@dataclass(frozen=True)
class HowFar:
    """Of work that can be interrupted."""

    done: int
    of: int

    @property
    def whole(self) -> bool:
        """Whether all of it is done."""
        return self.done >= self.of


@dataclass(frozen=True)
class Status:
    """A job as it is."""

    workspace: Workspace
    changes: tuple[str, ...]
    """What is no longer as the job left it, a line for each, with what that means."""
    inputs: Mapping[Role, Path]
    """Where each is read from now."""
    analysis: HowFar | None
    """Groups that are measured for the round to come; None where that has not begun."""
    training: HowFar | None
    """Updates of the last round's training, where it was interrupted."""
    files: tuple[Path, ...]
    """What is in the workspace, round after round."""
    timed: Mapping[str, Figures] = field(default_factory=dict)
    """The networks with their milliseconds, where that was asked for."""


def status(workspace: Path = DEFAULT, *, ms: bool = False, progress: OnProgress = silent) -> Status:
    """What `workspace.json` says, whatever else has changed. InputError only where it can't be read.

    ms: time the original network and that of each round, too, in every reader on this machine.
    """
    known = Workspace.load(workspace)
    inputs = {role: _used(known, role) for role in ROLES}
    changes = (*_inputs(known), *_lists(known), *_rounds(known))
    files = sorted(path for path in known.folder.glob("round-*/**/*") if path.is_file() and path.name[0] != ".")
    found = Status(known, changes, inputs, _analysis(known), _training(known), tuple(files))
    return _with_times(found, progress) if ms else found


def _with_times(found: Status, progress: OnProgress) -> Status:
    workspace = found.workspace
    job = open_job(workspace.folder)
    names = ["original", *(f"round {each.number}" for each in workspace.rounds)]
    figures = [job.original, *(each.newest for each in workspace.rounds)]
    known = dict(zip(names, timed(figures, slim_models(job), progress), strict=True))
    Times.keep(workspace.milliseconds_file, known)
    return Status(**{**vars(found), "timed": known})


def _used(workspace: Workspace, role: Role) -> Path:
    """The user's file while it is what it was, else the copy."""
    each = workspace.input(role)
    return Path(each.path) if each.is_in(each.path) else workspace.copy_of(role)


def _analysis(workspace: Workspace) -> HowFar | None:
    file = workspace.sensitivity_file(len(workspace.rounds) + 1)
    if not file.exists():
        return None
    try:
        known = Sensitivity.load(file)
    except InputError:
        return None
    return HowFar(sum(is_whole(known, curve) for curve in known.curves), len(known.curves))


def _training(workspace: Workspace) -> HowFar | None:
    if not workspace.rounds or workspace.last.finetuned is not None:
        return None
    file = workspace.training_folder(workspace.last.number) / CHECKPOINT
    try:
        return HowFar(*checkpoint.how_far(file)) if file.exists() else None
    except InputError:
        return None


def _inputs(workspace: Workspace) -> Iterator[str]:
    for role in ROLES:
        each, copy = workspace.input(role), workspace.copy_of(role)
        kept = each.is_in(copy)
        if each.is_in(each.path):
            if copy.exists() and not kept:
                yield f"{copy} has been edited: {each.path}, which it was a copy of, is used"
            continue
        happened = "has changed since the job was started" if is_file(each.path) else "is gone"
        yield f"{role}: {each.path} {happened}: {_instead(workspace, role, kept)}"


def _instead(workspace: Workspace, role: Role, kept: bool) -> str:
    if kept:
        return "the workspace's copy is used"
    return f"put it back, since there is no copy of it in {workspace.folder}; or ana --force starts anew"


def _lists(workspace: Workspace) -> Iterator[str]:
    """Lists stay outside."""
    try:
        opened = workspace.open_input("data")
        data = read_data(opened.path, Path(opened.path).parent, opened.content)
    except InputError:
        return  # told of already
    for key, path in (("train", data.train), ("valid", data.valid), ("names", data.names)):
        if path is not None and not path.is_file():
            yield f"data: {key}: {path} is gone; ana with the .data file where the lists are now goes on"


def _rounds(workspace: Workspace) -> Iterator[str]:
    for done in workspace.rounds:
        files = [each(done.number) for each in (workspace.plan_file, workspace.mask_file, workspace.pruned_file)]
        if done.finetuned:
            files.append(workspace.finetuned_file(done.number))
        for file in files:
            if not file.is_file():
                yield f"round {done.number}: {file} is gone; undo takes rounds back"
