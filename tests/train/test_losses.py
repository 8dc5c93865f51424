"""Losses against plain loops, closed forms and finite differences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.oracles import yolo_loss as oracle
from tests.train.nets import graph, random_truths
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.layers.classifier import Softmax
from yoloprune.darknet.layers.head import Head
from yoloprune.darknet.layers.yolo import Yolo
from yoloprune.darknet.network import Network
from yoloprune.errors import InputError
from yoloprune.train.losses import find_loss
from yoloprune.train.losses.boxes import box_gradient, box_iou

KINDS = ("iou", "giou", "diou", "ciou")

YOLO = """[net]
width=52
height=36
channels=3

[convolutional]
filters=24
size=3
stride=4
pad=1
activation=linear

[yolo]
mask=1,3,4
anchors=5,4, 9,8, 14,22, 30,10, 50,25
classes=3
num=5
{options}
"""

VARIANTS = {
    "stock": "ignore_thresh=.4",
    "normalizers": "iou_normalizer=.3\nobj_normalizer=.6\nignore_thresh=.3\nscale_x_y=1.1",
    "truth_thresh": "truth_thresh=.3\nignore_thresh=.2",
    "iou": "iou_loss=iou\nmax_delta=2",
    "giou": "iou_loss=giou\niou_normalizer=.5\nobj_normalizer=.4",
    "diou": "iou_loss=diou\niou_thresh=.3\nscale_x_y=2",
    "ciou": "iou_loss=ciou\niou_thresh=.2\niou_normalizer=.07\nmax_delta=5\nscale_x_y=1.2",
    "thresh by giou": "iou_loss=ciou\niou_thresh=.1\niou_thresh_kind=giou",
    "several, mse": "iou_thresh=.2\nlabel_smooth_eps=.1",
    "focal": "focal_loss=1\ntruth_thresh=.4",
    "smooth": "objectness_smooth=1\nignore_thresh=.2\ntruth_thresh=.5\niou_loss=ciou",
    "new coords": "new_coords=1\nscale_x_y=2\niou_loss=ciou\niou_thresh=.2\nobjectness_smooth=1\nmax_delta=3",
    "new coords, mse": "new_coords=1\nscale_x_y=2",
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("most", [0, 9])
def test_yolo_equals_plain_loops(options: str, most: int) -> None:
    net = graph(YOLO.replace("{options}", options))
    head = net.layers[1]
    assert isinstance(head, Yolo)
    rng = np.random.default_rng(most + len(options))
    shape = (3, *head.out)
    x = rng.uniform(0.05, 0.95, shape) if head.new_coords else rng.normal(0, 1, shape)
    truths = random_truths(rng, 3, most, 3)
    delta, cost = oracle.yolo_loss(head, x, truths.astype(np.float64))

    logits = torch.from_numpy(x).requires_grad_()
    loss = find_loss(head)(head, logits, torch.from_numpy(truths), ALEXEYAB, 0)
    (loss * 3).backward()
    assert float(loss.detach()) == pytest.approx(cost, rel=1e-9)
    assert logits.grad is not None
    np.testing.assert_allclose(-logits.grad.numpy() / 3, delta.reshape(shape), rtol=1e-9, atol=1e-12)
    positive = delta.reshape(3, 3, 8, 9, 13)[:, :, 4] > 0
    assert positive.any() == (most > 0)


def boxes(rng: np.random.Generator, count: int, spread: float) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([rng.normal(0.5, spread, (count, 2)), rng.uniform(0.1, 0.5, (count, 2))], 1))


@pytest.mark.parametrize("kind", ["iou", "giou"])
def test_slopes_are_derivatives_where_darknets_are(kind: str) -> None:
    rng = np.random.default_rng(4)
    a, b = boxes(rng, 200, 0.1), boxes(rng, 200, 0.1)
    meet = box_iou(a, b, "iou") > 0.01
    a, b = a[meet].requires_grad_(), b[meet]
    assert len(a) > 50
    (grad,) = torch.autograd.grad(box_iou(a, b, kind).sum(), a)
    doubled = grad * torch.tensor([1.0, 1.0, 2.0, 2.0])  # Darknet doesn't halve an edge's share of a side
    torch.testing.assert_close(box_gradient(a.detach(), b, kind), doubled, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_agreement_is_one_for_the_same_box_and_falls_with_distance(kind: str) -> None:
    here = torch.tensor([[0.5, 0.5, 0.2, 0.3]], dtype=torch.float64)
    values = [float(box_iou(here, here + torch.tensor([step, 0.0, 0.0, 0.0]), kind)) for step in (0, 0.05, 0.1, 0.2)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)


def test_softmax_is_cross_entropy() -> None:
    net = graph("[net]\nwidth=4\nheight=4\nchannels=7\n[avgpool]\n[softmax]\n")
    head = net.layers[1]
    assert isinstance(head, Softmax)
    x = torch.randn(5, 7, 1, 1, generator=torch.Generator().manual_seed(1), requires_grad=True)
    classes = torch.tensor([0, 6, 2, 3, 3])
    loss = find_loss(head)(head, x, torch.nn.functional.one_hot(classes, 7).float(), ALEXEYAB, 0)
    loss.backward()
    found, x.grad = x.grad, None
    expected = torch.nn.functional.cross_entropy(x.flatten(1), classes, reduction="sum")
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    torch.testing.assert_close(found, x.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (ALEXEYAB, "[softmax]\ntree={tree}"),
        (ALEXEYAB, "[region]\nclasses=2\ntree={tree}"),
        (PJREDDIE, "[region]\nclasses=1\ncoords=5"),
        (PJREDDIE, "[region]\nclasses=2\nbackground=1"),
    ],
)
def test_what_has_another_loss_is_not_trained(tmp_path: Path, dialect: Dialect, text: str) -> None:
    (tmp_path / "tree").write_text("a -1\nb -1\n")
    channels = 2 if "softmax" in text else 7
    end = text.replace("{tree}", str(tmp_path / "tree"))
    net = graph(f"[net]\nwidth=4\nheight=4\nchannels={channels}\n[avgpool]\n{end}\n", dialect)
    with pytest.raises(InputError, match=r"layer 1 \[(softmax|region)\]: training a network with it is not supported"):
        Network(net).train()
    Network(net).eval()


def test_a_head_without_loss_is_refused() -> None:
    @dataclass(frozen=True)
    class Unknown(Softmax):
        names = ("unheard of",)

    shape = graph("[net]\nwidth=4\nheight=4\nchannels=7\n[avgpool]\n").layers[0].out
    head: Head = Unknown(3, (2,), (shape,), tree=None, groups=1, temperature=1.0, noloss=False)
    with pytest.raises(InputError, match=r"layer 3 \[unheard of\]: there is no loss for it .*\[region\], \[softmax\]"):
        find_loss(head)
