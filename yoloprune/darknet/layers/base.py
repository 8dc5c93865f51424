"""What every layer of the table answers: its shape, its tensors, its torch module, how channels flow through it.

Legend of shapes: B batch, C channels, H height, W width, N filters, A anchors, K classes.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yoloprune.darknet.declared import read_declared
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.operators import Arrays, Operators, UnconvertibleError, Value
from yoloprune.darknet.options import Options

Ids = NDArray[np.int64]
"""Channel ids, one for each channel of a feature map [C]."""
Keep = NDArray[np.bool_]
"""Which channels of a feature map stay [C]."""


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


class Vector(Shape):
    """Shape of an output that is only values in a row to Darknet, as it comes from [rnn] or [softmax]."""

    __slots__ = ()


@dataclass(frozen=True)
class TensorSpec:
    """One array of a layer, as the .weights file stores it."""

    name: str
    shape: tuple[int, ...]
    start: float = 0.0
    """Value in a new network."""
    bound: float = 0.0
    """If not 0, a new network draws uniformly from -bound..bound around that."""
    masked: float = 0.0
    """Value for a channel that is pruned but still there."""
    trained: bool = True
    """False for running statistics."""
    decay: bool = False
    """Whether weight decay applies (Darknet: to weights, not to biases and scales)."""
    variance: bool = False
    """Which values batch norm is finite for, the layer's `Storage` knows."""
    dense: bool = False
    """Matrix of a fully connected part: files of a version over 1000 hold it transposed."""

    @property
    def size(self) -> int:
        """Floats."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Storage:
    """Which of a layer's arrays a .weights file holds, and how; the rest starts as in a new network."""

    load: bool = True
    """False (`dontload`): none."""
    scales: bool = True
    """False (`dontloadscales`): all but scale, mean and variance."""
    filters: int | None = None
    """Of a convolution (`numload`): only so many filters."""
    flipped: bool = False
    """Of a convolution (`flipped`): the weight as matrix [C/groups * k * k, N]."""
    variance_over: float = 0.0
    """Bound of variances, see `Dialect`."""

    def rows(self, spec: TensorSpec) -> int:
        """How many entries of the array's first axis the file holds."""
        if not self.load or (spec.name in ("scale", "mean", "variance") and not self.scales):
            return 0
        return spec.shape[0] if self.filters is None else self.filters


class ChannelGraph(Protocol):
    """Where a layer's channel rule writes down what it knows (prune/channels.py holds the graph)."""

    def new(self, count: int, producer: int) -> Ids:
        """`count` fresh ids made by layer `producer`."""

    def couple(self, *ids: Ids) -> None:
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
    layers: Sequence[Layer] = ()
    """The layers before."""

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
        if self.layers and self.layers[index].allocated != self.layers[index].out:
            why = "has a blur behind it (antialiasing), and by its index Darknet takes it for as large as before that"
            raise options.error(f"{self.layers[index]} {why}", key)
        return index


class KeyNotes(NamedTuple):
    """Keys, as words, of which Darknet's parser and a section's `read` differ."""

    unread: str = ""
    """Darknet reads them, the class doesn't."""
    unread_extended: str = ""
    """Likewise, AlexeyAB's alone."""
    unread_classic: str = ""
    """Likewise, pjreddie's alone."""
    unknown_extended: str = ""
    """The class asks for them only to refuse them: AlexeyAB's Darknet doesn't know them."""
    unknown_classic: str = ""
    """Likewise pjreddie's."""


