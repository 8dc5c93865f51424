"""What the descendants of Darknet compute differently, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from yoloprune.errors import InputError

FLT_MIN: Final = 2.0**-126
"""What is smaller but not 0 is a denormal."""


class Words(NamedTuple):
    """Words that a value may be."""

    known: tuple[str, ...]
    otherwise: str
    """What any other word counts as."""


@dataclass(frozen=True)
class Dialect:
    """One descendant of Darknet. A layer asks for a fact, never for the name."""

    name: str
    """What `--dialect` takes."""
    bn_epsilon: float
    """The small number of batch normalization at inference."""
    bn_epsilon_in_root: bool
    """True: (x-mean)/sqrt(var+eps), AlexeyAB batchnorm_layer.c. False: (x-mean)/(sqrt(var)+eps), pjreddie blas.c."""
    bn_momentum: float
    """Share of the batch in the running mean and variance when training."""
    letterbox: bool
    """Whether images keep their aspect (grey borders) where the cfg says nothing; otherwise they are stretched."""
    labels_anywhere: bool
    """Label path. True: the first `images` in the path becomes `labels` (pjreddie). False: AlexeyAB's few folders."""
    labels_required: bool
    """Whether training needs a label file for every picture (pjreddie ends without); else none means no objects."""
    extended: bool
    """Knows AlexeyAB's keys: route groups, scale_channels, scale_x_y, new_coords, nms_kind, iou losses ..."""
    shortcut_scaled: bool
    """Whether [shortcut] honours alpha and beta and may change resolution (pjreddie)."""
    vectors_are_maps: bool
    """Whether what [rnn], [softmax] and their like give has a width and a height for the sections behind."""
    max_truths: int
    """Default of `max`, the number of boxes that training looks at in an image."""
    smallest_truth: float | None
    """Boxes with a side under this fraction of the input are not trained on; None: under a pixel of it."""
    yolo_truths_add_up: bool
    """Loss of [yolo]. True: what several truths in one cell say of its box adds up, and a prediction is spared only
    where it believes in some class (AlexeyAB). False: the last truth wins, any good overlap spares (pjreddie)."""
    region_slopes: bool
    """Loss of [region]. True: steps of x, y and objectness carry the logistic's slope (AlexeyAB). False: they don't,
    small boxes count more, and without softmax a second truth in a cell adds its class (pjreddie)."""
    connected_momentum: float
    """As `bn_momentum`, of [connected]."""
    adam_epsilon: float
    """Default of `eps`."""
    random_sides: tuple[int, int] | None
    """Sides that random=1 draws from whatever the cfg's size; None: sizes around the cfg's own."""
    batchnorm_bias: bool
    """Whether a [batchnorm] section has a bias, and stores it."""
    lstm_order: tuple[str, ...]
    """Parts of [lstm] as the .weights file has them: w by the state, u by the input; forget, input, candidate, out."""
    gru_order: tuple[str, ...]
    """Parts of [gru] likewise: update z, reset r, candidate h."""
    display_thresh: float
    """Default `-thresh` of `detector test`."""
    words: Mapping[str, Words] = field(hash=False)
    """For keys that may be any word (parser.c get_policy, parse_yolo; cost_layer.c get_cost_type): those it knows."""

    @property
    def variance_over(self) -> float:
        """Batch norm is finite for every variance over this, and for no other, computed in double.

        Denormals are 0 to Darknet, which is built with -Ofast, so without an epsilon in the root negative ones will do.
        """
        return -self.bn_epsilon if self.bn_epsilon_in_root else -FLT_MIN


_POLICIES: Final = ("constant", "step", "steps", "exp", "poly", "sigmoid", "random")
_COSTS: Final = ("sse", "masked", "smooth")
_BOX_LOSSES: Final = ("iou", "giou", "diou", "ciou")
ALEXEYAB: Final = Dialect(
    name="alexeyab",
    bn_epsilon=1e-5,
    bn_epsilon_in_root=True,
    bn_momentum=0.1,
    letterbox=False,
    labels_anywhere=False,
    labels_required=False,
    extended=True,
    shortcut_scaled=False,
    vectors_are_maps=True,
    max_truths=200,
    smallest_truth=None,
    yolo_truths_add_up=True,
    region_slopes=True,
    connected_momentum=0.05,
    adam_epsilon=1e-6,
    random_sides=None,
    batchnorm_bias=True,
    lstm_order=("wf", "wi", "wg", "wo", "uf", "ui", "ug", "uo"),
    gru_order=("uz", "ur", "uh", "wz", "wr", "wh"),
    display_thresh=0.25,
    words={
        "policy": Words((*_POLICIES, "sgdr"), "constant"),
        "type": Words(_COSTS, "sse"),
        "iou_loss": Words(("mse", *_BOX_LOSSES), "iou"),
        "iou_thresh_kind": Words(_BOX_LOSSES, "iou"),
        "nms_kind": Words(("default", "greedynms", "diounms", "cornersnms"), "default"),
        "yolo_point": Words(("center", "left_top", "right_bottom"), "center"),
    },
)
PJREDDIE: Final = Dialect(
    name="pjreddie",
    bn_epsilon=1e-6,
    bn_epsilon_in_root=False,
    bn_momentum=0.01,
    letterbox=True,
    labels_anywhere=True,
    labels_required=True,
    extended=False,
    shortcut_scaled=True,
    vectors_are_maps=False,
    max_truths=90,
    smallest_truth=0.001,
    yolo_truths_add_up=False,
    region_slopes=False,
    connected_momentum=0.01,
    adam_epsilon=1e-7,
    random_sides=(320, 608),
    batchnorm_bias=False,
    lstm_order=("wi", "wf", "wo", "wg", "ui", "uf", "uo", "ug"),
    gru_order=("wz", "wr", "wh", "uz", "ur", "uh"),
    display_thresh=0.5,
    words={"policy": Words(_POLICIES, "constant"), "type": Words((*_COSTS, "L1", "seg", "wgan"), "sse")},
)
DIALECTS: Final = {dialect.name: dialect for dialect in (ALEXEYAB, PJREDDIE)}


def dialect_named(name: str) -> Dialect:
    """The dialect of that name, or an InputError that lists them."""
    if name not in DIALECTS:
        raise InputError(f"--dialect: expected {' or '.join(DIALECTS)}, found {name!r}")
    return DIALECTS[name]
