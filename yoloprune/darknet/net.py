"""The [net] section (Darknet: parser.c parse_net_options)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import Shape
from yoloprune.darknet.options import Options

POLICIES = ("constant", "step", "steps", "exp", "poly", "sigmoid", "random")


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

    @classmethod
    def read(cls, options: Options, dialect: Dialect) -> Self:
        """Section -> Net, with Darknet's defaults."""
        shape = Shape(
            options.integer("channels", 0, 1, 65536),
            options.integer("height", 0, 1, 65536),
            options.integer("width", 0, 1, 65536),
        )
        if not any(shape) and options.has("inputs"):
            shape = Shape(options.integer("inputs", 0, 1, 1 << 20), 1, 1)  # a vector
        for key, value in zip(("channels", "height", "width"), shape, strict=True):
            if not value:
                raise options.error(f"expected {key}=, found none")
        known = (*POLICIES, "sgdr") if dialect.extended else POLICIES
        return cls(
            input=shape,
            batch=options.integer("batch", 1, 1),
            subdivisions=options.integer("subdivisions", 1, 1),
            learning_rate=options.number("learning_rate", 0.001),
            momentum=options.number("momentum", 0.9),
            decay=options.number("decay", 0.0001),
            policy=options.choice("policy", "constant", known),
            burn_in=options.integer("burn_in", 0, 0),
            power=options.number("power", 4),
            gamma=options.number("gamma", 1),
            step=options.integer("step", 1, 1),
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
            letter_box=options.integer("letter_box", 0) != 0 if options.has("letter_box") else None,
        )
