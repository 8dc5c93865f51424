"""Training steps against stock Darknet: the loss and every weight."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import worst
from tests.oracles import libdarknet_train as oracle
from tests.train.nets import drawn_net
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import PJREDDIE
from yoloprune.darknet.model import Graph, load_graph
from yoloprune.darknet.network import Network
from yoloprune.darknet.weights import Weights
from yoloprune.errors import InputWarning
from yoloprune.train.optimizer import Optimizer
from yoloprune.train.recipe import Recipe
from yoloprune.train.schedule import Schedule, same_named
from yoloprune.train.training_loss import TrainingLoss

UPDATES = 2
TRUTHS = 90  # rows that pjreddie's [yolo] takes

NET = """[net]
batch=4
subdivisions=2
width=32
height=16
channels=3
learning_rate=0.001
momentum=0.9
decay=0.01
burn_in=3
power=1
policy=constant
max_batches=100

[convolutional]
filters=6
size=3
stride=1
pad=1
batch_normalize=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
filters=6
size=3
stride=1
pad=1
batch_normalize=1
activation=leaky

[shortcut]
from=-2
activation=linear

[convolutional]
filters=8
size=3
stride=2
pad=1
groups=2
batch_normalize=1
activation=logistic

# Not 1x1: on a CPU that one's backward pass overwrites what other readers of layer 4 have told it (gemm with beta 0).
[convolutional]
filters=21
size=3
pad=1
activation=linear

[yolo]
mask=2,3,4
anchors=5,4, 9,8, 14,22, 30,10, 50,25
classes=2
num=5
ignore_thresh=.3
truth_thresh={truth_thresh}

[route]
layers=4

[convolutional]
filters=4
size=1
activation=tanh

[upsample]
stride=2

[route]
layers=-1,3

[maxpool]
size=2
stride=1

[convolutional]
filters=14
size=3
pad=1
activation=linear

