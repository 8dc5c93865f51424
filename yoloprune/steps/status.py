"""`status`: the rounds of a workspace, and what has become of the files that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from yoloprune.artefacts import is_file
from yoloprune.darknet.data import read_data
from yoloprune.errors import InputError
from yoloprune.workspace import DEFAULT, ROLES, Role, Workspace


@dataclass(frozen=True)
class Status:
    """A job as it is."""

    workspace: Workspace
    changes: tuple[str, ...]
    """What is no longer as the job left it, a line for each, with what that means."""


def status(workspace: Path = DEFAULT) -> Status:
    """What `workspace.json` says, whatever else has changed. InputError only where it can't be read."""
    known = Workspace.load(workspace)
    return Status(known, (*_inputs(known), *_lists(known), *_rounds(known)))


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
