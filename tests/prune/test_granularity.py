"""What is written for a granularity, for every one that is registered; and that a new one needs nothing else.

The last one here is of this file: the single weights of one layer, ranked by magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.drawn import Bench, bench
from tests.jobs import ana, export, prune
from yoloprune import choices
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.mask import Mask, dump, parse
from yoloprune.darknet.model import Graph, Model, load
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions, UnitOptions
from yoloprune.progress import Progress
from yoloprune.prune.cost import flops
from yoloprune.prune.granularities import GRANULARITIES, units_of
from yoloprune.prune.granularity import Allocation, Granularity, Group, Orders, Selection
from yoloprune.prune.plan import Plan
from yoloprune.steps.finetune import finetune
from yoloprune.steps.job import open_job
from yoloprune.steps.method import resolved_units
from yoloprune.workspace import Workspace

LAYER = 2


@dataclass(frozen=True)
class LayerWeights:
    """All weights of a layer."""

    size: int
    label: str = str(LAYER)
    producers: tuple[int, ...] = (LAYER,)
    counts: Sequence[int] = ()


@dataclass(frozen=True)
class Nonzero:
    """Weights that are left, of those in the group."""

    whole: float
    gone: int
    each_saves: bool = True

    def total(self, allocation: Allocation) -> float:
        return self.whole - max(allocation.get(str(LAYER), 0), self.gone)

    def around(self, label: str, allocation: Allocation, counts: Sequence[int]) -> NDArray[np.float64]:
        return np.array([self.total({label: count}) for count in counts])


@dataclass(frozen=True, eq=False)
class OneLayer(Granularity):
    """Units are the weights of one layer."""

    graph: Graph
    options: UnitOptions
    keep: NDArray[np.bool_]

    name: ClassVar[str] = "weight of one layer"
    criteria: ClassVar[tuple[str, ...]] = ("l1",)
    saves: ClassVar[str] = "nonzero"
    ordered: ClassVar[bool] = True

    @classmethod
    def of(cls, graph: Graph, options: UnitOptions, mask: Mask | None = None, branches: Sequence[int] = ()) -> Self:
        shape = next(spec.shape for spec in graph.layers[LAYER].tensors() if spec.name == "weight")
        kept = np.ones(shape, np.bool_) if mask is None else mask.layers[LAYER].get("weight", np.ones(shape, np.bool_))
        return cls(graph, options, kept.ravel())

    @staticmethod
    def default_criterion(refits: bool) -> str:
        return "l1"

    @property
    def groups(self) -> Sequence[Group]:
        return (LayerWeights(self.keep.size),)

    def left(self, group: Group) -> int:
        return int(self.keep.sum())

    def fits(self, group: Group, order: Sequence[int]) -> bool:
        return not self.keep[list(order[: int((~self.keep).sum())])].any()

    def rechosen(self, counts: Allocation, orders: Orders, weights: Weights) -> Self:
        keep = self.keep.copy()
        for label, count in counts.items():
            keep[list(orders[label][:count])] = False
        return replace(self, keep=keep)

    def prune(
        self, model: Model, selection: Selection, batches: Sequence[Tensor], device: str | torch.device
    ) -> tuple[Self, Model]:
        units = self.rechosen(selection.counts, selection.orders, model.weights)
        return units, units.mask().apply(model)

    def prune_group(self, model: Model, selection: Selection, statistics: Any, device: str | torch.device) -> Model:
        return self.prune(model, selection, (), device)[1]

    def mask(self) -> Mask:
        shape = next(spec.shape for spec in self.graph.layers[LAYER].tensors() if spec.name == "weight")
        layers: list[dict[str, NDArray[np.bool_]]] = [{} for _ in self.graph.layers]
        layers[LAYER]["weight"] = self.keep.reshape(shape)
        return Mask(tuple(layers))

    def statistics(self, model: Model, batches: Sequence[Tensor], device: str | torch.device) -> Model:
        return model

    def rank(self, group: Group, criterion: str, statistics: Any) -> tuple[int, ...]:
        sizes = np.abs(statistics.weights.layers[LAYER]["weight"]).ravel()
        return tuple(map(int, np.lexsort((sizes, self.keep))))

    def costs(self, price: Any, orders: Orders) -> Nonzero:
        return Nonzero(float(self.keep.size), int((~self.keep).sum()))

    def changed(self, group: Group) -> list[int]:
        return [LAYER]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRANULARITIES, OneLayer.name, OneLayer)


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return bench(tmp_path / "set")


NAMES = (*choices.GRANULARITIES, OneLayer.name)
CHOSEN_ANEW = tuple(name for name in NAMES if name != choices.BITS)
"""Those whose units go by a schedule, too."""


def units(graph: Graph, name: str) -> Granularity:
    """All of a granularity's, as its options are when left out."""
    return units_of(graph, resolved_units(UnitOptions(name)))