[yolo]
mask=0,1
anchors=5,4, 9,8, 14,22, 30,10, 50,25
classes=2
num=5
ignore_thresh=.5
truth_thresh=1
"""


def truths(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
    """[N, TRUTHS, 5] class, x, y, w, h; some share a cell, which tells what the order does."""
    rows = np.full((count, TRUTHS, 5), 0, np.float32)
    rows[:, :, 0] = -1
    for image in rows:
        number = rng.integers(0, most + 1)
        size = rng.uniform(0.05, 0.6, (number, 2))
        image[:number, 0] = rng.integers(0, 2, number)
        image[:number, 1:3] = rng.uniform(size / 2, 1 - size / 2)
        image[:number, 3:] = size
        for again in range(1, number, 2):  # nearly the same box, any class
            image[again, 1:] = image[again - 1, 1:] * rng.uniform(0.99, 1.01, 4)
    return rows


def start(graph: Graph, seed: int, low: float = 0.5) -> Weights:
    """Random weights; scales and variances in 0.5..1.5, biases and means in low..low + 1."""
    rng = np.random.default_rng(seed)
    made = weights_file.initial(graph.layers, seed)
    for arrays in made.layers:
        for name, array in arrays.items():
            if name != "weight":
                lowest = low if name in ("bias", "mean") else 0.5
                array[...] = rng.uniform(lowest, lowest + 1, array.shape)
    return made


@pytest.mark.parametrize(("seed", "truth_thresh"), [(1, "1"), (2, ".4")])
def test_two_updates_equal_darknets(tmp_path: Path, libdarknet: Path, seed: int, truth_thresh: str) -> None:
    two_updates(tmp_path, libdarknet, NET.replace("{truth_thresh}", truth_thresh), seed)


@pytest.mark.parametrize("seed", range(20))
def test_two_updates_of_random_nets_equal_darknets(tmp_path: Path, libdarknet: Path, seed: int) -> None:
    """Every seed counts.

    Pictures are small because leaky and ReLU have a kink: of some 100,000 sums one lies within float32's rounding of 0
    now and then, and two programs give it two slopes, which are 1e-4 of a weight.
    """
    activations = ("leaky", "relu", "tanh", "elu", "logistic")
    text = drawn_net(np.random.default_rng(seed), (16, 24), activations, 0.001)
    two_updates(tmp_path, libdarknet, text, seed, low=-0.5)


@pytest.mark.parametrize("seed", range(4, 10))
def test_what_one_sided_inputs_leave_is_darknets_rounding(tmp_path: Path, libdarknet: Path, seed: int) -> None:
    """Where inputs of a batch norm's convolution are all positive, Darknet's float32 is up to 5e-6 off float64.

    The deltas of a batch norm add up to 0, so the mean of its inputs moves no weight. In float32 they don't quite, and
    the mean multiplies what is left: over 90 % of Darknet's error there is a number a filter times the inputs' means.
    """
    text = drawn_net(np.random.default_rng(seed), (16, 24, 32, 40), ("logistic", "elu"), 0.0005)
    two_updates(tmp_path, libdarknet, text, seed, but_for_darknets=True)


def two_updates(
    folder: Path, library: Path, text: str, seed: int, *, low: float = 0.5, but_for_darknets: bool = False
) -> None:
    """Loss and all weights after two updates on random pictures and boxes."""
    (folder / "net.cfg").write_text(text)
    graph = load_graph(folder / "net.cfg", PJREDDIE)
    rng = np.random.default_rng(seed)
    weights = start(graph, seed, low)
    weights_file.write(folder / "start.weights", weights, graph.layers)
    x = rng.uniform(-1, 1, (UPDATES * graph.net.batch, *graph.net.input)).astype(np.float32)
    y = truths(rng, len(x), 10)
    stock = np.zeros_like(y)
    stock[:, :, :4], stock[:, :, 4] = y[:, :, 1:], np.maximum(y[:, :, 0], 0)
    loss = oracle.train(library, folder, x, stock)
    check(graph, folder, weights, x, y, loss, but_for_darknets=but_for_darknets)


def check(
    graph: Graph,
    folder: Path,
    weights: Weights,
    x: np.ndarray,
    y: np.ndarray,
    expected_loss: float,
    *,
    but_for_darknets: bool = False,
) -> None:
    """Our updates on x and y from `weights`: loss and every array of weights, all within 1e-6 of the largest value.

    They are held to the same updates in float64, and to Darknet's in end.weights of the folder; with
    `but_for_darknets` that one may be as much further off as it is from float64.
    """
    theirs = weights_file.read(folder / "end.weights", graph.layers).layers
    exact_loss, exact = updated(graph, weights, x, y, torch.float64)
    loss, ours = updated(graph, weights, x, y, torch.float32)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert loss == pytest.approx(exact_loss, rel=1e-6)
    moved = 0
    for layer, start in zip(graph.layers, weights.layers, strict=True):
        for name in start:
            a, b, right = (arrays[layer.index][name] for arrays in (ours, theirs, exact))
            allowed = worst(b, right) if but_for_darknets else 0.0
            assert worst(a, right) < 1e-6, f"{layer} {name}"
            assert worst(a, b) < 1e-6 + allowed, f"{layer} {name}"
            moved += int(worst(b, start[name]) > 1e-5)  # ten times what is allowed
    stop = max((index for index, rule in enumerate(graph.updates) if rule.stop), default=-1)
    still = [spec for layer in graph.layers[: stop + 1] for spec in layer.tensors() if spec.trained and not spec.decay]
    assert moved == sum(len(layer.tensors()) for layer in graph.layers) - len(still)


def updated(
    graph: Graph, weights: Weights, x: np.ndarray, y: np.ndarray, dtype: torch.dtype
) -> tuple[float, list[dict[str, np.ndarray]]]:
    """The loss of updates on x and y, as Darknet reports it, and all arrays after them."""
    batch, images = graph.net.batch, len(x)
    network = Network(graph)
    network.set_weights(weights)
    network.to(dtype).train()
    objective = TrainingLoss(graph)
    schedule = Schedule(**same_named(Schedule, graph.net))
    optimizer = Optimizer(network, Recipe.from_graph(graph))
    part = batch // graph.net.subdivisions
    loss = 0.0
    for update in range(images // batch):
        optimizer.zero_grad()
        for begin in range(update * batch, (update + 1) * batch, part):
            inputs, wanted = (torch.from_numpy(rows[begin : begin + part]).to(dtype) for rows in (x, y))
            costs = torch.stack(objective.costs(graph, network(inputs, objective.wanted), wanted, begin + part))
            (costs.sum() / batch).backward()
            loss += float(costs.detach().mean()) / images
        optimizer.step(update + 1, schedule.rate(update + 1))
    arrays = [
        {spec.name: getattr(module, spec.name).detach().numpy() for spec in layer.tensors()}
        for layer, module in zip(graph.layers, network.layers, strict=True)
    ]
    return loss, arrays


def test_stopped_layers_and_rates_of_their_own_equal_darknets(tmp_path: Path, libdarknet: Path) -> None:
    text = NET.replace("{truth_thresh}", "1")
    parts = text.split("[convolutional]\n")
    parts[2] = "stopbackward=1\n" + parts[2]
    parts[3] = "learning_rate=3\n" + parts[3]
    two_updates(tmp_path, libdarknet, "[convolutional]\n".join(parts), 7)  # decay goes on all the same


CLASSIFIER = """[net]
batch=12
subdivisions=2
width=13
height=17
channels=3
learning_rate=0.01
momentum=0.9
decay=0.01
max_batches=100

