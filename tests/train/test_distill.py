"""A teacher: what it says in closed form, and that it teaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import random_model
from tests.train.nets import graph
from tests.train.test_loop import NET, fresh, halves, images  # noqa: F401 - a fixture
from yoloprune.darknet.data import Split
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE
from yoloprune.darknet.layers.head import DetectionHead
from yoloprune.darknet.mask import Mask
from yoloprune.darknet.network import build
from yoloprune.errors import InputError
from yoloprune.train.distill import Teacher
from yoloprune.train.loop import Resources, train
from yoloprune.train.masks import Masks
from yoloprune.train.supervision import Supervision

CPU = torch.device("cpu")
HEADS = {
    "yolo": "[convolutional]\nfilters=14\nactivation=linear\n[yolo]\nclasses=2\nnum=2\nanchors=8,8,16,12\n",
    "region": "[convolutional]\nfilters=14\nactivation=linear\n[region]\nclasses=2\nnum=2\nsoftmax=1\n",
    "softmax": "[avgpool]\n[softmax]\n",
    "logistic": "[avgpool]\n[logistic]\n",
}


@pytest.mark.parametrize("end", HEADS.values(), ids=HEADS)
def test_outputs_are_supervised_by_darknets_steps(end: str) -> None:
    text = (
        "[net]\nwidth=13\nheight=17\nchannels=3\n"
        "[convolutional]\nfilters=5\nsize=3\nstride=2\npad=1\nactivation=leaky\n" + end
    )
    own = graph(text, PJREDDIE if "logistic" in end else ALEXEYAB)
    model, other = random_model(own, 1), random_model(own, 2)
    teacher = Teacher(model, None, CPU)
    x = torch.rand(2, 3, 17, 13, generator=torch.Generator().manual_seed(0))
    head = own.layers[-1]
    source = head.sources[0]
    assert teacher.wanted == {source}
    logits = build(other)(x, {source})[source].detach().requires_grad_()
    (cost,) = teacher.costs(x, {source: logits})
    cost.backward()
    right = build(model)(x, {head.index})[head.index].detach().numpy()
    ours = head.module(ALEXEYAB)(logits.detach()).numpy()
    expected = right - ours
    if isinstance(head, DetectionHead):
        shape = (2, 2, 7, *head.out[1:])
        believed = right.reshape(shape)[:, :, 4:5]
        weights = np.repeat(believed, 7, axis=2)
        weights[:, :, 4] = 1
        expected = expected * weights.reshape(expected.shape)
    assert logits.grad is not None
    np.testing.assert_allclose(-logits.grad.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert float(cost.detach()) == pytest.approx(float((expected**2).sum()), rel=1e-5)
    # The teacher computes in another memory format, so it may round otherwise than the same network here.
    rounding = right.size * float(1e-5 * np.abs(right).max()) ** 2
    taught = teacher.costs(x, {source: build(model)(x, {source})[source]})[0].detach()
    assert float(taught) == pytest.approx(0, abs=rounding)
    assert float(cost.detach()) > 1e6 * rounding


def test_features_are_those_of_layers_that_read_what_was_cut() -> None:
    model, _ = fresh()
    layers = [dict(arrays) for arrays in halves(model).layers]
    layers[1]["bias"] = np.array([False] + [True] * 9)  # a filter that is gone itself teaches nothing
    layers[1]["weight"][0] = False
    teacher = Teacher(model, Mask(tuple(layers)), CPU)
    assert teacher.wanted == {1, 3}
    x = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    right = build(model)(x, {1, 3})
    noise = torch.randn(right[1].shape, generator=torch.Generator().manual_seed(1))
    y = (right[1] + 0.1 * noise).detach().requires_grad_()
    cost = teacher.costs(x, {1: y, 3: right[3]})[-1]
    gap, wanted = (y - right[1]).detach()[:, 1:], right[1][:, 1:].detach().double()
    spread = wanted.var((0, 2, 3), unbiased=False).mean()
    expected = sum(0.5 * float(each.double().square().mean() / spread.detach()) for each in gap)
    assert float(cost.detach()) == pytest.approx(expected, rel=1e-5)
    cost.backward()
    assert y.grad is not None
    assert (y.grad[:, 0] == 0).all()
    count = gap[0].numel()
    torch.testing.assert_close(y.grad[:, 1:].double(), gap.double() / count / spread, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("labels", [True, False])
def test_a_teacher_brings_the_trainer_closer(images: Split, tmp_path: Path, labels: bool) -> None:  # noqa: F811
    model, recipe = fresh(NET.replace("learning_rate=0.002", "learning_rate=0.02"))
    model = model.with_weights(random_model(model.graph, 4).weights)
    mask = halves(model)
    recipe = replace(recipe, iterations=40, ema_alpha=0, decay=0.0)
    split = images if labels else replace(images, truths=tuple(each[:0] for each in images.truths))
    found = train(
        model,
        split,
        recipe,
        folder=tmp_path,
        seed=1,
        masks=Masks(mask),
        supervision=Supervision(model, labels=labels),
        resources=Resources(workers=0),
    )
    assert found.history[-1].average < (0.9 if labels else 0.5) * found.history[0].loss
    assert (found.last.layers[0]["weight"][::2] == 0).all()


def test_somebody_must_teach() -> None:
    with pytest.raises(InputError, match="there must be a teacher"):
        Supervision(None, labels=False)
