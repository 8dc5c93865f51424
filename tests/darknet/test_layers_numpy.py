"""Sections that libdarknet lacks or crashes in, against NumPy written from Darknet's formulas, loop by loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.darknet.test_layers import EVEN, NET, NUMPY_ACTIVATIONS, START, outputs
from tests.helpers import graph_of, random_model, worst
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.model import hazards
from yoloprune.darknet.network import build
from yoloprune.errors import InputError


def windows(
    x: np.ndarray, size: int, stride_x: int, stride_y: int, padding: int, over: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """`over` the values of each window that are on the map, as maxpool_layer.c goes through them."""
    _, _, h, w = x.shape
    out_h, out_w = (h + padding - size) // stride_y + 1, (w + padding - size) // stride_x + 1
    result = np.empty((*x.shape[:2], out_h, out_w))
    for i in range(out_h):
        for j in range(out_w):
            top, left = i * stride_y - padding // 2, j * stride_x - padding // 2
            part = x[:, :, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)]
            result[:, :, i, j] = over(part.reshape(*x.shape[:2], -1))
    return result


def blurred(x: np.ndarray, kind: int, stride_x: int, stride_y: int) -> np.ndarray:
    row = np.array([1.0, 2, 1] if kind == 1 else [1.0, 1])
    kernel = np.outer(row, row) / row.sum() ** 2
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))) if kind == 1 else x
    size = len(row)
    h, w = (padded.shape[2] - size) // stride_y + 1, (padded.shape[3] - size) // stride_x + 1
    result = np.empty((*x.shape[:2], h, w))
    for i in range(h):
        for j in range(w):
            part = padded[:, :, i * stride_y : i * stride_y + size, j * stride_x : j * stride_x + size]
            result[:, :, i, j] = (part * kernel).sum((2, 3))
    return result


@pytest.mark.parametrize(("size", "x", "y", "padding"), [(3, 2, 1, 2), (2, 1, 2, 1), (3, 3, 2, 0), (5, 2, 2, 4)])
@pytest.mark.parametrize("kind", ["maxpool", "local_avgpool"])
def test_uneven_strides_and_means(kind: str, size: int, x: int, y: int, padding: int) -> None:
    keys = f"size={size}\nstride_x={x}\nstride_y={y}\npadding={padding}\n"
    out, _ = outputs(START + f"[{kind}]\n{keys}")
    over = (lambda part: part.max(2)) if kind == "maxpool" else (lambda part: part.mean(2))
    assert worst(out[1], windows(out[0], size, x, y, padding, over)) < 1e-12


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize(("x", "y"), [(1, 1), (2, 2), (2, 3)])
def test_antialiasing_blurs_behind_and_strides_there(kind: int, x: int, y: int) -> None:
    keys = f"stride_x={x}\nstride_y={y}\nantialiasing={kind}\n"
    sharp = START.replace("leaky", "leaky\nbatch_normalize=1")
    soft = sharp + keys
    out, _ = outputs(sharp)
    blurry, model = outputs(soft)
    assert model.graph.layers[0].flops == 2 * 6 * 9 * out[0][0].size  # type: ignore[attr-defined]
    assert worst(blurry[0], blurred(out[0], kind, x, y)) < 1e-12
    pooled, _ = outputs(START + "[maxpool]\nsize=3\n" + keys)
    assert worst(pooled[1], blurred(windows(pooled[0], 3, 1, 1, 2, lambda part: part.max(2)), kind, x, y)) < 1e-12


@pytest.mark.parametrize("depth", [4, 3, 8])
def test_maxpool_depth(depth: int) -> None:
    out, _ = outputs(START + f"[maxpool]\nmaxpool_depth=1\nout_channels={depth}\n")
    assert worst(out[1], np.stack([out[0][:, g::depth].max(1) for g in range(depth)], 1)) == 0


def test_sam() -> None:
    out, _ = outputs(START + START + "[sam]\nfrom=-2\nactivation=logistic\n")
    assert worst(out[2], 1 / (1 + np.exp(-out[0] * out[1]))) < 1e-12


@pytest.mark.parametrize("name", ["empty", "silence", "contrastive"])
def test_sections_that_pass_on(name: str) -> None:
    out, _ = outputs(START + f"[{name}]\n")
    assert worst(out[1], out[0]) == 0


@pytest.mark.parametrize("dialect", [ALEXEYAB, PJREDDIE], ids=["alexeyab", "pjreddie"])
def test_batchnorm(dialect: Dialect) -> None:
    model = random_model(graph_of(NET + "[batchnorm]\n", dialect), 4)
    x = np.random.default_rng(5).normal(0, 1, (2, 6, 17, 13))
    with torch.inference_mode():
        ours = build(model).double()(torch.from_numpy(x))[0].numpy()
    a = {name: values.astype(np.float64)[None, :, None, None] for name, values in model.weights.layers[0].items()}
    assert list(a) == (["bias"] if dialect is ALEXEYAB else []) + ["scale", "mean", "variance"]
    deviation = np.sqrt(a["variance"] + 1e-5) if dialect is ALEXEYAB else np.sqrt(a["variance"]) + 1e-6
    assert worst(ours, (x - a["mean"]) / deviation * a["scale"] + a.get("bias", 0)) < 1e-9


def test_reorg3d_and_back() -> None:
    """Output channel k: channel k % C of the input, at place k / C of each block, places counted by rows."""
    out, _ = outputs(EVEN + "[reorg3d]\nstride=2\n[reorg3d]\nstride=2\nreverse=1\n")
    x = out[1]
    expected = np.stack([x[:, k % 8, k // 8 // 2 :: 2, k // 8 % 2 :: 2] for k in range(32)], 1)
    assert worst(out[2], expected) == 0
    assert worst(out[3], x) == 0


@pytest.mark.parametrize("normalization", ["relu", "avg_relu", "softmax"])
@pytest.mark.parametrize("kind", ["per_feature", "per_layer", "per_channel"])
def test_weighted_shortcut(kind: str, normalization: str) -> None:
    keys = f"weights_type={kind}\nweights_normalization={normalization}\n"
    text = START.replace("8", "11") + START.replace("8", "5") + START
    out, model = outputs(text + f"[shortcut]\nfrom=0,1\nactivation=mish\n{keys}")
    raw = model.weights.layers[3]["weight"].astype(np.float64).reshape(3, -1)  # type: ignore[attr-defined]
    assert raw.shape[1] == (8 if kind == "per_channel" else 1)
    size = np.exp(raw - raw.max(0)) if normalization == "softmax" else np.maximum(raw, 0)
    share = np.broadcast_to(size / (1e-4 + size.sum(0)), (3, 8))[:, None, :, None, None]
    total = out[2] * share[0] + out[0][:, :8] * share[1]
    total[:, :5] += out[1] * share[2][:, :5]
    assert worst(out[3], NUMPY_ACTIVATIONS["mish"](total)) < 1e-9


def test_only_a_plain_shortcut_of_one_layer_reads_past_it() -> None:
    """As forward_shortcut_layer has it: no weights, one layer, and that one's input as large as the sum."""
    start = START + START.replace("8", "5") + START + "[shortcut]\nfrom="
    weighted = "1\nweights_type=per_feature\nweights_normalization=relu\n"
    for end, found in [
        ("1\n", ["layer 3 [shortcut]: AlexeyAB's Darknet reads past layer 1: 5 channels for 8"]),
        ("0\n", []),
        ("1,0\n", []),
        (weighted, []),
    ]:
        assert hazards(graph_of(NET + start + end).layers) == found