[convolutional]
filters=6
size=3
pad=1
stride=2
batch_normalize=1
activation=leaky

[connected]
output=8
batch_normalize=1
activation=relu

[connected]
output=5
activation=linear

"""
ENDS = {
    "softmax": "[softmax]\n",
    "temperature": "[softmax]\ntemperature=2\n",
    "softmax and cost": "[softmax]\n[cost]\ntype=sse\n",
    "cost alone": "[cost]\ntype=sse\nscale=.5\n",
    "smooth": "[cost]\ntype=smooth\n",
    "L1": "[cost]\ntype=L1\nscale=2\n",
    "masked": "[cost]\ntype=masked\n",
    "logistic": "[logistic]\n",
    "logistic and cost": "[logistic]\n[cost]\ntype=sse\n",
    "softmax without loss": "[softmax]\nnoloss=1\n[cost]\ntype=sse\n",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_two_updates_of_a_classifier_equal_darknets(tmp_path: Path, libdarknet: Path, end: str) -> None:
    (tmp_path / "net.cfg").write_text(CLASSIFIER + end)
    graph = load_graph(tmp_path / "net.cfg", PJREDDIE)
    weights = start(graph, 3)
    weights_file.write(tmp_path / "start.weights", weights, graph.layers)
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, (UPDATES * graph.net.batch, *graph.net.input)).astype(np.float32)
    y = np.eye(5, dtype=np.float32)[rng.integers(0, 5, len(x))]
    if "masked" in end:
        y[rng.random(y.shape) < 0.3] = -1234
    check(graph, tmp_path, weights, x, y, oracle.train(libdarknet, tmp_path, x, y))


POLICIES = {
    "constant": "policy=constant\nburn_in=7\npower=2",
    "step": "policy=step\nstep=10\nscale=.7",
    "steps": "policy=steps\nsteps=5,20,30\nscales=.1,.5,10\nburn_in=3",
    "exp": "policy=exp\ngamma=.97",
    "poly": "policy=poly\npower=3\nmax_batches=50",
    "sigmoid": "policy=sigmoid\ngamma=.2\nstep=1",  # pjreddie's subtraction has no sign: only from `step` on
}


@pytest.mark.parametrize("text", POLICIES.values(), ids=POLICIES)
def test_rates_equal_darknets(tmp_path: Path, libdarknet: Path, text: str) -> None:
    check_rates(tmp_path, libdarknet, f"learning_rate=.003\n{text}")
    assert len(re.findall("policy", text)) == 1


ODD = {
    "text behind": "learning_rate=0.003,0.0005\npolicy=steps\nsteps=5,20k,30\nscales=.1,,10.0\nburn_in=3rd",
    "no numbers": "learning_rate=1e-3f\npolicy=step\nstep=10/2\nscale=0x.8\npower=none",
    "an unknown word": "learning_rate=.002\npolicy=cosine\nburn_in=7.9\npower=2,3",
    "another's word": "learning_rate=.002\npolicy=sgdr\nmax_batches=1e3",
    "a comma at the end": "learning_rate=.002\npolicy=steps\nsteps=5,20,\nscales=.1,.5,",
    "out of an int": "learning_rate=.002\npolicy=steps\nsteps=4294967301,20\nscales=.1,2",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_rates_of_odd_values_equal_darknets(tmp_path: Path, libdarknet: Path, text: str) -> None:
    with pytest.warns(InputWarning):
        check_rates(tmp_path, libdarknet, text)


def check_rates(folder: Path, library: Path, text: str) -> None:
    head = "[net]\nbatch=4\nsubdivisions=2\nwidth=8\nheight=8\nchannels=1\n"
    layer = "[convolutional]\nfilters=1\nactivation=linear\n"
    (folder / "net.cfg").write_text(f"{head}{text}\n{layer}")
    schedule = Schedule(**same_named(Schedule, load_graph(folder / "net.cfg", PJREDDIE).net))
    iterations = list(range(1, 49))
    expected = oracle.rates(library, folder, [4 * iteration for iteration in iterations])
    rates = [schedule.rate(iteration) for iteration in iterations]
    assert rates == pytest.approx(expected, rel=1e-5)  # Darknet keeps gamma as a float
