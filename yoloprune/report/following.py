"""What comes next, as a command that can be copied: the last line of most answers, and of `status`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from yoloprune.choices import REFERENCE_LOSS
from yoloprune.workspace import DEFAULT

if TYPE_CHECKING:
    from yoloprune.steps.ana import Analysed
    from yoloprune.steps.status import Status

_EPOCHS: Final = 20
"""Of a training that is proposed."""
_OUT: Final = "slim"


def command(*words: object, workspace: Path = DEFAULT) -> str:
    """A command line, with the workspace where it isn't the usual one."""
    where = () if workspace == DEFAULT else ("-w", str(workspace))
    return shlex.join(["yoloprune", *map(str, words), *where])


def after_ana(done: Analysed, workspace: Path) -> str:
    """Prune at one mAP point, or at the first loss beyond at which more goes than is gone."""
    gone = done.gone
    going = [each.threshold for each in done.trade_offs if each.removed > gone]
    known = done.sensitivity
    beyond = known.baseline - known.start + REFERENCE_LOSS
    threshold = next((each for each in going if each >= REFERENCE_LOSS), going[-1] if going else beyond)
    return command("prune", "--threshold", f"{threshold:.4g}", workspace=workspace)


def after_prune(workspace: Path) -> str:
    """Train."""
    return command("finetune", "--epochs", _EPOCHS, workspace=workspace)


def after_finetune(workspace: Path) -> str:
    """Write the slim files."""
    return command("export", "-o", _OUT, workspace=workspace)


def after_status(found: Status) -> str:
    """What goes on with what was interrupted, or begins the next step."""
    workspace, folder = found.workspace, found.workspace.folder
    if workspace.rounds and workspace.last.finetuned is None:
        if found.training is not None:  # the same recipe, whether it was said in epochs or iterations
            return command("finetune", "--iterations", found.training.of, workspace=folder)
        return after_prune(folder)
    if workspace.rounds and found.analysis is None:
        return after_finetune(folder)
    # prune measures what is missing of the analysis, with the settings that this began with
    before = max((each.threshold or 0.0 for each in workspace.rounds), default=0.0)
    return command("prune", "--threshold", f"{before + REFERENCE_LOSS:.4g}", workspace=folder)
