"""Options of `run`, which are those of the four steps and more (options.py)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from yoloprune.choices import EPOCHS
from yoloprune.option import Help
from yoloprune.options import AnalysisOptions, FinetuneOptions, ProcessOptions, PruneOptions


@dataclass(frozen=True)
class LayeredOptions:
    """Group after group from front to back, each trained before the next (Luo, Wu and Lin 2017, ThiNet)."""

    layer_by_layer: Annotated[
        bool,
        Help(
            "A round for each group of channels, front to back, as ThiNet has it; groups that a shortcut adds stay. "
            "With --keep or --ratio, of all together."
        ),
    ] = False
    keep: Annotated[
        float | None, Help("With --layer-by-layer: the share of each group's channels that stays.", metavar="K")
    ] = None
    group_epochs: Annotated[
        float, Help("Likewise: epochs after each group; after the last, --epochs.", metavar="N", least=0)
    ] = 1.0
    class_images: Annotated[
        int, Help("Likewise, of a classifier: train pictures of each class, in place of --calibrate.", least=1)
    ] = 10
    places: Annotated[
        int, Help("Likewise, for thinet: outputs drawn of each picture; 0: all count, by second moments.", least=0)
    ] = 10
    refit: Annotated[
        bool, Help("Likewise, for thinet: refit all weights, in place of one factor for each channel.")
    ] = False


@dataclass(frozen=True)
class RunOptions:
    """All four steps, round after round. One of the lists of goals, or `target_map`, is given."""

    analysis: AnalysisOptions
    prune: PruneOptions
    """threshold, total_loss, ratio or sparsity: of the last round; it grows to that evenly."""
    finetune: FinetuneOptions
    """Of each round; where it doesn't say how long, EPOCHS."""
    layered: LayeredOptions
    where: ProcessOptions
    """Of analyses and trainings."""
    round_thresholds: Annotated[
        tuple[float, ...],
        Help(
            "Accuracy that each group, pruned alone, may lose; 0.01 is a point. With --rounds K it grows to that in K "
            "steps; a list like 0.005,0.01,0.02 names each round's.",
            metavar="T",
            flags=("--threshold",),
        ),
    ] = ()
    round_total_losses: Annotated[
        tuple[float, ...],
        Help(
            "Instead: accuracy that all groups together may lose, measured, likewise.",
            metavar="L",
            flags=("--total-loss",),
        ),
    ] = ()
    round_ratios: Annotated[
        tuple[float, ...],
        Help("Instead: the share of the BFLOPs (or --objective) to remove, likewise.", metavar="R", flags=("--ratio",)),
    ] = ()
    round_sparsities: Annotated[
        tuple[float, ...],
        Help(
            "Instead, nothing measured: the share of each group's units that goes, likewise.",
            metavar="S",
            flags=("--sparsity",),
        ),
    ] = ()
    round_global_sparsities: Annotated[
        tuple[float, ...],
        Help(
            "Instead: the share of all weights that goes, by one magnitude; of channels, by bn-scale; likewise.",
            metavar="S",
            flags=("--global-sparsity",),
        ),
    ] = ()
    target_map: Annotated[
        float | None,
        Help(
            "Instead: the accuracy to keep after training; rounds go on until no smaller network is found that does.",
            metavar="A",
        ),
    ] = None
    final_loss: Annotated[
        float | None,
        Help("Accuracy that may still be lost after training; a round that loses more ends the run.", metavar="L"),
    ] = None
    rounds: Annotated[int, Help("Rounds of pruning and training.", metavar="K", least=1)] = 1
    export_for: Annotated[
        str | None, Help("Who reads the slim network, as for export.", metavar="READER", flags=("--for",))
    ] = None

    @property
    def training(self) -> FinetuneOptions:
        """How each round is trained."""
        told = self.finetune.epochs is not None or self.finetune.iterations is not None
        return self.finetune if told else replace(self.finetune, epochs=EPOCHS)
