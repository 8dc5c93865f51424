"""How sparsity grows while a network trains: the steps at which a mask is chosen, each with its share of the final one.

Iterations count updates done: t = 0 is before the first. What users type is one of

- `constant`: the whole sparsity from `begin` on, chosen anew every `every` (TensorFlow's ConstantSparsity).
- `polynomial`: s = s_f + (s_i - s_f)(1 - p)^power with p = (t - begin)/(end - begin), every `every` (TensorFlow's
  PolynomialDecay; with power 3 equation 1 of Zhu and Gupta 2017, "To prune, or not to prune").
- `log`: s = s_f ln(2 + e/I)/ln(2 + E/I) at the start of every I-th pass e over the images, counted from `begin`, up to
  pass E; floor(s M) of M units are gone (PaddlePaddle's dynamic pruning). I is `every`, by default 3 passes, and E is
  `end`, by default 60 passes, or the last whole one within three quarters of the training if that has fewer.
- `steps 0:0.1,1000:0.3`: from each iteration on so much of the final sparsity, and all of it at `end` at the latest.
- `module:function`: a function of the user's, from iteration to share of the final sparsity, asked every `every`.

s_i is the initial and s_f the final sparsity of a group. All reach the final sparsity: what has no step at `end`, as E
may be no multiple of I, gets one. `end` is by default after three quarters of the training, whose last quarter then has
the final mask.
"""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import pairwise
from numbers import Real
from typing import Final

from yoloprune.errors import InputError

KINDS: Final = ("constant", "polynomial", "log", "steps ITERATION:SHARE,...", "MODULE:FUNCTION")
EVERY: Final = 100
POWER: Final = 3.0
_PASSES_BETWEEN, _PASSES = 3, 60
"""I and E of `log`."""


@dataclass(frozen=True)
class SparsitySchedule:
    """The steps at which a mask is chosen.

    InputError unless they rise from 0 on, shares are 0..1, and the last one is 1.
    """

    steps: tuple[tuple[int, float], ...]
    """Iteration, and share of the final sparsity from there on."""
    initial: float = 0.0
    """The sparsity of which a share of 0 speaks, 0..1; of groups whose final one is less, that."""
    floors: bool = False
    """Whether a fraction of a unit stays, as in PaddlePaddle; else counts are rounded, as in TensorFlow."""
    regrow: bool = True
    """Whether weights that are gone may come back where a mask is chosen; else each mask lies within the one before."""

    def __post_init__(self) -> None:
        iterations = self._iterations
        if not iterations or iterations[0] < 0 or any(a >= b for a, b in pairwise(iterations)):
            raise InputError(f"steps: expected rising iterations from 0 on, found {iterations[:20]}")
        for at, share in self.steps:
            if not 0 <= share <= 1:
                raise InputError(f"steps: expected a share of the final sparsity in 0..1 at {at}, found {share:g}")
        if self.steps[-1][1] != 1:
            raise InputError(f"steps: expected the whole sparsity (1) at the end, found {self.steps[-1][1]:g}")
        if not 0 <= self.initial < 1:
            raise InputError(f"initial sparsity: expected 0 or more and less than 1, found {self.initial:g}")

    @cached_property
    def _shares(self) -> dict[int, float]:
        return dict(self.steps)

    @cached_property
    def _iterations(self) -> list[int]:
        return [at for at, _ in self.steps]

    @property
    def begin(self) -> int:
        """The first iteration at which a mask is chosen; before it nothing is gone."""
        return self._iterations[0]

    @property
    def final(self) -> int:
        """The iteration from which on the mask stays as it is, with the final sparsity."""
        return self._iterations[-1]

    def due(self, iteration: int) -> bool:
        """Whether a mask is chosen after so many updates."""
        return iteration in self._shares

    def share(self, iteration: int) -> float:
        """How far the sparsity, as the last step left it, is on the way from the initial to the final one, 0..1."""
        reached = bisect_right(self._iterations, iteration)
        return self.steps[reached - 1][1] if reached else 0.0

    def sparsity(self, iteration: int, final: float) -> float:
        """Of a group that is to end with the sparsity `final`, 0..1, after so many updates; 0 before the first step."""
        share = self.share(iteration)
        if iteration < self.begin or share == 1:
            return final if share == 1 else 0.0
        start = min(self.initial, final)
        return start + (final - start) * share

    def count(self, iteration: int, final: int, size: int) -> int:
        """How many of a group's `size` units are gone after so many updates, of `final` at the end."""
        if not final:
            return 0
        exact = self.sparsity(iteration, final / size) * size
        return min(math.floor(exact + 1e-9) if self.floors else round(exact), final)  # 7 of 10 may be 6.999...

    def digest(self) -> str:
        """Hash of all that decides which masks are chosen; the same on all machines."""
        shares = [(at, round(share, 12)) for at, share in self.steps]  # a last bit may be another processor's
        return hashlib.sha256(repr((shares, self.initial, self.floors, self.regrow)).encode()).hexdigest()


