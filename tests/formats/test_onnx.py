"""ONNX against our own numbers, section by section: run by onnxruntime, which shares nothing with us."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.darknet.test_carried import CONV
from tests.darknet.test_carried import SECTIONS as CARRIED
from tests.darknet.test_heads import TREE
from tests.darknet.test_layers import EVEN, IN_LIBDARKNET, NET, START
from tests.formats.onnx_runs import outputs_in_onnxruntime
from tests.helpers import graph_of, random_model, worst
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.layers.activations import ACTIVATIONS, OPERATORS
from yoloprune.darknet.layers.base import REGISTRY, Layer
from yoloprune.darknet.model import Model, build_graph
from yoloprune.darknet.network import build
from yoloprune.errors import InputError

codec = pytest.importorskip("yoloprune.formats.onnx", reason="the Python package onnx is not installed")

WIDE, NARROW = START.replace("8", "11"), START.replace("8", "5")
YOLO = START.replace("=8", "=14") + "[yolo]\nmask=1,2\nnum=3\nanchors=3,4,5,6,7,8\nclasses=2\nscale_x_y=1.2\n"
GAUSSIAN = START.replace("=8", "=22") + (
    "[Gaussian_yolo]\nmask=1,2\nnum=3\nanchors=3,4,5,6,7,8\nclasses=2\nscale_x_y=1.1\n"
)
OF_ALEXEYAB = {
    **{f"activation {name}": START.replace("leaky", name) for name in ACTIVATIONS},
    "yolo": YOLO,
    "yolo new_coords": YOLO.replace("leaky", "logistic") + "new_coords=1\n",
    "yolo twice": YOLO + "[route]\nlayers=-2\n" + START + YOLO,
    "gaussian": GAUSSIAN,
    "gaussian point": GAUSSIAN + "yolo_point=right_bottom\n",
    "scale_channels": START + "[avgpool]\n[scale_channels]\nfrom=0\n",
    "scale_channels wh": START + START.replace("8", "1") + "[scale_channels]\nfrom=0\nscale_wh=1\nactivation=relu\n",
    "sam": START + START + "[sam]\nfrom=0\n",
    "batchnorm": START + "[batchnorm]\n",
    "local_avgpool": START + "[local_avgpool]\nsize=3\nstride=2\n",
    "local_avgpool even": START + "[local_avgpool]\nsize=4\nstride=3\npadding=1\n",
    "maxpool far out": START + "[maxpool]\nsize=2\nstride=2\npadding=6\n",
    **{f"maxpool depth {n}": START + f"[maxpool]\nmaxpool_depth=1\nout_channels={n}\n" for n in (3, 4, 5, 8)},
    "maxpool blurred": START + "[maxpool]\nsize=3\nstride=2\nantialiasing=1\n",
    "conv blurred": START + "stride=2\nantialiasing=2\n",
    "conv two strides": START + "stride_x=3\nstride_y=2\ndilation=2\n",
    "conv shared": "[convolutional]\nfilters=6\nsize=3\npad=1\nbatch_normalize=1\nactivation=leaky\n"
    "[convolutional]\nfilters=6\nsize=3\npad=1\nbatch_normalize=1\nactivation=mish\nshare_index=0\n",
    "reorg3d": EVEN + "[reorg3d]\nstride=2\n[reorg3d]\nstride=2\nreverse=1\n",
    "empty": START + "[empty]\n",
    "contrastive": START + "[contrastive]\n",
    "implicit": START + "[implicit]\nfilters=8\n[scale_channels]\nfrom=0\n[implicit]\nfilters=5\natoms=3\n",
    "route groups": START + WIDE.replace("11", "12") + "[route]\nlayers=-1,0\ngroups=4\ngroup_id=2\n",
    "route one": START + START + "[route]\nlayers=0\n",
    "shortcut narrower": START + NARROW + START + "[shortcut]\nfrom=-2\nactivation=linear\n",
    "shortcut wider": START + WIDE + START + "[shortcut]\nfrom=-2,-3\nactivation=mish\n",
    **{
        f"shortcut {kind} {how}": WIDE + NARROW + START
        + f"[shortcut]\nfrom=0,1\nactivation=mish\nweights_type={kind}\nweights_normalization={how}\n"
        for kind in ("per_feature", "per_channel")
        for how in ("relu", "softmax")
    },
}  # fmt: skip
SAMPLES: dict[str, tuple[Dialect, str]] = {
    **{name: (PJREDDIE, text) for name, text in IN_LIBDARKNET.items()},
    **{f"alexeyab {name}": (ALEXEYAB, text) for name, text in OF_ALEXEYAB.items()},
    **{f"carried {name}": (dialect, CONV + text) for name, (dialect, text, _) in CARRIED.items()},
}
REFUSED = {
    "rnn": "keeps a state from call to call",
    "gru": "keeps a state from call to call",
    "lstm": "keeps a state from call to call",
    **dict.fromkeys(("crnn", "conv_lstm", "history", "deconvolutional", "iseg"), "can't be run"),
}
"""Sections that aren't converted, and what is said of each."""
PLAIN = {
    "Add", "AveragePool", "Clip", "Concat", "Conv", "DepthToSpace", "Div", "Elu", "Exp", "Floor", "Gemm",
    "GlobalAveragePool", "Identity", "LeakyRelu", "MatMul", "Max", "MaxPool", "Mul", "Pad", "Pow", "ReduceL2",
    "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Selu", "Sigmoid", "Slice", "Softmax",
    "Softplus", "SpaceToDepth", "Sub", "Tanh", "Transpose",
}  # fmt: skip


def model_of(name: str) -> Model:
    dialect, text = SAMPLES[name]
    return random_model(graph_of(NET + text, dialect), 3)