@dataclass(frozen=True)
class Layer(ABC):
    """One section of a cfg, resolved: which layers it reads, in which shapes, and its options as fields."""

    index: int
    sources: tuple[int, ...]
    """Layers it reads, -1 the network's input, in the order its module takes them."""
    source_shapes: tuple[Shape, ...]
    storage: Storage = field(default=Storage(), kw_only=True)

    names: ClassVar[tuple[str, ...]] = ()
    """Section name as written, then aliases."""
    extended: ClassVar[bool] = False
    """Only AlexeyAB's dialect knows the section."""
    classic: ClassVar[bool] = False
    """Only pjreddie's dialect knows the section."""
    key_notes: ClassVar[KeyNotes] = KeyNotes()
    """What `read` doesn't tell of its keys."""
    reads_vectors: ClassVar[bool] = False
    """It only counts the values that it reads, and needs no width and height."""
    sums_channels: ClassVar[bool] = False
    """A consumer: its outputs are weighted sums over channels; its module is an `Affine`."""
    is_output: ClassVar[bool] = False
    """The network's results are this layer's (a head)."""
    adds: ClassVar[bool] = False
    """A shortcut: it adds maps to each other, channel by channel."""
    keeps_all: ClassVar[bool] = False
    """None of the channels that it reads can go, since each of its values depends on all of them."""
    shown: ClassVar[Mapping[str, str]] = {}
    """What Darknet's layer table shows beside shapes (filters, size, stride) -> the attribute that says it."""

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Section -> layer. InputError for what can't be. Here: its options are all declared.

        It asks for all keys of the dialect before it refuses their values: keys.py learns from that which there are.
        """
        return cls.of(options, context)

    @classmethod
    def of(cls, options: Options, context: Context, **others: Any) -> Self:
        """A layer of the declared options and `others`; it reads the layer before, unless these say more."""
        return cls(**{**single(context), **read_declared(cls, options, context.dialect), **others})

    @property
    def out(self) -> Shape:
        """Output shape. Here: that of the first source."""
        return self.source_shapes[0]

    @property
    def allocated(self) -> Shape:
        """The output's shape as sections see it that name the layer by its index. Here: what it is."""
        return self.out

    def tensors(self) -> tuple[TensorSpec, ...]:
        """Arrays in disk order."""
        return ()

    def module(self, dialect: Dialect) -> nn.Module:
        """Torch module: takes a Tensor [B,C,H,W] per source, gives one; parameters are named as `tensors()` names.

        Here: for a layer without arrays, whose `compute` says all.
        """
        return Computed(self)

    def compute(self, x: Tensor, *others: Tensor) -> Tensor:
        """Of a layer without arrays: a Tensor [B,C,H,W] per source -> its output. Here: the first as it is."""
        return x

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> Value:
        """The same in operators, for one image: a value [1,C,H,W] per source -> its output.

        arrays: the layer's (or those it shares) with batch norm folded, so a weight and a bias where there was some.
        UnconvertibleError for what no operators compute.
        """
        raise UnconvertibleError("has no conversion")

    def scores(self, output: Tensor) -> Tensor:
        """Of a result: what its answers are ranked by; of a classifier its classes, [B,C,H,W] -> [B,K]."""
        return output.flatten(1)

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """Ids of the output channels, given those of each source. Here: they pass through, frozen if it keeps all."""
        if self.keeps_all:
            graph.freeze(inputs[0])
        return inputs[0]

    def counts(self, inputs: Sequence[int], output: int) -> Mapping[str, int]:
        """cfg keys that say how many channels there are, where each source has so many and the output has so many.

        A field of the same name holds each. Here: none.
        """
        return {}

    def changed_counts(self, inputs: Sequence[int], output: int) -> dict[str, str]:
        """Of `counts`, the keys that must say something else than the cfg does, as text."""
        whole = self.counts([shape.c for shape in self.source_shapes], self.out.c)
        return {key: str(value) for key, value in self.counts(inputs, output).items() if value != whole[key]}

    def array_index(self, inputs: Sequence[Keep], output: Keep) -> Mapping[str, tuple[Keep | None, ...]]:
        """For each array, per axis, which entries stay (None: all) when these channels of sources and output stay."""
        return {}

    def narrowed(self, inputs: Sequence[int], output: int) -> Self:
        """The same layer reading so many channels of each source and giving so many."""
        shapes = tuple(shape._replace(c=c) for shape, c in zip(self.source_shapes, inputs, strict=True))
        counts: dict[str, Any] = {**self.counts(inputs, output)}
        return replace(self, source_shapes=shapes, **counts)

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
    def trainable(self) -> bool:
        """Whether the module trains as Darknet does; a network with one that doesn't is not trained at all."""
        return True

    @property
    def shares(self) -> int | None:
        """The layer whose arrays this one computes with, where it has none of its own."""
        return None

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
        return {name: attrgetter(field)(self) for name, field in self.shown.items()}

    @property
    def name(self) -> str:
        """Section name."""
        return self.names[0]

    def __str__(self) -> str:
        return f"layer {self.index} [{self.name}]"


REGISTRY: dict[str, type[Layer]] = {}
"""Section names and aliases -> layer class."""

_Kind = TypeVar("_Kind", bound=type[Layer])


def register(cls: _Kind) -> _Kind:
    """Class decorator that enters a layer into the table."""
    for name in cls.names:
        if name in REGISTRY:
            raise ValueError(f"[{name}] is registered twice")
        REGISTRY[name] = cls
    return cls


def known_to(kind: type[Layer], dialect: Dialect) -> bool:
    """Whether the dialect has such sections."""
    return not (kind.classic if dialect.extended else kind.extended)


class Computed(nn.Module):
    """A layer's `compute`, for a layer without arrays."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.layer.compute(*inputs)


_L = TypeVar("_L", bound=Layer)


class WithArrays(nn.Module, Generic[_L]):
    """Of a layer with arrays: holds them by name, empty at first."""

    def __init__(self, layer: _L, dialect: Dialect) -> None:
        super().__init__()
        self.layer, self.dialect = layer, dialect
        add_tensors(self, layer.tensors())


def add_tensors(module: nn.Module, specs: Sequence[TensorSpec]) -> None:
    """Parameters and buffers of a module, empty, by the names of its layer's arrays."""
    for spec in specs:
        empty = torch.empty(spec.shape)
        if spec.trained:
            module.register_parameter(spec.name, nn.Parameter(empty))
        else:
            module.register_buffer(spec.name, empty)


def single(context: Context) -> dict[str, Any]:
    """Index, source and shape of a layer that reads the one before."""
    return {
        "index": context.index,
        "sources": (context.previous,),
        "source_shapes": (context.shapes[context.previous],),
    }


def freeze(graph: ChannelGraph, ids: Ids, made: Ids) -> Ids:
    """All of these must stay, and what is made of them, which is given back."""
    graph.freeze(ids)
    graph.freeze(made)
    return made


def same_size(options: Options, shapes: Sequence[Shape]) -> None:
    """InputError unless all shapes have one width and height."""
    if len({(shape.h, shape.w) for shape in shapes}) > 1:
        found = " and ".join(str(shape) for shape in shapes)
        raise options.error(f"expected inputs of one width and height, found {found}")
