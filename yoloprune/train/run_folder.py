"""The files of a run: checkpoint, log and chart."""

from __future__ import annotations

from pathlib import Path

from yoloprune.train import checkpoint
from yoloprune.train.chart import plot_training
from yoloprune.train.progress import write_log
from yoloprune.train.state import State

CHECKPOINT = "last.pt"
LOG = "log.csv"
CHART = "chart.png"


class RunFolder:
    """Where a run keeps its files; only the first of several processes writes."""

    def __init__(self, folder: Path, *, writes: bool) -> None:
        self.checkpoint = folder / CHECKPOINT
        self._log, self._chart, self._writes = folder / LOG, folder / CHART, writes
        self._logged = 0

    def save(self, state: State) -> None:
        """Checkpoint and log. InputError as `checkpoint.write` and `write_log`."""
        if self._writes:
            checkpoint.write(self.checkpoint, state)
            # What an earlier process wrote may go on behind the checkpoint, so the first time all is written, as it is
            # where updates in the log were undone.
            start = self._logged if self._logged <= state.iteration else 0
            write_log(self._log, state.records(start), more=start > 0)
            self._logged = state.iteration

    def draw(self, state: State) -> None:
        """The chart as it is now."""
        if self._writes:
            plot_training(state.records(), len(state.history), self._chart, state.start_metric)
