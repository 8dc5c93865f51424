"""What is written for a granularity, for every one that is registered; and that a new one needs nothing else.

The second one here is of this file: the single weights of one layer, ranked by magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from yoloprune.errors import InputError
from yoloprune.options import FinetuneOptions
from yoloprune.progress import Progress
from yoloprune.prune.cost import flops
from yoloprune.prune.granularities import GRANULARITIES
from yoloprune.prune.granularity import Allocation, Granularity, Group
from yoloprune.prune.plan import Plan
from yoloprune.steps.finetune import finetune
from yoloprune.steps.job import open_job
from yoloprune.workspace import Workspace

LAYER = 2


@dataclass(frozen=True)
class Weights:
    """All weights of a layer."""

    size: int
    label: str = str(LAYER)
    producers: tuple[int, ...] = (LAYER,)


@dataclass(frozen=True)
class Nonzero:
    """Weights that are left, of those in the group."""

    whole: float
    gone: int

    def total(self, allocation: Allocation) -> float:
        return self.whole - max(allocation.get(str(LAYER), 0), self.gone)

    def around(self, label: str, allocation: Allocation, counts: Sequence[int]) -> NDArray[np.float64]:
        return np.array([self.total({label: count}) for count in counts])


@dataclass(frozen=True, eq=False)
class WeightUnits(Granularity):
    """Units are the weights of one layer."""

    graph: Graph
    keep: NDArray[np.bool_]

    name: ClassVar[str] = "weight of one layer"

    @classmethod
    def of(cls, graph: Graph, mask: Mask | None = None, branches: Sequence[int] = ()) -> Self:
        shape = next(spec.shape for spec in graph.layers[LAYER].tensors() if spec.name == "weight")
        kept = np.ones(shape, np.bool_) if mask is None else mask.layers[LAYER].get("weight", np.ones(shape, np.bool_))
        return cls(graph, kept.ravel())

    @property
    def groups(self) -> Sequence[Group]:
        return (Weights(self.keep.size),)

    def kept(self, group: Group) -> NDArray[np.bool_]:
        return self.keep

    def without(self, pruned: Mapping[str, Sequence[int]]) -> Self:
        keep = self.keep.copy()
        keep[list(pruned.get(str(LAYER), ()))] = False
        return replace(self, keep=keep)

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

    def costs(self, price: Any, orders: Mapping[str, Sequence[int]]) -> Nonzero:
        return Nonzero(float(self.keep.size), int((~self.keep).sum()))

    def changed(self, group: Group) -> list[int]:
        return [LAYER]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRANULARITIES, WeightUnits.name, WeightUnits)


@pytest.fixture
def made(one_thread: None, tmp_path: Path) -> Bench:
    return bench(tmp_path / "set")


NAMES = (*choices.GRANULARITIES, WeightUnits.name)


def test_the_command_line_knows_all_that_are_registered() -> None:
    assert GRANULARITIES.keys() - {WeightUnits.name} == set(choices.GRANULARITIES)


@pytest.mark.parametrize("name", NAMES)
def test_units_groups_masks_and_costs_agree(made: Bench, name: str) -> None:
    model = load(made.cfg, made.weights, ALEXEYAB)
    whole = GRANULARITIES[name].of(model.graph)
    assert whole.name == name
    assert len({group.label for group in whole.groups}) == len(whole.groups) > 0
    assert all(group.size > 1 and whole.kept(group).all() for group in whole.groups)
    assert {producer for group in whole.groups for producer in group.producers} <= set(range(len(model.graph.layers)))
    statistics = whole.statistics(model, [], "cpu")
    orders = {group.label: whole.rank(group, "l1", statistics) for group in whole.groups}
    for group in whole.groups:
        assert sorted(orders[group.label]) == list(range(group.size))
    pruned = whole.without({label: order[: len(order) // 2] for label, order in orders.items()})
    counts = {label: len(order) // 2 for label, order in orders.items()}
    assert pruned.count() == counts
    assert whole.count() == dict.fromkeys(counts, 0)
    for group in whole.groups:  # what is gone already comes first
        again = pruned.rank(group, "l1", statistics)
        assert set(again[: counts[group.label]]) == set(orders[group.label][: counts[group.label]])
    layers = model.graph.layers
    assert type(pruned).of(model.graph, parse(dump(pruned.mask(), layers), layers)).count() == counts
    masked = pruned.mask().apply(model)
    untouched = set(range(len(layers))) - model.graph.descendants(
        [index for group in whole.groups for index in (*group.producers, *whole.changed(group))]
    )
    assert all(masked.weights.layers[index] is model.weights.layers[index] for index in untouched)
    costs = whole.costs(flops(model.graph), orders)
    assert costs.total({}) == costs.whole > costs.total(counts) > 0
    for label, order in orders.items():
        around = costs.around(label, counts, range(len(order)))
        assert (np.diff(around) <= 0).all()
        change = costs.total(counts) - costs.total(counts | {label: 0})
        assert around[counts[label]] - around[0] == pytest.approx(change)
    later = pruned.costs(flops(model.graph), orders)
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
    for number, ratio in ((1, 0.2), (2, 0.4)):
        done = prune(ratio=ratio, multiple=1, calibrate=0, workspace=space, reuse_analysis=number > 1)
        assert done.units.name == name
        plan = Plan.load(space / f"round-{number}" / "plan.json")
        assert plan.granularity == name
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
        zeros = int((slim.weights.layers[LAYER]["weight"] == 0).sum())
        assert zeros >= plan.pruned[str(LAYER)] > 0


def test_one_job_has_one_granularity(job: tuple[Bench, Path, str]) -> None:
    made, space, name = job
    prune(ratio=0.2, multiple=1, calibrate=0, workspace=space)
    finetune(FinetuneOptions(iterations=1, workers=0), workspace=space)
    other = next(each for each in NAMES if each != name)
    with pytest.raises(InputError, match="one job has one"):
        ana(made.cfg, made.weights, made.data, workspace=space, calibrate=0, granularity=other)


def test_what_there_is_not_is_refused(made: Bench, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--granularity: expected one of channel"):
        ana(made.cfg, made.weights, made.data, workspace=tmp_path / "space", granularity="atom")
    ana(
        made.cfg, made.weights, made.data, workspace=tmp_path / "weights", granularity=WeightUnits.name,
        calibrate=0, sparsities=(0.5,),
    )  # fmt: skip
    for options in ({"drop_branches": True}, {"objective": "latency"}):
        with pytest.raises(InputError, match="expected --granularity channel"):
            prune(0.5, workspace=tmp_path / "weights", calibrate=0, **options)
