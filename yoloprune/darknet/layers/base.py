"""What every layer of the table answers: its shape, its tensors, its torch module, how channels flow through it.

Legend of shapes: B batch, C channels, H height, W width, N filters, A anchors, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.options import Options

Ids = NDArray[np.int64]
"""Channel ids, one for each channel of a feature map [C]."""
Keep = NDArray[np.bool_]
"""Which channels of a feature map stay [C]."""

_MOST_VALUES = 2**31 - 1


class Shape(NamedTuple):
    """Shape of a layer's output for one image."""

    c: int
    h: int
    w: int

    @property
    def size(self) -> int:
        """Values."""
        return self.c * self.h * self.w

    def __str__(self) -> str:
        return f"{self.w}x{self.h}x{self.c}"


@dataclass(frozen=True)
class TensorSpec:
    """One array of a layer, as the .weights file stores it."""

    name: str
    shape: tuple[int, ...]
    start: float = 0.0
    """Value in a new network."""
    bound: float = 0.0
    """If not 0, a new network draws uniformly from -bound..bound instead."""
    masked: float = 0.0
    """Value for a channel that is pruned but still there."""
    trained: bool = True
    """False for running statistics."""
    decay: bool = False
    """Whether weight decay applies (Darknet: to weights, not to biases and scales)."""
    positive: bool = False
    """Values below 0 can't be."""

    @property
    def size(self) -> int:
        """Floats."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Narrowed:
    """What is left of a layer when channels go."""

    values: Mapping[str, int] = field(default_factory=dict)
    """cfg keys and their new values (only what the section must say)."""
    index: Mapping[str, tuple[Keep | None, ...]] = field(default_factory=dict)
    """For each tensor, per axis, which entries stay (None: all)."""


class ChannelBook(Protocol):
    """Where a layer's channel rule writes down what it knows (prune/channels.py holds the book)."""

    def new(self, count: int, producer: int) -> Ids:
        """`count` fresh ids made by layer `producer`."""

    def tie(self, *ids: Ids) -> None:
        """Channels at the same position of these arrays live and die together."""

    def freeze(self, ids: Ids) -> None:
        """These channels must stay."""


@dataclass(frozen=True)
class Context:
    """What a section may look at while it becomes a layer."""

    index: int
    shapes: Mapping[int, Shape]
    """Outputs of the layers before, and of -1, the network's input."""
    dialect: Dialect
    net_width: int
    net_height: int

    @property
    def previous(self) -> int:
        """Index of the layer before; -1 is the input."""
        return self.index - 1

    def source(self, options: Options, key: str, value: int) -> int:
        """Absolute index that `key=value` points to: negative counts back from here. InputError if it isn't before."""
        index = self.index + value if value < 0 else value
        if not 0 <= index < self.index:
            where = "after the layers before it" if index >= self.index else "before the first layer"
            raise options.error(f"points {where} (expected {-self.index}..{self.index - 1}, found {value})", key)
        return index


@dataclass(frozen=True)
class Layer(ABC):
    """One section of a cfg, resolved: which layers it reads, in which shapes, and its options as fields."""

    index: int
    sources: tuple[int, ...]
    """Layers it reads, -1 the network's input, in the order its module takes them."""
    source_shapes: tuple[Shape, ...]

    names: ClassVar[tuple[str, ...]] = ()
    """Section name as written, then aliases."""
    extended: ClassVar[bool] = False
    """Only AlexeyAB's dialect knows the section."""
    sums_channels: ClassVar[bool] = False
    """A consumer: its outputs are weighted sums over channels; its module is an `Affine`."""
    is_output: ClassVar[bool] = False
    """The network's results are this layer's (a head)."""

    @classmethod
    @abstractmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Section -> layer. InputError for what can't be."""

    @property
    @abstractmethod
    def out(self) -> Shape:
        """Output shape."""

    def tensors(self) -> tuple[TensorSpec, ...]:
        """Arrays in disk order."""
        return ()

    @abstractmethod
    def module(self, dialect: Dialect) -> nn.Module:
        """Torch module: takes a Tensor [B,C,H,W] per source, gives one; parameters are named as `tensors()` names."""

    def channels(self, book: ChannelBook, inputs: Sequence[Ids]) -> Ids:
        """Ids of the output channels, given those of each source. Here: they pass through."""
        return inputs[0]

    def narrow(self, inputs: Sequence[Keep], output: Keep) -> Narrowed:
        """What is left when these channels of each source and of the output stay. Here: nothing changes."""
        return Narrowed()

    def hazard(self, in_shapes: Mapping[int, Shape]) -> str | None:
        """Why a stock reader would compute garbage here although the section is legal, if so.

        in_shapes: for each layer, the shape of what it reads first.
        """
        return None

    @property
    def adds_only(self) -> bool:
        """Whether its output is the sum of two maps of its shape, and nothing is done to it."""
        return False

    @property
    def links(self) -> Mapping[str, tuple[int, ...]]:
        """cfg keys that name layers, and which ones in the order of the cfg; the layer before needs no key."""
        return {}

    @property
    def groups_summed(self) -> int:
        """Of a consumer: parts of equal size that its channels are summed in; filters belong to one part each."""
        return 1

    @property
    def flops(self) -> int:
        """Floating point operations for one image, 2 for a multiply-add; convolution and connected only."""
        return 0

    def described(self) -> Mapping[str, Any]:
        """What Darknet's layer table shows beside shapes: filters, size, stride, where there are any."""
        return {}

    @property
    def name(self) -> str:
        """Section name."""
        return self.names[0]

    def __str__(self) -> str:
        return f"layer {self.index} [{self.name}]"


REGISTRY: dict[str, type[Layer]] = {}
"""Section names and aliases -> layer class."""

_L = TypeVar("_L", bound=type[Layer])


def register(cls: _L) -> _L:
    """Class decorator that enters a layer into the table."""
    for name in cls.names:
        if name in REGISTRY:
            raise ValueError(f"[{name}] is registered twice")
        REGISTRY[name] = cls
    return cls


def read_layer(options: Options, context: Context) -> Layer:
    """Section -> layer by the table. InputError for sections that the table or the dialect lacks."""
    cls = REGISTRY.get(options.section.name)
    if cls is None or (cls.extended and not context.dialect.extended):
        kinds = {kind for kind in REGISTRY.values() if context.dialect.extended or not kind.extended}
        known = ", ".join(sorted(kind.names[0] for kind in kinds))
        raise options.error(f"unknown or unsupported in dialect {context.dialect.name} (expected one of {known})")
    layer = cls.read(options, context)
    shape = layer.out
    if min(shape) < 1 or shape.size > _MOST_VALUES:
        raise options.error(f"output would be {shape} (expected 1..{_MOST_VALUES} values)")
    return layer


def same_size(options: Options, shapes: Sequence[Shape]) -> None:
    """InputError unless all shapes have one width and height."""
    if len({(shape.h, shape.w) for shape in shapes}) > 1:
        found = " and ".join(str(shape) for shape in shapes)
        raise options.error(f"expected inputs of one width and height, found {found}")


__all__ = [
    "REGISTRY",
    "ChannelBook",
    "Context",
    "Ids",
    "Keep",
    "Layer",
    "Narrowed",
    "Shape",
    "TensorSpec",
    "read_layer",
    "register",
    "same_size",
]
