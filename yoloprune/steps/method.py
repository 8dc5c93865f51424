"""How groups are cut: which channels go first, what makes up for them, and the pictures that tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from yoloprune.choices import CALIBRATE, COMPENSATIONS, NOTHING, RECALIBRATE, REFIT
from yoloprune.darknet.data import load_split
from yoloprune.detect.measure import fit_for
from yoloprune.detect.pictures import Pictures
from yoloprune.errors import InputError
from yoloprune.prune.criteria import CRITERIA, WITHOUT_PICTURES, default_criterion
from yoloprune.prune.pruner import Pruner
from yoloprune.prune.sensitivity import Sensitivity
from yoloprune.steps.job import Job


@dataclass(frozen=True)
class Method:
    """What was chosen for a cut."""

    criterion: str
    """One of CRITERIA."""
    compensation: str
    """One of COMPENSATIONS."""
    calibrate: int
    """First so many pictures of the train list are looked at; 0 where nothing looks at them."""

    @classmethod
    def of(cls, criterion: str | None, calibrate: int, compensation: str) -> Self:
        """The criterion, left out the best there is. InputError for what isn't known or lacks the pictures it needs."""
        if compensation not in COMPENSATIONS:
            raise InputError(f"compensation: expected one of {', '.join(COMPENSATIONS)}, found {compensation!r}")
        if compensation == RECALIBRATE and not calibrate:
            raise InputError("--bn-recalibrate: expected calibration pictures, found --calibrate 0")
        compensation = compensation if calibrate else NOTHING
        criterion = criterion or default_criterion(compensation == REFIT)
        if criterion not in CRITERIA:
            raise InputError(f"--criterion: expected one of {', '.join(CRITERIA)}, found {criterion!r}")
        if not calibrate and criterion not in WITHOUT_PICTURES:
            raise InputError(f"--criterion {criterion}: expected calibration pictures, found --calibrate 0")
        looks = compensation != NOTHING or criterion not in WITHOUT_PICTURES
        return cls(criterion, compensation, calibrate if looks else 0)

    @classmethod
    def as_before(cls, job: Job, criterion: str | None, calibrate: int | None, compensation: str | None) -> Self:
        """What is left out is as the analysis of the round to come has it, else as the last round was cut."""
        before: Mapping[str, Any] = {}
        if job.workspace.rounds:
            before = job.workspace.last.chosen_by
        file = job.workspace.sensitivity_file(job.next_round)
        if file.exists():
            before = vars(Sensitivity.load(file).setup)
        was, had = before.get("compensation", REFIT), before.get("calibrate", CALIBRATE)
        if was not in COMPENSATIONS:
            known = ", ".join(COMPENSATIONS)
            raise InputError(
                f"compensation: expected one of {known}, found {was!r}; ana --force measures anew", file=file
            )
        # Without pictures nothing can be refitted: where there are some now, or they are needed, that was no choice.
        if compensation is None:
            compensation = REFIT if calibrate and not had else was
        if calibrate is None:
            needed = compensation != was or criterion not in (None, *WITHOUT_PICTURES)
            calibrate = CALIBRATE if needed and not had else had
        if (compensation, calibrate) == (before.get("compensation"), before.get("calibrate")):
            criterion = criterion or before["criterion"]
        return cls.of(criterion, calibrate, compensation)

    def paths(self, job: Job) -> tuple[Path, ...]:
        """The calibration pictures; no labels are needed. InputError where there are none."""
        if not self.calibrate:
            return ()
        graph = job.model.graph
        limits = {"classes": graph.classes, "limit": self.calibrate}
        return load_split(job.data, "train", graph.dialect, **limits, labels=False).images

    def pictures(self, job: Job, device: str = "cpu") -> list[Tensor]:
        """They as network input, in batches."""
        graph = job.model.graph
        fit = fit_for(graph, job.workspace.settings.letterbox)
        return [batch.inputs for batch in Pictures(self.paths(job), graph, fit, device)]

    def pruner(self, job: Job, device: str = "cpu") -> Pruner:
        """Cuts of a job's network; plain ones without pictures."""
        return Pruner(job.model, job.channels, job.keep, lambda: self.pictures(job, device), self.compensation, device)