def pruned(whole: Granularity, model: Model, counts: Allocation) -> tuple[Granularity, Model, Orders]:
    """So many of each group gone, chosen by the weights alone, in which orders if any."""
    (criterion,) = {"l1", "magnitude", "uniform"}.intersection(whole.criteria)
    statistics = whole.statistics(model, [], "cpu")
    orders = {group.label: whole.rank(group, criterion, statistics) for group in whole.groups}
    left, masked = whole.prune(model, Selection(counts, orders, criterion, choices.NOTHING), [], "cpu")
    return left, masked, orders


def half(whole: Granularity) -> Allocation:
    """About half of each group."""
    return {group.label: max(group.counts, default=group.size // 2) for group in whole.groups}


def test_the_command_line_knows_all_that_are_registered() -> None:
    assert GRANULARITIES.keys() - {OneLayer.name} == set(choices.GRANULARITIES)
    for kind in GRANULARITIES.values():
        assert {kind.default_criterion(refits) for refits in (False, True)} <= set(kind.criteria)


@pytest.mark.parametrize("name", NAMES)
def test_units_groups_masks_and_costs_agree(made: Bench, name: str) -> None:
    model = load(made.cfg, made.weights, ALEXEYAB)
    whole = units(model.graph, name)
    assert (whole.name, whole.options.granularity) == (name, name)
    assert len({group.label for group in whole.groups}) == len(whole.groups) > 0
    assert all(group.size == whole.left(group) > 1 for group in whole.groups)
    assert all(0 < count < group.size for group in whole.groups for count in group.counts)
    assert {producer for group in whole.groups for producer in group.producers} <= set(range(len(model.graph.layers)))
    counts = half(whole)
    left, masked, orders = pruned(whole, model, counts)
    for group in whole.groups:
        assert sorted(orders[group.label]) in ([], list(range(group.size)))
        assert whole.fits(group, orders[group.label])
    assert left.count() == counts
    assert whole.count() == dict.fromkeys(counts, 0)
    _, _, again = pruned(left, model, counts)
    for group in whole.groups:  # what is gone already comes first
        assert left.fits(group, again[group.label])
        assert set(again[group.label][: counts[group.label]]) == set(orders[group.label][: counts[group.label]])
    layers = model.graph.layers
    there = parse(dump(left.mask(), layers), layers)
    assert units_of(model.graph, left.options, there, grids=left.grids).count() == counts
    untouched = set(range(len(layers))) - model.graph.descendants(
        [index for group in whole.groups for index in (*group.producers, *whole.changed(group))]
    )
    assert all(masked.weights.layers[index] is model.weights.layers[index] for index in untouched)
    held = left.mask().apply(masked)
    for arrays, same in zip(masked.weights.layers, held.weights.layers, strict=True):
        assert all(np.array_equal(arrays[key], same[key]) for key in arrays)
    if name not in CHOSEN_ANEW:
        return
    assert left.rechosen(counts, orders, model.weights).count() == counts
    assert whole.rechosen(counts, orders, model.weights).count() == counts


@pytest.mark.parametrize("name", NAMES)
def test_costs_are_of_what_is_left(made: Bench, name: str) -> None:
    model = load(made.cfg, made.weights, ALEXEYAB)
    whole = units(model.graph, name)
    counts = half(whole)
    left, _, orders = pruned(whole, model, counts)
    costs = whole.costs(flops(model.graph), orders)
    assert costs.total({}) == costs.whole > costs.total(counts) > 0
    for group in whole.groups:
        around = costs.around(group.label, counts, range(group.size))
        assert (np.diff(around) <= 0).all()
        change = costs.total(counts) - costs.total({**counts, group.label: 0})
        assert around[counts[group.label]] - around[0] == pytest.approx(change)
        assert not costs.each_saves or (np.diff(around) < 0).all()
    later = left.costs(flops(model.graph), orders)
    assert (later.whole, later.total({})) == (costs.whole, pytest.approx(costs.total(counts)))


@pytest.fixture(params=NAMES)
def job(request: pytest.FixtureRequest, made: Bench, tmp_path: Path) -> tuple[Bench, Path, str]:
    """A job whose analysis was interrupted once and taken up again."""
    space, seen = tmp_path / "space", 0

    def stop(progress: Progress) -> None:
        nonlocal seen
        seen += "loses" in progress.text
        if seen == 1:
            raise KeyboardInterrupt

    few: dict[str, Any] = {"calibrate": 0, "sparsities": (0.25, 0.5), "granularity": request.param, "workspace": space}
    with pytest.raises(KeyboardInterrupt):
        ana(made.cfg, made.weights, made.data, progress=stop, **few)
    told: list[str] = []
    found = ana(made.cfg, made.weights, made.data, progress=lambda each: told.append(each.text), **few)
    assert found.options.granularity == request.param
    whole = ana(made.cfg, made.weights, made.data, **few | {"workspace": tmp_path / "whole"})
    assert found.curves == whole.curves
    return made, space, request.param


def test_all_four_steps_and_a_second_round(job: tuple[Bench, Path, str], tmp_path: Path) -> None:
    made, space, name = job
    for number, ratio in ((1, 0.2), (2, 0.8 if name == choices.BITS else 0.4)):  # a layer keeps 8 bits of 32, or all
        done = prune(ratio=ratio, multiple=1, calibrate=0, workspace=space, reuse_analysis=number > 1)
        assert done.units.name == name
        plan = Plan.load(space / f"round-{number}" / "plan.json")
        assert plan.unit.granularity == name
        assert sum(plan.pruned.values()) > 0
        finetune(FinetuneOptions(iterations=2, workers=0), workspace=space)
        trained = load(made.cfg, Workspace.load(space).finetuned_file(number), ALEXEYAB)
        held = done.units.mask().apply(trained)
        for layer, again in zip(trained.weights.layers, held.weights.layers, strict=True):
            assert all(np.array_equal(layer[key], again[key]) for key in layer)
        assert open_job(space).units.count() == plan.pruned
    exported = export(tmp_path / "slim", workspace=space)
    slim = load(exported.cfg, exported.weights, ALEXEYAB)
    assert (slim.graph.parameters < trained.graph.parameters) == (name == "channel")
    if name != "channel":
        for arrays, kept in zip(slim.weights.layers, done.units.mask().layers, strict=True):
            assert all(not arrays[key][~there].any() for key, there in kept.items())


@pytest.mark.parametrize("name", NAMES[1:])
def test_what_goes_after_weights_are_pruned(made: Bench, tmp_path: Path, name: str) -> None:
    space = tmp_path / "space"
    ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0, sparsities=(0.5,), granularity=name)
    prune(ratio=0.2, multiple=1, calibrate=0, workspace=space)
    finetune(FinetuneOptions(iterations=1, workers=0), workspace=space)
    for other in NAMES[:-1]:
        if other not in (name, choices.BITS):  # bits go after anything
            with pytest.raises(InputError, match=f"--granularity {other}: {name}.* is pruned already"):
                ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0, granularity=other)


def test_what_there_is_not_is_refused(made: Bench, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--granularity: expected one of channel"):
        ana(made.cfg, made.weights, made.data, workspace=tmp_path / "space", granularity="atom")
    ana(
        made.cfg, made.weights, made.data, workspace=tmp_path / "weights", granularity=OneLayer.name,
        calibrate=0, sparsities=(0.5,),
    )  # fmt: skip
    for options in ({"drop_branches": True}, {"objective": "latency"}):
        with pytest.raises(InputError, match="expected --granularity channel"):
            prune(0.5, workspace=tmp_path / "weights", calibrate=0, **options)
