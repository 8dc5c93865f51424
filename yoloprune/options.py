"""Every option once: its name, what it may be, its default, and what help says of it.

Frozen values, made once from the command line or by a caller, handed on whole, and stored in a workspace as
they are. Loads no PyTorch: the command line starts with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final

from yoloprune.choices import (
    CALIBRATE,
    CHANNEL_CRITERIA,
    CRITERIA_NAMES,
    DIVISIONS,
    GRANULARITIES,
    GRID,
    GRIDS,
    MULTIPLE,
    NOTHING,
    OBJECTIVES,
    POOLINGS,
    RECALIBRATE,
    REFIT,
    RULES,
    SCALE,
    WEIGHT_CRITERIA,
)
from yoloprune.option import Help

DIALECT_NAMES: Final = ("alexeyab", "pjreddie")
ALIASES: Final = {"losses": "tolerances"}
"""What options were called before."""
_LAYERS: Final = "LAYERS"
"""Metavar of what is written like 3,5-8."""
_CRITERIA: Final = (
    f"of channels {', '.join(CHANNEL_CRITERIA)}; of weights {', '.join(WEIGHT_CRITERIA)}; of bits {', '.join(GRIDS)}"
)
_FAST: Final = {"--fast": ("sparsegpt", "Of weights: choose by one sweep over the columns of each layer.")}
_COMPENSATE: Final = {
    "--no-compensate": (NOTHING, "Only mask what is pruned; --calibrate then only serves the criterion."),
    "--bn-recalibrate": (RECALIBRATE, "Instead of refitting: batch norm's statistics measured anew."),
    "--scale": (SCALE, "Instead of refitting: one factor for each channel that stays, as ThiNet has it."),
}


@dataclass(frozen=True)
class _ReadingOptions:
    """How a network and its images are read."""

    dialect: Annotated[str, Help("Whose Darknet: alexeyab or pjreddie.", one_of=DIALECT_NAMES)] = "alexeyab"
    letterbox: Annotated[
        bool | None,
        Help("Keep a picture's aspect or not; left out, as the cfg and dialect say.", flags=("--letterbox/--stretch",)),
    ] = None


@dataclass(frozen=True)
class Settings(_ReadingOptions):
    """How a network is read and measured; it holds for every step of a job."""

    metric: Annotated[
        str | None, Help("map50, map75, map50-95, top1 or top5; left out, map50 or top1.", metavar="NAME", small=True)
    ] = None
    images: Annotated[int | None, Help("Measure on the first N pictures of the valid list.", least=1)] = None
    labels: Annotated[
        bool,
        Help("Accuracy by labels, or agreement with what the original network finds.", flags=("--labels/--no-labels",)),
    ] = True
    allow_partial: Annotated[bool, Help("WEIGHTS may hold the first layers only; the others start at random.")] = False


@dataclass(frozen=True)
class UnitOptions:
    """What a unit of pruning is. What is None is as before, at first a channel; None, too, where it doesn't apply."""

    granularity: Annotated[
        str | None,
        Help(
            "What a unit is: channel makes a slim network; weight, block or n:m make zeros in one of unchanged shape, "
            "bits few values of weights. Left out, as before, at first channel.",
            one_of=GRANULARITIES,
        ),
    ] = None
    block: Annotated[
        str | None, Help("Weights that go together: filters x columns, like 1x2, 4x1 or 1x16.", metavar="NxD")
    ] = None
    block_pooling: Annotated[
        str | None, Help("A block's magnitude: the average or the max of its weights'.", one_of=POOLINGS)
    ] = None
    n_of_m: Annotated[
        str | None, Help("Weights that stay of so many neighbouring input channels, like 2:4.", metavar="N:M")
    ] = None
    only: Annotated[
        tuple[str, ...] | None,
        Help("Layers whose weights can go: kernels, kinds or numbers, like 1x1,connected,7.", metavar=_LAYERS),
    ] = None

    @property
    def units(self) -> UnitOptions:
        """These options alone."""
        return UnitOptions(**{each.name: getattr(self, each.name) for each in fields(UnitOptions)})