def test_implicit_gives_its_weights() -> None:
    out, model = outputs(START + "[implicit]\nfilters=5\natoms=3\n")
    weight = model.weights.layers[1]["weight"]  # type: ignore[attr-defined]
    assert worst(out[1], np.broadcast_to(weight[None, :, :, None], (2, 5, 3, 1))) < 1e-7


def test_shared_convolution_computes_with_the_others_arrays() -> None:
    """Its stride, padding, dilation and activation are its own; a sharer of a sharer shares with the first."""
    start = "[convolutional]\nfilters=6\nsize=3\npad=1\nactivation=leaky\nbatch_normalize=1\n"
    shared = start.replace("leaky", "logistic") + "dilation=2\nshare_index=0\n"
    again = start.replace("leaky", "linear") + "stride=2\nshare_index=-1\n"
    out, model = outputs(start + shared + again)
    assert model.graph.parameters == 6 * 4 + 6 * 6 * 9  # type: ignore[attr-defined]
    plain = random_model(graph_of(NET + start + shared.replace("share_index=0", "") + again[:-15]), 0)
    arrays = model.weights.layers[0]  # type: ignore[attr-defined]
    twin = build(plain.with_weights(type(plain.weights)(plain.weights.header, (arrays, arrays, arrays)))).double()
    x = torch.from_numpy(np.random.default_rng(3).normal(0, 1, (2, 6, 17, 13)))
    with torch.inference_mode():
        expected = twin(x, want=range(3))
    for index in range(3):
        assert worst(out[index], expected[index].numpy()) < 1e-12


def test_what_cannot_be_run_or_trained_is_refused_by_name() -> None:
    xnor = NET + "[convolutional]\nfilters=8\nsize=3\nxnor=1\n"
    with pytest.raises(InputError, match=r"layer 0 \[convolutional\]: xnor is not supported in this dialect"):
        build(random_model(graph_of(xnor, ALEXEYAB), 0))
    network = build(random_model(graph_of(NET + "[crop]\ncrop_width=9\ncrop_height=9\n" + START), 0))
    with pytest.raises(InputError, match=r"layer 0 \[crop\]: training a network with it is not supported"):
        network.train()
