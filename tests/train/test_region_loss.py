"""The loss of [region] against plain loops, and against finite differences where it is a true loss."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import random_model
from tests.oracles import libdarknet_train
from tests.oracles import region_loss as oracle
from tests.train.nets import graph, random_truths
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.layers.region import Region
from yoloprune.darknet.network import Network
from yoloprune.train.losses import find_loss

REGION = """[net]
width=52
height=36
channels=3

[convolutional]
filters=24
size=3
stride=4
pad=1
activation=linear

[region]
anchors=1,1, 2,3.5, 6,2
classes=3
num=3
{options}
"""

VARIANTS = {
    "stock": "softmax=1\nbias_match=1\nrescore=1\nthresh=.3\nobject_scale=5\nnoobject_scale=1",
    "logistic or raw classes": "thresh=.2\ncoord_scale=2\nclass_scale=.5",
    "by prediction": "softmax=1\nthresh=.4\nrescore=1",
    "focal": "softmax=1\nbias_match=1\nfocal_loss=1",
    "classfix": "softmax=1\nclassfix=1\nthresh=.1\nbias_match=1",
    "classfix by objectness": "softmax=1\nclassfix=2\nthresh=.1",
    "classfix everywhere": "softmax=1\nclassfix=-1\nnoobject_scale=.3",
}


def head_of(options: str, dialect: Dialect) -> Region:
    head = graph(REGION.replace("{options}", options), dialect).layers[1]
    assert isinstance(head, Region)
    return head


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("dialect", [ALEXEYAB, PJREDDIE], ids=lambda dialect: str(dialect.name))
@pytest.mark.parametrize(("most", "seen"), [(0, 5), (12, 12799), (12, 12800)])
def test_region_equals_plain_loops(options: str, dialect: Dialect, most: int, seen: int) -> None:
    head = head_of(options, dialect)
    rng = np.random.default_rng(most + len(options))
    x = rng.normal(0, 1, (3, *head.out))
    truths = random_truths(rng, 3, most, 3)
    expected, cost = oracle.region_loss(head, x, truths.astype(np.float64), alexeyab=dialect is ALEXEYAB, seen=seen)
    logits = torch.from_numpy(x).requires_grad_()
    loss = find_loss(head)(head, logits, torch.from_numpy(truths), dialect, seen)
    (loss * 3).backward()
    assert float(loss.detach()) == pytest.approx(cost, rel=1e-9)
    assert logits.grad is not None
    np.testing.assert_allclose(-logits.grad.numpy() / 3, expected.reshape(x.shape), rtol=1e-9, atol=1e-12)


def test_alexeyabs_steps_are_derivatives_of_squares_and_cross_entropy() -> None:
    head = head_of("softmax=1\nbias_match=1\nthresh=2\ncoord_scale=1.5\nobject_scale=3\nclass_scale=.7", ALEXEYAB)
    _, h, w = head.out
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(0, 1, (1, *head.out)))
    truth = np.array([2, 0.43, 0.61, 0.21, 0.33])
    column, row = int(truth[1] * w), int(truth[2] * h)
    fits = [min(aw, truth[3]) * min(ah, truth[4]) for aw, ah in head.anchors]
    fits = [f / (aw * ah + truth[3] * truth[4] - f) for f, (aw, ah) in zip(fits, head.anchors, strict=True)]
    anchor = int(np.argmax(fits))

    def energy(values: torch.Tensor) -> torch.Tensor:
        planes = values.view(3, 8, h, w)
        total = 0.5 * planes[:, 4].sigmoid().square().sum()
        at = planes[anchor, :, row, column]
        total = total - 0.5 * at[4].sigmoid().square() + 1.5 * (1 - at[4].sigmoid()).square()
        centre = torch.tensor([truth[1] * w - column, truth[2] * h - row])
        size = torch.tensor(
            [math.log(side / prior) for side, prior in zip(truth[3:], head.anchors[anchor], strict=True)]
        )
        total = total + 0.75 * ((centre - at[:2].sigmoid()).square().sum() + (size - at[2:4]).square().sum())
        return total - 0.7 * at[5:].log_softmax(0)[2]

    logits = x.clone().requires_grad_()
    find_loss(head)(head, logits, torch.from_numpy(truth)[None, None].float(), ALEXEYAB, 20000).backward()
    assert logits.grad is not None
    step = 1e-5
    for place in rng.permutation(x.numel())[:100].tolist() + [
        int(((anchor * 8 + plane) * h + row) * w + column) for plane in range(8)
    ]:
        up, down = x.flatten().clone(), x.flatten().clone()
        up[place] += step
        down[place] -= step
        slope = float(energy(up) - energy(down)) / (2 * step)
        # the truth is float32, so its logarithms are good to 1e-7
        assert float(logits.grad.flatten()[place]) == pytest.approx(slope, rel=1e-5, abs=1e-6)


LIBRARY = {
    "stock": "softmax=1\nbias_match=1\nrescore=1\nthresh=.3\nobject_scale=5\nnoobject_scale=1",
    "logistic": "thresh=.2\ncoord_scale=2\nclass_scale=.5",
    "by prediction": "softmax=1\nthresh=.4",
}


@pytest.mark.parametrize("options", LIBRARY.values(), ids=LIBRARY)
@pytest.mark.parametrize("seen", [0, 20000])
def test_the_cost_is_that_of_stock_darknet(tmp_path: Path, libdarknet: Path, options: str, seen: int) -> None:
    """On a CPU its [region] passes nothing back, but it does add up the squares of its steps."""
    text = REGION.replace("{options}", options).replace("channels=3", "channels=3\nbatch=4\nmax_batches=9000")
    (tmp_path / "net.cfg").write_text(text)
    own = graph(text, PJREDDIE)
    model = random_model(own, 5)
    weights_file.write(tmp_path / "start.weights", model.weights.with_seen(seen), own.layers)
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, (4, *own.net.input)).astype(np.float32)
    truths = random_truths(rng, 4, 12, 3)
    stock = np.zeros((4, 30, 5), np.float32)
    stock[:, :12, :4], stock[:, :12, 4] = truths[:, :, 1:], np.maximum(truths[:, :, 0], 0)
    expected = libdarknet_train.train(libdarknet, tmp_path, x, stock)
    network = Network(own)
    network.set_weights(model.weights)
    logits = network.train()(torch.from_numpy(x), {0})[0]
    loss = find_loss(own.layers[1])(own.layers[1], logits, torch.from_numpy(truths), PJREDDIE, seen + 4)
    assert float(loss.detach()) / 4 == pytest.approx(expected, rel=1e-5)