@dataclass(frozen=True)
class AnalysisOptions(UnitOptions):
    """What is measured of each group, and how groups are pruned for it."""

    criterion: Annotated[
        str | None,
        Help(f"What chooses units: {_CRITERIA}. Left out, the best there is.", one_of=CRITERIA_NAMES, switches=_FAST),
    ] = None
    calibrate: Annotated[int, Help("Train pictures that consumers are refitted on; 0: no refit.", least=0)] = CALIBRATE
    compensation: Annotated[str, Help("", switches=_COMPENSATE)] = REFIT
    """One of COMPENSATIONS."""
    tolerances: Annotated[
        tuple[float, ...] | None,
        Help(
            "Losses of accuracy at which is found how far groups are prunable; left out, 0.005 to 0.05.",
            metavar="LIST",
        ),
    ] = None
    sparsities: Annotated[
        tuple[float, ...] | None,
        Help(
            "Instead: measure at all of these, like 0.25,0.5.",
            metavar="LIST",
            switches={"--grid": (GRID, "Instead: the classic nine sparsities, 0.1,0.2 to 0.9.")},
        ),
    ] = None
    seed: Annotated[int, Help("Of all that is random.", least=0)] = 0


@dataclass(frozen=True)
class GoalOptions:
    """What pruning may lose, is to save, or how sparse it is to be. Exactly one of the first six is given."""

    threshold: Annotated[
        float | None, Help("Accuracy that each group, pruned alone, may lose; 0.01 is a point.", metavar="T")
    ] = None
    ratio: Annotated[
        float | None, Help("Instead: the share of the BFLOPs (or --objective) to remove.", metavar="R")
    ] = None
    total_loss: Annotated[
        float | None, Help("Instead: accuracy that all groups together may lose, measured.", metavar="L")
    ] = None
    sparsity: Annotated[
        float | None, Help("Instead, nothing measured: the share of each group's units that goes.", metavar="S")
    ] = None
    global_sparsity: Annotated[
        float | None,
        Help("Instead: the share of all weights that goes, by one magnitude; of channels, by bn-scale.", metavar="S"),
    ] = None
    magnitude: Annotated[
        str | None,
        Help(
            "Instead: weights below it go; 0.01, of layers like 3:0.01,7:0.02, or of a layer's standard deviation, "
            "0.7std.",
            metavar="A",
        ),
    ] = None
    divide: Annotated[
        str, Help(f"How --sparsity is divided among layers: {', '.join(DIVISIONS)}.", one_of=DIVISIONS)
    ] = "uniform"
    relative: Annotated[bool, Help("T is a fraction of the original's accuracy.")] = False


