"""The [net] section, and what any section may say of its layer's training (Darknet: parser.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from yoloprune.darknet.declared import choice, declared, flag, integer, number, read_declared
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import KeyNotes, Shape
from yoloprune.darknet.options import Options


@dataclass(frozen=True)
class Net:
    """What [net] says of the network's input and of training."""

    input: Shape
    letter_box: bool | None
    """None where the cfg does not say."""
    crop: tuple[float, float]
    """Range of the short side, in pixels, of which a classifier sees a crop (`min_crop`, `max_crop`)."""
    betas: tuple[float, float]
    """Of Adam (`B1`, `B2`)."""
    batch: int = integer(1, 1)
    """Images for one update."""
    subdivisions: int = integer(1, 1)
    """Parts in which they are computed."""
    learning_rate: float = number(0.001)
    momentum: float = number(0.9)
    decay: float = number(0.0001)
    policy: str = choice("constant")
    burn_in: int = integer(0, 0)
    power: float = number(4)
    gamma: float = number(1)
    step: int = integer(1)
    scale: float = number(1)
    steps: tuple[int, ...] = declared(lambda options, dialect, key: options.integers(key))
    scales: tuple[float, ...] = declared(lambda options, dialect, key: options.numbers(key))
    max_batches: int = integer(0, 0)
    learning_rate_min: float = number(1e-5, 0)
    """Where policy sgdr ends a cycle."""
    sgdr_cycle: int = integer(0, 0)
    """Iterations of its first cycle; 0: max_batches."""
    sgdr_mult: int = integer(2, 1)
    """Growth of its cycles."""
    angle: float = number(0)
    aspect: float = number(1)
    saturation: float = number(1)
    exposure: float = number(1)
    hue: float = number(0)
    flip: bool = declared(lambda options, dialect, key: options.integer(key, 1) != 0)
    ema_alpha: float = number(0.0, 0, 1)
    """Share that the average of the weights keeps at an update; 0: no average."""
    adam: bool = flag()
    """Adam instead of momentum; with `betas` and `epsilon`."""
    epsilon: float = number(lambda dialect: dialect.adam_epsilon, 0, key="eps")
    resize_step: int = integer(32, 1, extended=True)
    """Multiple that multi-scale training keeps to."""
    mosaic: bool = flag(extended=True)
    """Every other picture is put together from four."""
    mosaic_bound: bool = flag(extended=True)
    """Whether boxes end with their part of a mosaic."""
    mixup: bool = flag(extended=True)
    """Every other picture is the mean of two."""
    blur: int = integer(0, 0, 1000, extended=True)
    """Sometimes all is blurred over so many pixels; 1: sometimes what is in no box."""
    gaussian_noise: int = integer(0, 0, extended=True)
    """Every other picture gets noise of this deviation, in levels of 255."""
    label_smooth_eps: float = number(0.0, 0, 1, extended=True)
    """What the true class of a picture lacks to 1, dealt out to the others (classifiers)."""

    key_notes: ClassVar[KeyNotes] = KeyNotes(
        "time_steps",
        "adversarial_lr attention augment_speed badlabels_rejection_percentage contrastive contrastive_color "
        "contrastive_jit_flip cutmix dynamic_minibatch equidistant_point loss_scale max_chart_loss "
        "num_sigmas_reject_badlabels optimized_memory seq_scales sequential_subdivisions show_receptive_field track "
        "try_fix_nan unsupervised use_cuda_graph weights_reject_freq workspace_size_limit_MB",
        "center clip notruth random",
        unknown_classic="ema_alpha flip learning_rate_min letter_box sgdr_cycle sgdr_mult",
    )

    @classmethod
    def read(cls, options: Options, dialect: Dialect) -> Self:
        """Section -> Net, with Darknet's defaults."""
        shape = Shape(
            options.integer("channels", 0, 1, 65536),
            options.integer("height", 0, 1, 65536),
            options.integer("width", 0, 1, 65536),
        )
        inputs = options.integer("inputs", 0, 1, 1 << 20, when=not any(shape))
        shape = Shape(inputs, 1, 1) if inputs else shape  # a vector
        for key, value in zip(("channels", "height", "width"), shape, strict=True):
            if not value:
                raise options.error(f"expected {key}=, found none")
        letter_box = options.flag("letter_box") if options.has("letter_box") else None
        options = options.training  # for all the rest
        net = cls(
            input=shape,
            letter_box=letter_box,
            crop=_crop(options, dialect, shape.w),
            betas=(options.number("B1", 0.9, 0, 1), options.number("B2", 0.999, 0, 1)),
            **read_declared(cls, options, dialect),
        )
        if net.policy == "step":
            options.integer("step", 1, 1)
        return net


def _crop(options: Options, dialect: Dialect, width: int) -> tuple[float, float]:
    """Of a network's input so wide; pjreddie has it as a ratio too."""
    low, high = options.integer("min_crop", width, 1), options.integer("max_crop", 2 * width, 1)
    if dialect.extended:
        return float(low), float(high)
    ratios = {"min_ratio": low / width, "max_ratio": high / width}
    least, most = (options.number(key, default, 1 / width) for key, default in ratios.items())  # a pixel
    return least * width, most * width


@dataclass(frozen=True)
class Updates:
    """What a layer's section says of its own training."""

    rate: float
    """Factor of the learning rate (`learning_rate`)."""
    stop: int
    """No gradient for this layer and those before it: 1 always, more: until that iteration (`stopbackward`)."""
    not_until: int
    """No update up to this iteration (`dont_update`)."""
    burn_ins: float
    """No update for so many times `burn_in` (`burnin_update`)."""
    statistics_only: bool
    """Only running mean and variance move (`train_only_bn`)."""

    key_notes: ClassVar[KeyNotes] = KeyNotes(
        "onlyforward dontload dontloadscales", "clip", unread_classic="truth dontsave numload smooth"
    )

    @classmethod
    def read(cls, options: Options, dialect: Dialect) -> Self:
        """Section -> Updates; pjreddie's Darknet has the first two."""
        extended, options = dialect.extended, options.training
        stop = options.integer("stopbackward", 0)
        return cls(
            rate=options.number("learning_rate", 1.0),
            stop=stop if extended else int(stop != 0),
            not_until=options.integer("dont_update", 0) if extended else 0,
            burn_ins=options.integer("burnin_update", 0) if extended else 0,
            statistics_only=extended and options.flag("train_only_bn"),
        )

    def stopped(self, iteration: int) -> bool:
        """Whether gradients end here in update `iteration` (network_kernels.cu backward_network_gpu)."""
        return self.stop == 1 or self.stop > iteration

    def skipped(self, iteration: int, burn_in: int) -> bool:
        """Whether update `iteration` leaves the layer as it is (update_network_gpu)."""
        return self.statistics_only or self.burn_ins * burn_in > iteration or 0 < self.not_until >= iteration
