"""`ana`: how accuracy falls as each group is pruned alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yoloprune.choices import REFERENCE_LOSS, saved
from yoloprune.options import AnalysisOptions, PruneOptions, Settings
from yoloprune.progress import OnProgress, silent
from yoloprune.prune.allocate import removed_share
from yoloprune.prune.certainty import cautions
from yoloprune.prune.sensitivity import TOLERANCES, Sensitivity
from yoloprune.shown import Shown
from yoloprune.steps.analysis import analyse_job
from yoloprune.steps.job import start_job
from yoloprune.steps.method import limits_of, resolved, with_limits
from yoloprune.steps.tradeoff import TradeOff, costs_of, frontier, gains, trade_offs
from yoloprune.workspace import DEFAULT


@dataclass(frozen=True, repr=False)
class Analysed(Shown):
    """Sensitivity curves and what they promise."""

    sensitivity: Sensitivity
    gains: dict[str, float]
    """As `tradeoff.gains` has them."""
    frontier: list[tuple[float, float]]
    """As `tradeoff.frontier` has it."""
    cautions: tuple[str, ...]
    """Why what was measured is little to go by, a line each."""
    file: Path
    """`sensitivity.json`."""
    trade_offs: tuple[TradeOff, ...] = ()
    """What `prune --threshold` is expected to do."""
    gone: float = 0.0
    """Share of the original's cost that earlier rounds removed."""

    def rows(self) -> Mapping[str, Mapping[str, object]]:
        """For each group what its pruning saves, and the largest sparsity within each tolerance; the most first."""
        known = self.sensitivity
        off = f"{saved(str(known.options.granularity))} off at {REFERENCE_LOSS:g}"
        return {
            f"group {curve.label}": {off: self.gains[curve.label]}
            | {f"prunable at {loss:g}": known.prunable_within(curve, loss) / curve.size for loss in known.tolerances}
            for curve in sorted(known.curves, key=lambda each: -self.gains[each.label])
        }


def ana(
    cfg: Path,
    weights: Path,
    data: Path | None = None,
    options: AnalysisOptions = AnalysisOptions(),  # noqa: B008 - a frozen value
    *,
    settings: Settings = Settings(),  # noqa: B008
    workspace: Path = DEFAULT,
    device: str = "cpu",
    force: bool = False,
    progress: OnProgress = silent,
) -> Analysed:
    """Measure how far every group is prunable, each alone, at each tolerance (default: TOLERANCES) or sparsity.

    Writes `sensitivity.json`. Starts the workspace, or goes on with the one that was started with the same files and
    settings: after rounds of pruning it measures what is left. Points that are measured already are not measured again;
    with `force` all are.
    """
    options = resolved(options)
    job = start_job(cfg, weights, data, workspace, settings, device=device, force=force)
    job, sensitivity = analyse_job(job, options, device=device, force=force, progress=progress)
    costs = costs_of(job, sensitivity)
    pruning = with_limits(PruneOptions(granularity=job.units.name), job.workspace, silent)
    thresholds = sensitivity.tolerances or TOLERANCES
    return Analysed(
        sensitivity,
        gains(costs, sensitivity),
        frontier(costs, sensitivity),
        cautions(sensitivity, options.tolerances or [REFERENCE_LOSS]),
        job.workspace.sensitivity_file(job.next_round),
        trade_offs(costs, sensitivity, limits_of(pruning), thresholds),
        removed_share(costs, {}),
    )
