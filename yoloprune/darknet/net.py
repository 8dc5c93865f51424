"""The [net] section, and what any section may say of its layer's training (Darknet: parser.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import KeyNotes, Shape
from yoloprune.darknet.options import Options


@dataclass(frozen=True)
class Net:
    """What [net] says of the network's input and of training."""

    input: Shape
    batch: int
    """Images for one update."""
    subdivisions: int
    """Parts in which they are computed."""
    learning_rate: float
    momentum: float
    decay: float
    policy: str
    burn_in: int
    power: float
    gamma: float
    step: int
    scale: float
    steps: tuple[int, ...]
    scales: tuple[float, ...]
    max_batches: int
    learning_rate_min: float
    """Where policy sgdr ends a cycle."""
    sgdr_cycle: int
    """Iterations of its first cycle; 0: max_batches."""
    sgdr_mult: int
    """Growth of its cycles."""
    angle: float
    aspect: float
    saturation: float
    exposure: float
    hue: float
    flip: bool
    ema_alpha: float
    """Share that the average of the weights keeps at an update; 0: no average."""
    letter_box: bool | None
    """None where the cfg does not say."""
    adam: bool
    """Adam instead of momentum; with `betas` and `epsilon`."""
    betas: tuple[float, float]
    epsilon: float
    resize_step: int
    """Multiple that multi-scale training keeps to."""
    mosaic: bool
    """Every other picture is put together from four."""
    mosaic_bound: bool
    """Whether boxes end with their part of a mosaic."""
    mixup: bool
    """Every other picture is the mean of two."""
    blur: int
    """Sometimes all is blurred over so many pixels; 1: sometimes what is in no box."""
    gaussian_noise: int
    """Every other picture gets noise of this deviation, in levels of 255."""
    label_smooth_eps: float
    """What the true class of a picture lacks to 1, dealt out to the others (classifiers)."""
    crop: tuple[float, float]
    """Range of the short side, in pixels, of which a classifier sees a crop (`min_crop`, `max_crop`)."""

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
        return cls._read(options.training, dialect, shape, letter_box)

    @classmethod
    def _read(cls, options: Options, dialect: Dialect, shape: Shape, letter_box: bool | None) -> Self:
        """All the rest, which only training reads."""
        extended = dialect.extended
        policy = options.choice("policy", "constant", *dialect.words["policy"])
        low = options.integer("min_crop", shape.w, 1)
        high = options.integer("max_crop", 2 * shape.w, 1)
        crop = (float(low), float(high))
        if not extended:
            ratios = {"min_ratio": low / shape.w, "max_ratio": high / shape.w}
            least, most = (options.number(key, default, 1 / shape.w) for key, default in ratios.items())  # a pixel
            crop = (least * shape.w, most * shape.w)
        return cls(
            input=shape,
            batch=options.integer("batch", 1, 1),
            subdivisions=options.integer("subdivisions", 1, 1),
            learning_rate=options.number("learning_rate", 0.001),
            momentum=options.number("momentum", 0.9),
            decay=options.number("decay", 0.0001),
            policy=policy,
            burn_in=options.integer("burn_in", 0, 0),
            power=options.number("power", 4),
            gamma=options.number("gamma", 1),
            step=options.integer("step", 1, 1 if policy == "step" else None),
            scale=options.number("scale", 1),
            steps=options.integers("steps"),
            scales=options.numbers("scales"),
            max_batches=options.integer("max_batches", 0, 0),
            learning_rate_min=options.number("learning_rate_min", 1e-5, 0),
            sgdr_cycle=options.integer("sgdr_cycle", 0, 0),
            sgdr_mult=options.integer("sgdr_mult", 2, 1),
            angle=options.number("angle", 0),
            aspect=options.number("aspect", 1),
            saturation=options.number("saturation", 1),
            exposure=options.number("exposure", 1),
            hue=options.number("hue", 0),
            flip=options.integer("flip", 1) != 0,
            ema_alpha=options.number("ema_alpha", 0.0, 0, 1),
            letter_box=letter_box,
            adam=options.flag("adam"),
            betas=(options.number("B1", 0.9, 0, 1), options.number("B2", 0.999, 0, 1)),
            epsilon=options.number("eps", dialect.adam_epsilon, 0),
            resize_step=options.integer("resize_step", 32, 1) if extended else 32,
            mosaic=extended and options.flag("mosaic"),
            mosaic_bound=extended and options.flag("mosaic_bound"),
            mixup=extended and options.flag("mixup"),
            blur=options.integer("blur", 0, 0, 1000) if extended else 0,
            gaussian_noise=options.integer("gaussian_noise", 0, 0) if extended else 0,
            label_smooth_eps=options.number("label_smooth_eps", 0.0, 0, 1) if extended else 0.0,
            crop=crop,
        )


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