@dataclass(frozen=True)
class PruneOptions(UnitOptions, GoalOptions):
    """The goal of pruning, what bounds it, and how groups are pruned.

    What is None is as in the analysis or the last round.
    """

    rule: Annotated[
        str, Help("interpolated, or prefix: stop at the measurement before a group loses too much.", one_of=RULES)
    ] = "interpolated"
    objective: Annotated[
        str | None,
        Help(
            "What pruning is to save: bflops, parameters or latency; of weights nonzero, of bits bits. Left out, the "
            "first of these.",
            one_of=OBJECTIVES,
        ),
    ] = None
    reader: Annotated[
        str | None,
        Help("Whose time: darknet, opencv or ncnn; left out, the first that runs it.", metavar="NAME", small=True),
    ] = None
    timings: Annotated[
        str | None,
        Help(
            "With --objective latency: times of layers from the board, as bench --emit's script has them.",
            metavar="FILE",
        ),
    ] = None
    drop_branches: Annotated[bool, Help("Whole residual branches may go too, where little is lost with them.")] = False
    exclude: Annotated[
        tuple[int, ...] | None,
        Help("Layers whose units all stay, like 3,5-8, or none; left out, as before.", metavar=_LAYERS),
    ] = None
    multiple: Annotated[
        int | None,
        Help(
            f"Kept channels of a group are a multiple of N; left out, as before, at first {MULTIPLE}. Groups of fewer "
            "than 16 channels go by 4 at the most, of fewer than 8 by 2, of fewer than 4 by 1.",
            least=1,
        ),
    ] = None
    min_keep: Annotated[int | None, Help("Units of a group that stay at least; left out, as before.", least=1)] = None
    criterion: Annotated[
        str | None,
        Help(f"As for ana: {_CRITERIA}. Left out, as ana had it.", one_of=CRITERIA_NAMES, switches=_FAST),
    ] = None
    calibrate: Annotated[int | None, Help("As for ana; left out, as ana had it.", least=0)] = None
    compensation: Annotated[str | None, Help("", switches=_COMPENSATE)] = None
    reuse_analysis: Annotated[bool, Help("Choose by the curves of the round before.")] = False


@dataclass(frozen=True)
class _LearningOptions:
    """What every training takes."""

    ema: Annotated[
        float | None,
        Help("Share that an average of the weights keeps; left out, the cfg's.", metavar="A", least=0, most=0.99999),
    ] = None
    early_stop: Annotated[int, Help("End after N measurements without a better one; 0: don't.", least=0)] = 0
    bn_l1: Annotated[
        float,
        Help("Sparsity training: L1 on batch norm's scales, like 1e-4, so that bn-scale tells which can go.", least=0),
    ] = 0.0
    bf16: Annotated[bool, Help("Compute layers in bfloat16 on a CPU; a GPU that has it does anyway.")] = False
    seed: Annotated[int, Help("Of all that is random.", least=0)] = 0
    workers: Annotated[int, Help("Processes that prepare train pictures; 0: none.", least=0)] = 2


@dataclass(frozen=True)
class FinetuneOptions(_LearningOptions):
    """How the pruned network is trained. Exactly one of epochs and iterations is given."""

    epochs: Annotated[float | None, Help("Times through the train list.", metavar="N", least=0)] = None
    iterations: Annotated[int | None, Help("Instead: updates of the weights.", least=1)] = None
    learning_rate: Annotated[float | None, Help("Left out, a share of the cfg's.", least=0)] = None
    batch: Annotated[int | None, Help("Pictures of an update; left out, as the cfg says.", least=1)] = None
    bits: Annotated[
        int | None, Help("Train with weights of so few bits, as pack has them.", metavar="B", least=2, most=8)
    ] = None
    bits_grid: Annotated[
        str, Help("Of --bits: uniform or kmeans, as pack has them.", one_of=GRIDS, flags=("--grid",))
    ] = "uniform"
    distill: Annotated[
        bool, Help("Let the unpruned network teach, too: its outputs, and the features of pruned layers.")
    ] = False
    labels: Annotated[
        bool, Help("With --distill: let it teach alone; train pictures need no labels.", flags=(" /--no-labels",))
    ] = True
    freeze: Annotated[tuple[int, ...], Help("Layers that stay as they are, like 0-4,8.", metavar=_LAYERS)] = ()
    schedule: Annotated[
        str | None,
        Help(
            "Grow to the plan's sparsity while training, from the weights before pruning: constant, polynomial, log, "
            "'steps 0:0.1,1000:0.3' or module:function. Left out, all of it from the start.",
            metavar="KIND",
        ),
    ] = None
    begin: Annotated[
        str | None, Help("Of the schedule: iterations, or epochs like 2epochs; left out, 0.", metavar="N")
    ] = None
    end: Annotated[
        str | None, Help("When all of the sparsity is reached; left out, after 3/4 of the training.", metavar="N")
    ] = None
    every: Annotated[
        str | None, Help("Between two steps of the schedule; left out, 100, or 3epochs for log.", metavar="N")
    ] = None
    power: Annotated[float | None, Help("Of polynomial; left out, 3: the cubic.", metavar="P")] = None
    initial_sparsity: Annotated[float | None, Help("Where polynomial begins; left out, 0.", metavar="S")] = None
    regrow: Annotated[
        bool, Help("Let weights come back where a step chooses anew, or not.", flags=("--regrow/--no-regrow",))
    ] = True

    @property
    def scheduled(self) -> Mapping[str, Any]:
        """What is said of the schedule beside its kind."""
        told = {name: getattr(self, name) for name in ("begin", "end", "every", "power")}
        told["initial"] = self.initial_sparsity
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True)
class TrainOptions(_LearningOptions):
    """How a network is trained as its cfg says."""

    pretrained: Annotated[Path | None, Help("Weights whose first layers are this network's.", metavar="FILE")] = None
    pretrained_layers: Annotated[int | None, Help("Take so many; left out, as many as fit.", least=1)] = None
    iterations: Annotated[int, Help("Updates; 0: the cfg's max_batches.", least=0)] = 0