@dataclass(frozen=True)
class Span:
    """The iterations of a training in which masks are chosen. InputError for one that is empty or too long."""

    begin: int
    end: int
    every: float = EVERY
    """Iterations between two choices; those of `log` may have a fraction."""

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end:
            raise InputError(f"schedule: expected an end after the begin at {self.begin}, found {self.end}")
        if not self.every >= 1:
            raise InputError(f"every: expected at least 1 iteration, found {self.every:g}")

    @property
    def iterations(self) -> range:
        """All that are due; the end, too, even where `every` does not divide the span."""
        return range(self.begin, self.end + 1, int(self.every))


def constant(span: Span, *, regrow: bool = True) -> SparsitySchedule:
    """All of the final sparsity from the begin on."""
    return _schedule(((t, 1.0) for t in span.iterations), span.end, regrow=regrow)


def polynomial(span: Span, *, initial: float = 0.0, power: float = POWER, regrow: bool = True) -> SparsitySchedule:
    """Fast at first, then ever more slowly. InputError unless 0 <= initial < 1 and power > 0."""
    if not 0 < power < math.inf:
        raise InputError(f"power: expected more than 0, found {power:g}")
    length = span.end - span.begin
    shares = ((t, 1 - (1 - (t - span.begin) / length) ** power) for t in span.iterations)
    return _schedule(shares, span.end, initial=initial, regrow=regrow)


def log(span: Span, *, regrow: bool = True) -> SparsitySchedule:
    """PaddlePaddle's, of passes of span.every/I iterations; a pass starts at the update that is nearest to it."""
    whole = 2 + (span.end - span.begin) / span.every
    turns = range(int((span.end - span.begin) / span.every) + 1)
    shares = ((span.begin + round(k * span.every), math.log(2 + k) / math.log(whole)) for k in turns)
    return _schedule(shares, span.end, floors=True, regrow=regrow)


def steps(shares: Mapping[int, float], end: int, *, regrow: bool = True) -> SparsitySchedule:
    """A share of the final sparsity by the iteration from which on it holds; what is left at `end`."""
    ordered = sorted(shares.items())
    if ordered and ordered[-1][0] > end:
        raise InputError(f"steps: expected none after the end at {end}, found one at {ordered[-1][0]}")
    if ordered and ordered[-1][1] == 1:
        return SparsitySchedule(tuple(ordered), regrow=regrow)
    return _schedule(ordered, end, regrow=regrow)


def by_function(function: Callable[[int], float], span: Span, *, name: str, regrow: bool = True) -> SparsitySchedule:
    """What a function of the user's says at each step but the end. name: for errors, which are InputErrors."""

    def share(iteration: int) -> float:
        try:
            value = function(iteration)
        except Exception as error:  # the user's code may raise anything
            raise InputError(f"{name}({iteration}) fails: {type(error).__name__}: {error}") from error
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise InputError(f"{name}({iteration}): expected a share of the final sparsity in 0..1, found {value!r}")
        return float(value)

    return _schedule(((t, share(t)) for t in span.iterations if t < span.end), span.end, regrow=regrow)