def random_input(model: Model) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 1, (1, *model.graph.net.input)).astype(np.float32)


def ours(model: Model, x: np.ndarray) -> dict[int, np.ndarray]:
    with torch.inference_mode():
        found = build(model)(torch.from_numpy(x), want=range(len(model.graph.layers)))
    return {index: output.numpy() for index, output in found.items()}


def refusal(model: Model) -> str | None:
    """What is said of the sample's sections, if one of them isn't converted."""
    if any(getattr(layer, "xnor", False) for layer in model.graph.layers):
        return r"computes with signs \(xnor\)"
    return next((REFUSED[layer.name] for layer in model.graph.layers if layer.name in REFUSED), None)


def test_every_section_is_converted_or_says_why_not() -> None:
    """A sample of each is converted below, or refused with its reason."""
    cfgs = (cfg_file.parse((NET + text).encode()) for _, text in SAMPLES.values())
    sampled = {section.name for cfg in cfgs for section in cfg.sections}
    for kind in set(REGISTRY.values()):
        assert kind.convert is not Layer.convert, f"[{kind.names[0]}] has neither a conversion nor a refusal"
        assert sampled.intersection(kind.names), f"no sample of [{kind.names[0]}] is converted"
    assert set(OPERATORS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_layer_of_a_sample(name: str) -> None:
    """Each layer's output is an output; float32 sums in another order differ by some 1e-7."""
    model = model_of(name)
    layers, why = list(range(len(model.graph.layers))), refusal(model)
    if why is not None:
        with pytest.raises(InputError, match=rf"test\.cfg:\d+: \[\w+\] layer \d+: can't be converted to ONNX: .*{why}"):
            codec.convert(model, layers)
        return
    x = random_input(model)
    proto = codec.convert(model, layers)
    found, expected = outputs_in_onnxruntime(proto, x), ours(model, x)
    assert len(found) == len(layers)
    assert max(worst(a, expected[index]) for index, a in enumerate(found.values())) < 2e-6
    assert {node.op_type for node in proto.graph.node} <= PLAIN
    assert [opset.version for opset in proto.opset_import] == [codec.OPSET]


@pytest.mark.parametrize("name", [name for name in SAMPLES if any(h in name for h in ("yolo", "region", "detection"))])
def test_boxes_and_scores(name: str) -> None:
    """Those that `decode` gives where nothing is too improbable; that these are Darknet's, test_heads shows."""
    model = model_of(name)
    x = random_input(model)
    if model.graph.detection_heads[0].name == "Gaussian_yolo":
        x /= 8  # exp of random sizes
    outputs = ours(model, x)
    boxes, scores = [], []
    for head in model.graph.detection_heads:
        found = head.decode(torch.from_numpy(outputs[head.index]), -np.inf)
        boxes.append(found.boxes.numpy()[:: head.classes])
        scores.append(found.probs.numpy().reshape(-1, head.classes))
    made = outputs_in_onnxruntime(codec.convert(model, decode=True), x)
    assert list(made) == ["boxes", "scores"]
    assert worst(made["boxes"][0], np.concatenate(boxes)) < 2e-6
    assert worst(made["scores"][0], np.concatenate(scores)) < 2e-6


def test_outputs_are_what_enters_the_heads() -> None:
    """Of a classifier what its softmax gives; an output that is another's value, too, has a name of its own."""
    yolo, softmax = model_of("alexeyab yolo twice"), model_of("cost")
    assert codec.shapes(codec.convert(yolo)) == {"convolutional_0": (1, 14, 17, 13), "convolutional_4": (1, 14, 17, 13)}
    assert list(codec.shapes(codec.convert(softmax)).values()) == [(1, 4, 1, 1)]
    dropped = random_model(graph_of(NET + START + "[dropout]\n"), 1)
    x = random_input(dropped)
    same = outputs_in_onnxruntime(codec.convert(dropped, [0, 1, 0]), x)
    assert len(same) == 3
    assert len({array.tobytes() for array in same.values()}) == 1


def test_a_tree_of_classes(tmp_path: Path) -> None:
    """Its softmax is converted, the walk down it is not."""
    (tmp_path / "made.tree").write_text(TREE)
    text = NET + START.replace("=8", "=26") + "[region]\nnum=2\nanchors=1,2,3,4\nclasses=8\nsoftmax=1\ntree=made.tree\n"
    model = random_model(build_graph(cfg_file.parse(text.encode(), str(tmp_path / "a.cfg")), ALEXEYAB), 1)
    x = random_input(model)
    (found,) = outputs_in_onnxruntime(codec.convert(model, [1]), x).values()
    assert worst(found, ours(model, x)[1]) < 2e-6
    with pytest.raises(InputError, match=r"a\.cfg:10: \[region\] layer 1: .* walk down a tree \(tree\)"):
        codec.convert(model, decode=True)


def test_what_cannot_be_decoded() -> None:
    other = YOLO.replace("14", "16").replace("classes=2", "classes=3")
    for text, why in [
        (START, "expected a network with boxes to decode, found none"),
        (YOLO + "[route]\nlayers=-2\n" + other, "expected heads of one number of classes to decode, found 2, 3"),
    ]:
        with pytest.raises(InputError, match=rf"test\.cfg: {why}"):
            codec.convert(random_model(graph_of(NET + text), 1), decode=True)


def test_a_sum_at_some_places_of_a_larger_map_is_refused() -> None:
    text = NET + EVEN + "[upsample]\nstride=2\n[shortcut]\nfrom=1\nactivation=linear\n"
    with pytest.raises(InputError, match=r"\[shortcut\] layer 3: .* some places of a larger map"):
        codec.convert(random_model(graph_of(text, PJREDDIE), 1))