@dataclass(frozen=True)
class ProcessOptions:
    """In how many processes, and on which GPUs."""

    processes: Annotated[
        int | None, Help("Share the work among N processes, as torchrun starts them; left out, one.", least=1)
    ] = None
    devices: Annotated[
        tuple[int, ...] | None,
        Help("Share the work among these GPUs, a process each, like 0,1,2,3 or 0-3.", metavar="LIST"),
    ] = None

    @property
    def count(self) -> int:
        """How many processes."""
        return len(self.devices) if self.devices else self.processes or 1


@dataclass(frozen=True)
class OnnxOptions:
    """What a network is as ONNX."""

    onnx_decode: Annotated[bool, Help("Of a detector: give boxes and scores; left out, what enters its heads.")] = False
    int8: Annotated[bool, Help("Compute in 8 bits; what train pictures take decides the ranges.")] = False
    int8_images: Annotated[int, Help("With --int8: so many train pictures.", least=1)] = CALIBRATE


@dataclass(frozen=True)
class ExportOptions(OnnxOptions):
    """For whom the slim network is written, and what of it."""

    reader: Annotated[
        str | None,
        Help(
            "Who reads it: pjreddie, alexeyab, hank-ai or opencv (left out, all four); ncnn, tensorrt_demos, "
            "pytorch-yolov4 or opencv5.",
            metavar="READER",
            flags=("--for",),
            small=True,
        ),
    ] = None
    fold_bn: Annotated[bool, Help("Batch norm within the weights, so that all readers compute the same.")] = False
    keep_seen: Annotated[bool, Help("Keep the count of images trained on; else 0, so that training starts.")] = False
    onnx: Annotated[bool, Help("Write the slim network as .onnx, too.")] = False


@dataclass(frozen=True)
class PackOptions:
    """With how few bits weights are packed."""

    bits: Annotated[
        int | None,
        Help("Of a weight; left out, all is kept as it is, bit for bit.", metavar="B", least=2, most=8),
    ] = None
    grid: Annotated[
        str, Help("uniform: steps of a scale for each filter; kmeans: a codebook for each layer.", one_of=GRIDS)
    ] = "uniform"
    calibrate: Annotated[
        int, Help("Train pictures that choose the rounding, with --bits and --data; 0: to nearest.", least=0)
    ] = CALIBRATE


@dataclass(frozen=True)
class DetectOptions(_ReadingOptions):
    """What counts as found."""

    thresh: Annotated[
        float | None,
        Help("Least probability; left out, the dialect's own.", metavar="P", least=0, most=1),
    ] = None
    nms: Annotated[
        str | None, Help("default, greedynms, diounms or cornersnms; left out, the cfg's.", metavar="KIND", small=True)
    ] = None
