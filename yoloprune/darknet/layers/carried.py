"""Sections that are read, counted and carried through byte for byte, but not run: no detector in use needs them, and
no Darknet that is at hand computes them ([crnn], [conv_lstm], [history], [deconvolutional], [iseg]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NoReturn, Self

from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.layers.base import (
    ChannelGraph,
    Context,
    Ids,
    KeyNotes,
    Layer,
    Shape,
    TensorSpec,
    freeze,
    register,
    single,
)
from yoloprune.darknet.layers.specs import convolution_specs
from yoloprune.darknet.operators import Arrays, Operators, UnconvertibleError, Value
from yoloprune.darknet.options import Options
from yoloprune.errors import InputError


@dataclass(frozen=True)
class Carried(Layer):
    """Its shape and its arrays are known; no more."""

    made: Shape
    """Of the output."""
    arrays: tuple[TensorSpec, ...]

    shown: ClassVar[Mapping[str, str]] = {"filters": "made.c"}

    @property
    def out(self) -> Shape:
        """As Darknet allocates it."""
        return self.made

    def tensors(self) -> tuple[TensorSpec, ...]:
        """In disk order."""
        return self.arrays

    def module(self, dialect: Dialect) -> NoReturn:
        """InputError."""
        raise InputError(f"{self}: networks with this section are read and written, but can't be run")

    def convert(self, ops: Operators, inputs: Sequence[Value], arrays: Arrays) -> NoReturn:
        """UnconvertibleError."""
        raise UnconvertibleError("is read and written, but can't be run")

    def channels(self, graph: ChannelGraph, inputs: Sequence[Ids]) -> Ids:
        """None is taken away on either side."""
        return freeze(graph, inputs[0], graph.new(self.made.c, self.index))


def _window(options: Options, size: int) -> tuple[int, int, int, int]:
    """size, stride, dilation and padding of the convolutions in [crnn] and [conv_lstm]."""
    size = options.integer("size", size, 1, 1024)
    padding = size // 2 if options.integer("pad", 0) else options.integer("padding", 0, 0, 1024)
    return size, options.integer("stride", 1, 1, 1024), options.integer("dilation", 1, 1, 1024), padding


def _convolved(shape: Shape, filters: int, window: tuple[int, int, int, int]) -> Shape:
    size, stride, dilation, padding = window
    h, w = ((side + 2 * padding * dilation - (dilation * (size - 1) + 1)) // stride + 1 for side in shape[1:])
    return Shape(filters, h, w)


def _dividing(options: Options, *channels: int) -> int:
    groups = options.integer("groups", 1, 1)
    if any(count % groups for count in channels):
        raise options.error(f"must divide {', '.join(map(str, channels))}", "groups")
    return groups


@register
@dataclass(frozen=True)
class Crnn(Carried):
    """A convolution on the input, one on the state, one on their sum (Darknet: crnn_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("crnn",)
    key_notes: ClassVar[KeyNotes] = KeyNotes("activation shortcut", unread_extended="xnor")

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """pjreddie's windows are 3x3 always."""
        shape = context.shapes[context.previous]
        norm = options.flag("batch_normalize")
        if context.dialect.extended:
            out, hidden = options.integer("output", 1, 1), options.integer("hidden", 1, 1)
            groups = _dividing(options, shape.c, hidden, out)
            window = _window(options, 3)
        else:
            out, hidden = options.integer("output_filters", 1, 1), options.integer("hidden_filters", 1, 1)
            groups, window = 1, (3, 1, 1, 1)
        made = _convolved(shape, out, window)
        if made[1:] != shape[1:]:
            raise options.error(f"expected a state as large as the input, {shape}, found {made}")
        size = window[0]
        pairs = {"input": (shape.c, hidden), "self": (hidden, hidden), "output": (hidden, out)}
        arrays = (convolution_specs(c, n, size, groups, norm, f"{name}_") for name, (c, n) in pairs.items())
        return cls(**single(context), made=made, arrays=tuple(spec for part in arrays for spec in part))


@register
@dataclass(frozen=True)
class ConvLstm(Carried):
    """An LSTM whose parts are convolutions (AlexeyAB: conv_lstm_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("conv_lstm",)
    key_notes: ClassVar[KeyNotes] = KeyNotes("activation lstm_activation shortcut state_constrain time_normalizer xnor")
    extended: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """v (with `peephole`) and w read the state, u the input; with `bottleneck` one w reads both."""
        shape = context.shapes[context.previous]
        out = options.integer("output", 1, 1)
        groups = _dividing(options, shape.c, out)
        window = _window(options, 3)
        norm = options.flag("batch_normalize")
        bottleneck = options.flag("bottleneck")
        pairs = {f"v{gate}": out for gate in "fio"} if options.integer("peephole", 0) else {}
        pairs |= {"wf": 2 * out} if bottleneck else {f"w{gate}": out for gate in "figo"}
        pairs |= {f"u{gate}": shape.c for gate in "figo"}
        arrays = (convolution_specs(c, out, window[0], groups, norm, f"{name}_") for name, c in pairs.items())
        made = _convolved(shape, out, window)
        return cls(**single(context), made=made, arrays=tuple(spec for part in arrays for spec in part))


@register
@dataclass(frozen=True)
class History(Carried):
    """The last maps, joined (AlexeyAB: conv_lstm_layer.c make_history_layer)."""

    names: ClassVar[tuple[str, ...]] = ("history",)
    extended: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """4 of them by default."""
        shape = context.shapes[context.previous]
        made = shape._replace(c=shape.c * options.integer("history_size", 4, 1, 1000))
        return cls(**single(context), made=made, arrays=())


@register
@dataclass(frozen=True)
class Deconvolutional(Carried):
    """A transposed convolution (pjreddie: deconvolutional_layer.c), which its own Darknet can't load weights for."""

    names: ClassVar[tuple[str, ...]] = ("deconvolutional", "deconv")
    key_notes: ClassVar[KeyNotes] = KeyNotes("activation", unknown_classic="flipped")
    classic: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_deconvolutional: one 1x1 filter."""
        c, h, w = context.shapes[context.previous]
        filters, size = options.integer("filters", 1, 1), options.integer("size", 1, 1, 1024)
        stride = options.integer("stride", 1, 1, 1024)
        pad = options.integer("pad", 0)
        padding = size // 2 if pad else options.integer("padding", 0, 0, 1024)
        made = Shape(filters, (h - 1) * stride + size - 2 * padding, (w - 1) * stride + size - 2 * padding)
        arrays = convolution_specs(c, filters, size, 1, options.flag("batch_normalize"))
        return cls(**single(context), made=made, arrays=arrays)


@register
@dataclass(frozen=True)
class Iseg(Carried):
    """Class maps and embeddings of instances (pjreddie: iseg_layer.c)."""

    names: ClassVar[tuple[str, ...]] = ("iseg",)
    classic: ClassVar[bool] = True
    is_output: ClassVar[bool] = True

    @classmethod
    def read(cls, options: Options, context: Context) -> Self:
        """Defaults as parse_iseg: 20 classes, 32 values to tell instances apart."""
        shape = context.shapes[context.previous]
        expected = options.integer("classes", 20, 1) + options.integer("ids", 32, 0)
        if shape.c != expected:
            raise options.error(f"expected filters={expected} before it, found {shape.c}")
        return cls(**single(context), made=shape, arrays=())
