"""What bounds a cut, remembered from round to round."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from yoloprune.artefacts import typed
from yoloprune.choices import MULTIPLE
from yoloprune.errors import InputError
from yoloprune.progress import OnProgress, Progress
from yoloprune.prune.plan import Limits
from yoloprune.workspace import Workspace

_USUAL: Final = Limits(multiple=MULTIPLE)


def limits_for(
    workspace: Workspace,
    exclude: Collection[int] | None,
    multiple: int | None,
    min_keep: int | None,
    progress: OnProgress,
) -> Limits:
    """What is left out (None) is as the last round was cut, else as usual; what that round says is told in a line.

    exclude: () for no layer. InputError for what can't be a limit.
    """
    before = _of_last_round(workspace)
    limits = Limits(
        before.exclude if exclude is None else frozenset(exclude),
        before.multiple if multiple is None else multiple,
        before.min_keep if min_keep is None else min_keep,
    )
    if limits.multiple < 1 or limits.min_keep < 1:
        raise InputError("--multiple and --min-keep: expected at least 1")
    remembered = []
    if exclude is None and before.exclude:
        remembered.append(f"--exclude {','.join(map(str, sorted(before.exclude)))}")
    if multiple is None and before.multiple != MULTIPLE:
        remembered.append(f"--multiple {before.multiple}")
    if min_keep is None and before.min_keep != _USUAL.min_keep:
        remembered.append(f"--min-keep {before.min_keep}")
    if remembered:
        number = workspace.last.number
        progress(Progress("limits", 0, 1, f"{' '.join(remembered)}, as in round {number}; the options change that"))
    return limits


def _of_last_round(workspace: Workspace) -> Limits:
    if not workspace.rounds:
        return _USUAL
    chosen_by, where = workspace.last.chosen_by, f"rounds[{len(workspace.rounds) - 1}].chosen_by"
    return Limits(
        frozenset(typed(tuple[int, ...], chosen_by.get("exclude", []), workspace.file, f"{where}.exclude")),
        typed(int, chosen_by.get("multiple", MULTIPLE), workspace.file, f"{where}.multiple"),
        typed(int, chosen_by.get("min_keep", 1), workspace.file, f"{where}.min_keep"),
    )
