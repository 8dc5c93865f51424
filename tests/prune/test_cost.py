"""Costs layer by layer against whole networks, and times read between knots against known laws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import graph_of, with_input
from tests.prune.graphs import random_cfg
from tests.prune.test_slim import STOCK, random_keep
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.alone import alone, read_alone, text_alone
from yoloprune.darknet.dialect import ALEXEYAB, DIALECTS, PJREDDIE, Dialect
from yoloprune.darknet.layers.base import Layer
from yoloprune.darknet.model import Graph, build_graph
from yoloprune.errors import InputError
from yoloprune.prune.channels import trace
from yoloprune.prune.cost import Costs, flops, parameters
from yoloprune.prune.latency import Latency, Timings
from yoloprune.prune.slim import slim_graph
from yoloprune.readers import READERS

CONV = "[convolutional]\nbatch_normalize=1\nactivation=leaky\npad=1\nsize=3\nfilters="
CFG = (
    f"[net]\nwidth=24\nheight=20\nchannels=3\n{CONV}32\n{CONV}64\n{CONV}64\ngroups=64\n{CONV}64\n[shortcut]\nfrom=1\n"
    f"activation=linear\n[maxpool]\nsize=2\nstride=2\n{CONV}40\n[route]\nlayers=-1,5\n{CONV}14\n"
    "[yolo]\nmask=0,1\nnum=2\nanchors=1,2,3,4\nclasses=2\n"
)


def check_costs(graph: Graph, seed: int) -> None:
    channels = trace(graph)
    keep = random_keep(channels, np.random.default_rng(seed))
    slim = slim_graph(graph, channels, keep)
    assert Costs(graph, channels, flops(graph)).total(keep) == sum(layer.flops for layer in slim.layers)
    assert Costs(graph, channels, parameters(graph)).total(keep) == slim.parameters


@pytest.mark.parametrize("seed", range(20))
def test_sums_are_those_of_the_slim_network(seed: int) -> None:
    check_costs(graph_of(random_cfg(seed)), seed)


def test_what_earlier_rounds_took_stays_gone() -> None:
    graph = graph_of(CFG)
    channels = trace(graph)
    left, keep = (random_keep(channels, np.random.default_rng(seed)) for seed in (1, 2))
    plain = Costs(graph, channels, flops(graph))
    later = Costs(graph, channels, flops(graph), left)
    assert later.total(keep) == plain.total(keep & left) < plain.total(keep)
    assert later.whole == plain.whole == plain.total(channels.all_kept())


@pytest.mark.parametrize("name", STOCK)
def test_sums_on_stock_cfgs(stock_cfg: Callable[[str], Path], name: str) -> None:
    check_costs(graph_of(with_input(stock_cfg(name).read_text(), 64, 64)), 1)


def check_alone(graph: Graph) -> None:
    for layer in graph.layers:
        only = alone(graph, layer.index, [shape.c for shape in layer.source_shapes], layer.out.c).layers[-1]
        assert (type(only), only.out) == (type(layer), layer.out)
        # What a layer with another's arrays reads besides its input is only tied to it.
        read = layer.source_shapes if layer.shares is None else layer.source_shapes[:1]
        assert only.source_shapes == read
        assert only.described() == layer.described()


@pytest.mark.parametrize("seed", range(20))
def test_every_layer_stands_alone(seed: int) -> None:
    check_alone(graph_of(random_cfg(seed)))


def test_a_shared_head_counts_on_the_map_it_reads() -> None:
    smaller, shared = "[maxpool]\nsize=2\nstride=2\n", f"{CONV}40\nshare_index=7\n"
    head = f"{CONV}40\n{smaller}{shared}{smaller}{shared}[upsample]\nstride=4\n{shared}{CONV}14\n"
    graph = graph_of(CFG[: CFG.index("[route]")] + head)
    assert [layer.out.h for layer in graph.layers if layer.shares == 7] == [5, 3, 12]
    assert Costs(graph, trace(graph), flops(graph)).whole == sum(layer.flops for layer in graph.layers)
    check_alone(graph)


def layers_by_arithmetic(graph: Graph, rng: np.random.Generator, keeps: int) -> int:
    """How many layers with random counts of channels were compared with the same layers read from a cfg."""
    channels, told = trace(graph), {}
    prunable = any(len(group.units) > 1 for group in channels.groups)
    for _ in range(keeps):
        keep = random_keep(channels, rng) if prunable else channels.all_kept()
        for layer in graph.layers:
            inputs = tuple(int(kept.sum()) for kept in channels.kept_inputs(layer.index, keep))
            output = int(channels.kept_outputs(layer.index, keep).sum())
            told[text_alone(graph, layer.index, inputs, output)] = layer.narrowed(inputs, output)
    for text, narrowed in told.items():
        only = read_alone(text, graph.dialect).layers[-1]
        assert (narrowed.flops, narrowed.out) == (only.flops, only.out)
        assert narrowed.source_shapes[: len(only.source_shapes)] == only.source_shapes
        assert narrowed.tensors() == (only.tensors() if narrowed.shares is None else ())
        assert narrowed.described() == only.described()
    return len(told)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
def test_arithmetic_tells_what_the_cfg_of_every_layer_does(cfg_folders: list[Path], dialect: Dialect) -> None:
    rng, compared = np.random.default_rng(7), 0
    for path in (path for folder in cfg_folders for path in sorted(folder.glob("*.cfg"))):
        try:
            graph = build_graph(cfg_file.read(path, lenient=True), dialect)
        except InputError:
            continue
        compared += layers_by_arithmetic(graph, rng, 1)
    assert compared > 1000


@pytest.mark.parametrize("seed", range(20))
def test_arithmetic_tells_what_the_cfg_does_on_random_graphs(seed: int) -> None:
    assert layers_by_arithmetic(graph_of(random_cfg(seed)), np.random.default_rng(seed), 20)


@pytest.mark.parametrize(
    ("size", "dialect", "ending"),
    [
        *((size, ALEXEYAB, "[avgpool]\n[scale_channels]\nfrom=0\n") for size in ((17, 13), (17, 1), (1, 13))),
        ((17, 13), PJREDDIE, "[maxpool]\nsize=1\nstride=2\npadding=0\n[shortcut]\nfrom=0\n"),
    ],
)
def test_what_reads_maps_of_two_sizes_stands_alone(size: tuple[int, int], dialect: Dialect, ending: str) -> None:
    net = f"[net]\nwidth={size[0]}\nheight={size[1]}\nchannels=3\n"
    check_alone(graph_of(f"{net}{CONV}32\n{ending}", dialect))


def law(layer: Layer) -> float:
    """Seconds: a constant, a share by what is read and given, in fours."""
    read, give = sum(shape.c for shape in layer.source_shapes), layer.out.c
    if layer.flops and layer.groups_summed == 1:
        return 1e-6 * (5 + read * (2 + 3 * (-(-give // 4) * 4)))
    return 1e-6 * give * layer.out.h


class Clock:
    """Times by `law`, and counts how many."""

    def __init__(self) -> None:
        self.timed = 0

    def __call__(self, graphs: Sequence[Graph]) -> list[float]:
        self.timed += len(graphs)
        return [law(graph.layers[-1]) for graph in graphs]


def test_latency_between_knots(tmp_path: Path) -> None:
    graph = graph_of(CFG)
    channels = trace(graph)
    clock = Clock()
    latency = Latency(graph, channels, Timings(tmp_path / "latency.json", "made", clock))
    assert latency.step == 4
    costs = Costs(graph, channels, latency)
    for seed in range(10):
        keep = random_keep(channels, np.random.default_rng(seed))
        slim = slim_graph(graph, channels, keep)
        assert costs.total(keep) == pytest.approx(sum(law(layer) for layer in slim.layers), rel=1e-9)
    timed = clock.timed
    Latency(graph, channels, Timings(tmp_path / "latency.json", "made", clock))
    assert clock.timed == timed  # all of it was in the file
    Latency(graph, channels, Timings(tmp_path / "latency.json", "other", clock))
    assert clock.timed == 2 * timed


def test_a_garbled_file_of_times(tmp_path: Path) -> None:
    file = tmp_path / "latency.json"
    file.write_text('{"yoloprune": "latency", "version": 3, "readers": {"made": 3}}')
    with pytest.raises(InputError, match=r"latency\.json: readers.made: expected an object, found 3"):
        Timings(file, "made", Clock())


@pytest.mark.parametrize("name", READERS)
def test_readers_time_layers(name: str) -> None:
    """Sixteen times the work takes longer; a layer behind others is timed without them."""
    reader = READERS[name]
    if reader.available():
        pytest.skip(f"{name}: {reader.available()}")
    graph = graph_of(CFG)
    cases = [
        alone(graph, 3, [64], 64),
        alone(graph, 3, [16], 16),
        alone(graph, 4, [64, 64], 64),
        alone(graph, 7, [40, 64], 104),
    ]
    texts = ["".join(each.cfg.lines) for each in cases]
    large, small, added, joined = reader.layer_seconds(texts, [each.parameters for each in cases])
    assert 0 < small < large
    assert 0 <= added < large
    assert 0 <= joined < large
