"""Each section and each activation against an oracle; a section of the table without one fails."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import graph_of, random_model, worst
from tests.oracles import libdarknet_many
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE
from yoloprune.darknet.layers.activations import ACTIVATIONS, CLASSIC, EXTENDED, MIXING
from yoloprune.darknet.layers.base import REGISTRY
from yoloprune.darknet.model import Model
from yoloprune.darknet.network import build
from yoloprune.errors import InputError

INPUTS = np.random.default_rng(6).normal(0, 1, (3, 6, 17, 13)).astype(np.float32)
NET = "[net]\nwidth=13\nheight=17\nchannels=6\n"
START = "[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=leaky\n"
EVEN = START + "[maxpool]\nsize=2\nstride=2\npadding=0\n"  # 6x8
ROOM = "[route]\nlayers=0\n[convolutional]\nfilters=9\nsize=9\npad=1\nactivation=linear\n"
"""[local] alone asks for too little memory to work in; behind it, something that asks for more."""
REGION = "[region]\nnum=2\nanchors=1,2,3,4\nclasses=2\n"
V1 = "[detection]\nclasses=2\nside=3\nnum=2\ncoords=4\nsqrt=1\n"
IN_LIBDARKNET = {
    "conv plain": "[convolutional]\nfilters=5\nsize=1\nactivation=linear\n",
    "conv default activation": "[convolutional]\nfilters=5\nsize=3\n",
    "conv stride padding": "[convolutional]\nfilters=5\nsize=5\nstride=2\npadding=1\nactivation=relu\n",
    "conv norm": "[convolutional]\nbatch_normalize=1\nfilters=5\nsize=3\npad=1\nactivation=leaky\n",
    "conv groups": "[convolutional]\nbatch_normalize=1\nfilters=6\nsize=3\npad=1\ngroups=2\nactivation=elu\n",
    "conv depthwise": "[convolutional]\nfilters=6\nsize=3\nstride=2\npad=1\ngroups=6\nactivation=tanh\n",
    "conv depthwise twice": "[convolutional]\nfilters=12\nsize=3\npad=1\ngroups=6\nactivation=tanh\n",
    **{
        f"maxpool {size} {stride} {padding}": START + f"[maxpool]\nsize={size}\nstride={stride}\n{padding}"
        for size, stride in [(2, 2), (2, 1), (3, 2), (3, 1), (5, 1), (9, 1), (13, 1), (3, 3)]
        for padding in ("", "padding=0\n", "padding=1\n")
        if not (size > 9 and padding)
    },
    "avgpool": START + "[avgpool]\n",
    "conv xnor": START + "[convolutional]\nfilters=5\nsize=3\npad=1\nxnor=1\nbatch_normalize=1\nactivation=leaky\n",
    "conv xnor plain": START + "[convolutional]\nfilters=5\nsize=3\nxnor=1\nactivation=leaky\n",
    "conv binary": START + "[convolutional]\nfilters=5\nsize=3\nbinary=1\nactivation=leaky\n",
    "crop": "[crop]\ncrop_width=8\ncrop_height=9\n[convolutional]\nfilters=3\nactivation=linear\n",
    "crop as it is": START + "[crop]\ncrop_width=5\ncrop_height=16\nnoadjust=1\n",
    "activation": START + "[activation]\nactivation=elu\n",
    **{f"normalization {size}": START + f"[lrn]\nsize={size}\nalpha=0.1\nkappa=2\n" for size in (1, 2, 3, 5, 7, 16)},
    "normalization": START + "[normalization]\n",
    "l2norm": START + "[l2norm]\n",
    "reorg": EVEN + "[reorg]\nstride=2\n",
    "reorg back": START + "[reorg]\nstride=2\nreverse=1\n",
    "reorg extra": START + "[reorg]\nextra=3\n[softmax]\n",
    "logistic": START + "[logistic]\n",
    "rnn": "[rnn]\noutput=7\nactivation=leaky\n",
    "rnn norm": START + "[rnn]\noutput=7\nactivation=tanh\nbatch_normalize=1\nshortcut=1\n",
    "gru": "[gru]\noutput=7\n",
    "gru tanh norm": START + "[gru]\noutput=7\ntanh=1\nbatch_normalize=1\n",
    "lstm": "[lstm]\noutput=7\n",
    "lstm norm": START + "[lstm]\noutput=7\nbatch_normalize=1\n",
    "two recurrent": "[lstm]\noutput=5\n[gru]\noutput=7\n[connected]\noutput=3\nactivation=linear\n[softmax]\n",
    "vectors": "[lstm]\noutput=5\n[dropout]\n[route]\nlayers=-1,-2\n[activation]\nactivation=elu\n[softmax]\n"
    "[connected]\noutput=3\n[lrn]\n[logistic]\n",
    "detection": START + "[connected]\noutput=108\nactivation=linear\n" + V1,
    "detection softmax": START + "[connected]\noutput=108\nactivation=linear\n" + V1 + "softmax=1\n",
    "local": START + "[local]\nfilters=4\nsize=3\npad=1\nactivation=leaky\n" + ROOM,
    "local stride": START + "[local]\nfilters=4\nsize=3\nstride=2\nactivation=linear\n" + ROOM,
    "local 5": START + "[local]\nfilters=3\nsize=5\nactivation=linear\n" + ROOM,
    "upsample": START + "[upsample]\nstride=2\nscale=0.5\n",
    "upsample back": EVEN + "[upsample]\nstride=-2\nscale=0.5\n",
    "upsample 3": START + "[upsample]\nstride=3\n",
    "route": START + START + "[route]\nlayers=-1,0,-2\n",
    "shortcut": START + START + "[shortcut]\nfrom=-2\nactivation=leaky\n",
    "shortcut scaled": START + START + "[shortcut]\nfrom=-2\nalpha=0.5\nbeta=2\nactivation=linear\n",
    "shortcut wider": START + START.replace("8", "11") + "[shortcut]\nfrom=0\nalpha=0.5\nactivation=linear\n",
    "shortcut narrower": START + START.replace("8", "5") + "[shortcut]\nfrom=0\nactivation=linear\n",
    "shortcut smaller": START + "[maxpool]\nsize=1\nstride=2\npadding=0\n[shortcut]\nfrom=0\nactivation=linear\n",
    "dropout": START + "[dropout]\nprobability=0.4\n",
    "connected": START + "[connected]\noutput=7\nactivation=ramp\n",
    "connected norm": START + "[connected]\noutput=7\nbatch_normalize=1\nactivation=leaky\n",
    "softmax": START + "[connected]\noutput=12\nactivation=linear\n[softmax]\ngroups=3\ntemperature=2\n",
    "cost": START + "[connected]\noutput=4\nactivation=linear\n[softmax]\n[cost]\n",
    "yolo": START.replace("=8", "=14") + "[yolo]\nmask=1,2\nnum=3\nanchors=3,4,5,6,7,8\nclasses=2\n",
    "region": START.replace("=8", "=14") + "[region]\nnum=2\nanchors=1,2,3,4\nclasses=2\nsoftmax=1\n",
    "region background": START.replace("=8", "=14") + REGION + "softmax=1\nbackground=1\n",
    "region coords": START.replace("=8", "=18") + REGION + "softmax=1\ncoords=6\n",
    "region coords logistic background": START.replace("=8", "=18") + REGION + "coords=6\nbackground=1\n",
    "region logistic": START.replace("=8", "=14") + "[region]\nnum=2\nanchors=1,2,3,4\nclasses=2\n",
}
"""What pjreddie's library computes: every layer's output is compared."""
NOT_RUN = {"crnn", "conv_lstm", "history", "deconvolutional", "iseg"}
"""Counted and carried: test_carried.py."""
IN_NUMPY = {
    "Gaussian_yolo",
    "scale_channels",
    "sam",
    "batchnorm",
    "local_avgpool",
    "reorg3d",
    "empty",
    "contrastive",
    "implicit",
}
"""What only AlexeyAB has, or what crashes in libdarknet: compared with NumPy below and in test_layers_numpy.py."""


def test_every_section_of_the_table_has_an_oracle() -> None:
    sections = {
        section.name for text in IN_LIBDARKNET.values() for section in cfg_file.parse((NET + text).encode()).sections
    }
    kinds = {kind.names[0] for kind in REGISTRY.values()}
    assert kinds <= sections | IN_NUMPY | NOT_RUN
    assert set(ACTIVATIONS) == set(CLASSIC) | set(NUMPY_ACTIVATIONS) | set(NUMPY_MIXING)


Compared = dict[str, tuple[Model, dict[int, np.ndarray]]]


@pytest.fixture(scope="module")
def compared(libdarknet: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """For each of IN_LIBDARKNET a model with random weights, and what the library computes of INPUTS."""
    folder = tmp_path_factory.mktemp("nets")
    models, files = {}, []
    for number, (name, text) in enumerate(IN_LIBDARKNET.items()):
        model = models[name] = random_model(graph_of(NET + text, PJREDDIE), 5)
        files.append((folder / f"{number}.cfg", folder / f"{number}.weights"))
        cfg_file.write(files[-1][0], model.graph.cfg)
        weights_file.write(files[-1][1], model.weights, model.graph.layers)
    return {
        name: (model, found)
        for (name, model), found in zip(models.items(), libdarknet_many.outputs(files, INPUTS), strict=True)
    }


@pytest.mark.parametrize("name", IN_LIBDARKNET)
def test_section_is_libdarknets(compared: Compared, name: str) -> None:
    model, theirs = compared[name]
    with torch.inference_mode():
        ours = build(model)(torch.from_numpy(INPUTS), want=range(len(model.graph.layers)))
    last = max(index for index, layer in enumerate(model.graph.layers) if layer.name != "cost")
    assert last in theirs
    for index, output in theirs.items():
        flat = output.reshape(ours[index].shape)  # some keep no map there
        assert worst(ours[index].numpy(), flat) < 1e-5, model.graph.layers[index]


@pytest.mark.parametrize("name", IN_LIBDARKNET)
def test_section_computes_in_bfloat16_as_training_on_a_gpu_does(name: str) -> None:
    model = random_model(graph_of(NET + IN_LIBDARKNET[name], PJREDDIE), 5)
    every = [layer.index for layer in model.graph.layers if layer.trainable]
    found = []
    for half in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            found.append(build(model)(torch.from_numpy(INPUTS), want=every))
    for index in every:
        exact, rounded = (outputs[index].double() for outputs in found)
        # 8 bits of each value, a few layers deep; what compares values may choose another.
        assert float((rounded - exact).norm() / exact.norm()) < 0.05, model.graph.layers[index]


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_activation_is_libdarknets(libdarknet: Path, name: str) -> None:
    library = ctypes.CDLL(str(libdarknet))
    library.activate.restype = ctypes.c_float
    library.activate.argtypes = [ctypes.c_float, ctypes.c_int]
    x = np.concatenate([np.linspace(-6, 6, 97), [-4.0, 4.0, -1.0, 1.0, 0.0, 20.0, -20.0]]).astype(np.float32)
    kind = library.get_activation(name.encode())
    theirs = np.array([library.activate(float(value), kind) for value in x])
    assert np.abs(ACTIVATIONS[name](torch.from_numpy(x.copy())).numpy() - theirs).max() < 2e-6


def softplus(x: np.ndarray) -> np.ndarray:
    return np.where(x > 20, x, np.where(x < -20, np.exp(np.minimum(x, 0)), np.log(np.exp(np.minimum(x, 50)) + 1)))


NUMPY_ACTIVATIONS = {
    "swish": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * (2 / (1 + np.exp(-2 * softplus(x))) - 1),
    "hard_mish": lambda x: np.where(x > 0, x, np.where(x > -2, x * x / 2 + x, 0)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)),
    "revleaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "relu6": lambda x: np.clip(x, 0, 6),
}


NUMPY_MIXING = {
    "normalize_channels": lambda x: np.maximum(x, 0) / (np.maximum(x, 0).sum(1, keepdims=True) + 1e-4),
    "normalize_channels_softmax": lambda x: np.exp(x) / (np.exp(x).sum(1, keepdims=True) + 1e-4),
    "normalize_channels_softmax_maxval": lambda x: (
        np.exp(x - x.max(1, keepdims=True)) / (np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True) + 1e-4)
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_mixing_activation_is_the_formula(name: str) -> None:
    x = np.random.default_rng(4).normal(0, 2, (2, 5, 3, 4))
    assert worst(ACTIVATIONS[name](torch.from_numpy(x.copy())).numpy(), NUMPY_MIXING[name](x)) < 1e-12


@pytest.mark.parametrize("name", EXTENDED)
def test_extended_activation_is_the_formula(name: str) -> None:
    x = np.concatenate([np.linspace(-30, 30, 301), [-2.0, 0.0, 6.0]])
    ours = ACTIVATIONS[name](torch.from_numpy(x.copy())).numpy()
    assert np.abs(ours - NUMPY_ACTIVATIONS[name](x)).max() < 1e-9


def outputs(text: str, seed: int = 3) -> tuple[list[np.ndarray], object]:
    model = random_model(graph_of(NET + text, ALEXEYAB), seed)
    x = torch.from_numpy(np.random.default_rng(seed).normal(0, 1, (2, 6, 17, 13)))
    with torch.inference_mode():
        all_ = build(model).double()(x, want=range(len(model.graph.layers)))
    return [all_[index].numpy() for index in range(len(model.graph.layers))], model


@pytest.mark.parametrize("scale_wh", [0, 1])
def test_scale_channels(scale_wh: int) -> None:
    squeeze = START.replace("=8", "=1") if scale_wh else "[avgpool]\n"
    out, _ = outputs(START + squeeze + f"[scale_channels]\nfrom=0\nscale_wh={scale_wh}\nactivation=relu\n")
    assert worst(out[2], np.maximum(out[0] * out[1], 0)) < 1e-12


def test_grouped_route_takes_the_same_part_of_each_input() -> None:
    out, _ = outputs(START + START.replace("8", "4") + "[route]\nlayers=0,1\ngroups=2\ngroup_id=1\n")
    assert worst(out[2], np.concatenate([out[0][:, 4:], out[1][:, 2:]], 1)) == 0


def test_shortcut_adds_several_layers_and_only_common_channels() -> None:
    out, _ = outputs(START + START.replace("8", "5") + START + "[shortcut]\nfrom=0,1\nactivation=mish\n")
    total = out[2] + out[0]
    total[:, :5] += out[1]
    assert worst(out[3], NUMPY_ACTIVATIONS["mish"](total)) < 1e-9


def test_dilated_and_uneven_strides() -> None:
    text = "[convolutional]\nfilters=4\nsize=3\npad=1\ndilation=2\nstride_x=2\nstride_y=1\nactivation=linear\n"
    out, model = outputs(text)
    assert out[0].shape == (2, 4, 17, 7)
    x = np.random.default_rng(3).normal(0, 1, (2, 6, 17, 13))
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    arrays = model.weights.layers[0]
    value = (padded[1, :, 3 : 3 + 5 : 2, 8 : 8 + 5 : 2] * arrays["weight"][2]).sum() + arrays["bias"][2]
    assert abs(out[0][1, 2, 3, 4] - value) < 1e-9


@pytest.mark.parametrize(("scale", "new_coords"), [(1.0, 0), (1.2, 0), (2.0, 1)])
def test_yolo_forward_and_decode(scale: float, new_coords: int) -> None:
    head = f"[yolo]\nmask=0,2\nnum=3\nanchors=3,4,5,6,7,8\nclasses=2\nscale_x_y={scale}\nnew_coords={new_coords}\n"
    start = START.replace("=8", "=14").replace("leaky", "logistic" if new_coords else "linear")
    out, model = outputs(start + head)
    raw = out[0].reshape(2, 2, 7, 17, 13)
    values = raw if new_coords else 1 / (1 + np.exp(-raw))
    xy = values[:, :, :2] * scale - (scale - 1) / 2
    found = model.graph.layers[1].decode(torch.from_numpy(out[1]), 0.3)
    expected = []
    anchors = [(3, 4), (7, 8)]
    for b in range(2):
        for row in range(17):
            for column in range(13):
                for a in range(2):
                    cell = values[b, a, :, row, column]
                    shift = xy[b, a, :, row, column]
                    for k in range(2):
                        if cell[4] > 0.3 and cell[4] * cell[5 + k] > 0.3:
                            size = (2 * cell[2:4]) ** 2 if new_coords else np.exp(raw[b, a, 2:4, row, column])
                            w, h = size[0] * anchors[a][0] / 13, size[1] * anchors[a][1] / 17
                            x, y = (column + shift[0]) / 13, (row + shift[1]) / 17
                            expected.append((b, k, x, y, w, h, cell[4] * cell[5 + k]))
    ours = torch.cat([found.image[:, None], found.classes[:, None], found.boxes, found.probs[:, None]], 1).numpy()
    assert len(expected) > 5
    assert worst(ours, np.array(expected)) < 1e-9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sharp]\n", "a section"),
        (
            "[convolutional]\nfilters=8\nactivation=leeky\n",
            "test.cfg:7: [convolutional] layer 0: activation=leeky expected one of",
        ),
        ("[convolutional]\nfilters=8\nactivation=leaky#slope\n", "a comment stands on its own line"),
        ("[convolutional]\nfilters=8\ngroups=4\n", "groups=4 must divide both channels in and filters (found 6 and 8)"),
        ("[convolutional]\nfilters=many\n", "filters=many expected a whole number, found 'many'"),
        ("[convolutional]\nfilters=0\n", "filters=0 expected a value in 1.."),
        ("[convolutional]\nsize=31\n", "output would be"),
        ("[convolutional]\nfilters=8\nrotate=1\n", "rotate=1 is not supported"),
        ("[convolutional]\nfilters=1000000000\n", "output would be 13x17x1000000000 (expected 1.."),
        ("[convolutional]\nfilters=1000000\nsize=17\npad=1\n", "expected up to 268435456 weights, found 1735000000"),
        ("[connected]\noutput=1000000\n", "expected up to 268435456 weights, found 1327000000"),
        ("[activation]\nactivation=mish\n", "activation=mish can't be used in this section: Darknet gives zeros"),
        (START + START + "[shortcut]\nfrom=0\nactivation=hard_mish\n", "Darknet gives zeros"),
        (START + START + "[shortcut]\nfrom=0\nweights_type=per_channel\n", "needs weights_normalization, relu or"),
        (
            START + START.replace("=8", "=7") + "[sam]\nfrom=0\n",
            "expected 13x17x7 as the layer before has it, found 13",
        ),
        (START + "[maxpool]\nmaxpool_depth=1\nout_channels=9\n", "expected at most the channels in, 8"),
        (START + "[upsample]\nstride=-2\n", "stride=-2 must divide width and height (found 13x17)"),
        (START + "[reorg3d]\nstride=2\n", "stride=2 must divide width and height (found 13x17)"),
        (EVEN.replace("=8", "=6", 1) + "[reorg]\nstride=2\n", "expected channels that stride*stride divides, found 6"),
        ("[crop]\ncrop_width=14\ncrop_height=3\n", "crop_width=14 expected a value in 1..13"),
        (
            START + "[local]\nsize=5\npad=1\n",
            "pad=1 is computed wrongly with size=5 by Darknet (expected size=3, or 0)",
        ),
        (START + "[local_avgpool]\nsize=2\npadding=4\n", "expected windows that reach the map"),
        (START + "[convolutional]\nfilters=8\nshare_index=-1\n", "expected equal filters, channels, groups, size"),
        (START + "[avgpool]\n[convolutional]\nfilters=8\nshare_index=1\n", "expected a convolution, found layer 1"),
        (
            START + "antialiasing=1\nstride=2\n[empty]\n[route]\nlayers=0\n",
            "layers=0 layer 0 [convolutional] has a blur behind it (antialiasing)",
        ),
        (START + "[l2norm]\n", "[l2norm] layer 1: unknown or unsupported in dialect alexeyab"),
        (
            START + "[route]\nlayers=-40\n",
            "test.cfg:11: [route] layer 1: layers=-40 points before the first layer (expected -1..0, found -40)",
        ),
        (START + "[route]\nlayers=1\n", "points after the layers before it"),
        (START + "[shortcut]\nfrom=9\n", "[shortcut] layer 1: from=9 points after"),
        (START + "[maxpool]\nsize=2\nstride=2\n[route]\nlayers=0,1\n", "expected inputs of one width and height"),
        (START + "[yolo]\nclasses=2\nnum=3\n", "expected filters=21 before it (3 anchors of 2 classes and 5), found 8"),
        (START + "[region]\nclasses=2\nnum=3\n", "expected filters=21 before it"),
    ],
)
def test_errors_locate(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        graph_of(NET + text)
    assert message.replace("a section", "unknown or unsupported in dialect alexeyab") in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        START + "[route]\nlayers=0\ngroups=2\ngroup_id=1\n",
        START + "[avgpool]\n[scale_channels]\nfrom=0\n",
        "[convolutional]\nfilters=4\nsize=3\ndilation=2\n",
        "[convolutional]\nfilters=4\nactivation=mish\n",
        "[convolutional]\nfilters=4\nsize=1\nstride=2\n",
        START + START + "[shortcut]\nfrom=-2,0\n",
        START + "[maxpool]\nsize=2\nstride_x=2\n",
        START + "[maxpool]\nsize=2\nantialiasing=1\n",
        "[convolutional]\nsize=3\nantialiasing=1\n",
        START + START + "[shortcut]\nfrom=-2\nweights_type=per_feature\nweights_normalization=relu\n",
        "min_ratio=0\n" + START,
        "[gru]\noutput=7\n" + START,
        "[lstm]\noutput=7\n[dropout]\n[upsample]\n",
        START + "[softmax]\n[lrn]\n",
        START + "[softmax]\n[route]\nlayers=-1\n[maxpool]\n",
    ],
)
def test_what_pjreddie_would_compute_wrongly_is_refused_there(text: str) -> None:
    if "stride=2" not in text:
        graph_of(NET + text, ALEXEYAB)
    with pytest.raises(InputError):
        graph_of(NET + text, PJREDDIE)