def parse_schedule(
    text: str,
    iterations: int,
    per_epoch: float,
    *,
    begin: str = "0",
    end: str | None = None,
    every: str | None = None,
    initial: float | None = None,
    power: float | None = None,
    regrow: bool = True,
) -> SparsitySchedule:
    """What the user types -> the schedule. InputError for anything that makes no sense.

    Parameters
    ----------
    text
        `constant`, `polynomial`, `log`, `steps 0:0.1,1000:0.3` or `module:function`.
    iterations, per_epoch
        Updates of the training, and of one pass over its images.
    begin, end, every
        As `parse_span` reads them; defaults as the module has them.
    initial, power
        Of `polynomial` only; defaults 0 and 3.
    """
    kind, _, rest = text.strip().partition(" ")
    if kind != "polynomial" and (initial is not None or power is not None):
        raise InputError(f"initial sparsity and power: expected with polynomial only, found with {text!r}")
    first, last = parse_span(begin, per_epoch, "begin"), _end(end, iterations, per_epoch)
    if kind == "steps":
        if begin != "0" or every is not None:
            raise InputError("steps: expected no begin and no every, since each step has its iteration")
        shares = _typed_steps(rest, per_epoch)
        whole = end is None and shares[max(shares)] == 1
        return steps(shares, iterations if whole else last, regrow=regrow)
    if kind == "log" and not rest:
        if end is None:
            passes = min(_PASSES, int((last - first) / per_epoch + 1e-9))
            if passes < 1:
                raise InputError(f"log: expected a whole pass over the images between {first} and {last}, found none")
            last = first + round(passes * per_epoch)
        between = max(_PASSES_BETWEEN * per_epoch, 1) if every is None else _length(every, per_epoch, "every")
        return log(Span(first, last, between), regrow=regrow)
    span = Span(first, last, EVERY if every is None else parse_span(every, per_epoch, "every"))
    if kind == "constant" and not rest:
        return constant(span, regrow=regrow)
    if kind == "polynomial" and not rest:
        return polynomial(span, initial=initial or 0.0, power=POWER if power is None else power, regrow=regrow)
    if re.fullmatch(r"[^\s:]+:\w+", text.strip()):
        return by_function(_imported(text.strip()), span, name=text.strip(), regrow=regrow)
    raise InputError(f"schedule: expected {', '.join(KINDS[:-1])} or {KINDS[-1]}, found {text!r}")


def parse_span(text: str, per_epoch: float, name: str = "span") -> int:
    """'100', '2.5 epochs' or '2.5epochs' -> iterations, rounded; per_epoch: those of one pass. InputError otherwise."""
    return round(_length(text, per_epoch, name))


def _length(text: str, per_epoch: float, name: str) -> float:
    found = re.fullmatch(r"\s*([0-9]{1,12})(\.[0-9]{1,12})?\s*(epochs?)?\s*", text)
    if not found or (found[2] and not found[3]):
        raise InputError(f"{name}: expected iterations like 100, or epochs like '2.5 epochs', found {text!r}")
    number = float(found[1] + (found[2] or ""))
    return number * per_epoch if found[3] else number


def _end(text: str | None, iterations: int, per_epoch: float) -> int:
    """Where nothing is said, three quarters of the training."""
    end = max(3 * iterations // 4, 1) if text is None else parse_span(text, per_epoch, "end")
    if end > iterations:
        raise InputError(f"end: expected at most the {iterations} iterations of the training, found {end}")
    return end


def _typed_steps(text: str, per_epoch: float) -> dict[int, float]:
    shares: dict[int, float] = {}
    for part in text.split(","):
        at, _, share = part.partition(":")
        if not re.fullmatch(r"\s*[0-9]*\.?[0-9]+\s*", share):
            raise InputError(f"steps: expected ITERATION:SHARE, like steps 0:0.1,1000:0.3, found {part!r}")
        iteration = parse_span(at, per_epoch, "steps")
        if iteration in shares:
            raise InputError(f"steps: expected one share at iteration {iteration}, found two")
        shares[iteration] = float(share)
    return shares


def _imported(text: str) -> Callable[[int], float]:
    module, _, name = text.partition(":")
    try:
        function = getattr(import_module(module), name)
    except Exception as error:  # importing runs the user's code
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"schedule {text}: cannot be imported, {why} (PYTHONPATH says where modules are)") from error
    if not callable(function):
        raise InputError(f"schedule {text}: expected a function from iteration to share, found {function!r}")
    return function  # type: ignore[no-any-return]  # what it returns is checked


def _schedule(
    shares: Iterable[tuple[int, float]], end: int, *, initial: float = 0.0, floors: bool = False, regrow: bool
) -> SparsitySchedule:
    """With the whole sparsity at the end, whatever is said there."""
    return SparsitySchedule(tuple(sorted((dict(shares) | {end: 1.0}).items())), initial, floors, regrow)
