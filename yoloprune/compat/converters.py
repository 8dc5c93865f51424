"""What programs that convert Darknet's files accept, ignore and compute differently, as data.

They are looked through where they are named (`--for`), since each takes a few networks only.

ncnn: tools/darknet/darknet2ncnn.cpp, src/layer/yolov3detectionoutput.cpp and what its layers compute (1.0.20261020).
tensorrt_demos: jkjung-avt's yolo/yolo_to_onnx.py and yolo/plugins.py; of zeros TensorRT's developer guide, "Sparsity".
pytorch-yolov4: Tianxiaomo's tool/darknet2pytorch.py, tool/config.py and tool/yolo_layer.py. opencv5:
modules/dnn/src/dnn_read.cpp.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from yoloprune.compat import keys
from yoloprune.compat.keys import words
from yoloprune.compat.profiles import PROFILES, Heads, ReaderProfile
from yoloprune.darknet.dialect import ALEXEYAB as ALEXEYAB_DIALECT
from yoloprune.errors import InputError

_INPUT: Final = ("width", "height", "channels")

_converter = partial(
    ReaderProfile,
    dialect=ALEXEYAB_DIALECT,
    repeated="last",
    trailing_comma_adds=False,
    anchors={"yolo": "given"},
    trains=False,
    weights="long",
)
"""What the three that read anything have in common."""

NCNN: Final = _converter(
    name="ncnn",
    title="ncnn's darknet2ncnn",
    own_keys=keys.table(
        "width height channels",
        "",
        {
            "convolutional": "filters size stride pad padding groups dilation activation batch_normalize",
            "shortcut": "from activation",
            "maxpool": "stride size padding",
            "avgpool": "",
            "scale_channels": "from activation",
            "route": "layers groups group_id",
            "upsample": "stride",
            "dropout": "",
            "yolo": "classes mask anchors num ignore_thresh scale_x_y",
        },
    ),
    activations=words("linear relu leaky mish logistic swish"),
    own_activations={"scale_channels": words("linear")},
    default_activation="linear",
    defaults={("net", "width"): 416, ("net", "height"): 416, ("net", "channels"): 3, ("maxpool", "size"): 1},
    needed={
        "shortcut": ("from",),
        "scale_channels": ("from",),
        "route": ("layers",),
        "yolo": ("classes", "anchors", "mask"),
    },
    unknown_activation_is=None,
    section_blanks="within",
    no_number_refused=True,
    transposed="shifted",
    conv_padding="undilated",
    pool_padding="sides",
    doubles=True,
    shortcut_widths="packed",
    route_groups="passed over",
    group_id_needed="passed over",
    unreachable=words("yolo"),
    tracks="sizes",
    heads=Heads(same=words("classes anchors"), same_anchors=True, whole_anchors=True, shrinks=True, threshold=True),
)
TENSORRT_DEMOS: Final = _converter(
    name="tensorrt_demos",
    title="tensorrt_demos' yolo_to_onnx",
    own_keys=keys.table(
        "width height channels steps scales",
        "",
        {
            "convolutional": "filters size stride pad activation batch_normalize",
            "maxpool": "size stride",
            "shortcut": "from activation",
            "route": "layers groups group_id",
            "upsample": "stride",
            "yolo": "classes mask anchors num scale_x_y new_coords",
        },
    ),
    activations=words("linear leaky mish logistic"),
    own_activations={"shortcut": words("linear")},
    needed={
        "net": _INPUT,
        "convolutional": ("filters", "size", "stride", "activation"),
        "maxpool": ("size", "stride"),
        "upsample": ("stride",),
        "route": ("layers",),
        "shortcut": ("from", "activation"),
        "yolo": ("classes", "anchors", "mask"),
    },
    unknown_activation_is=None,
    bare_key_refused=True,
    reads_bom=True,
    section_comment="hash",
    section_blanks="anywhere",
    python=True,
    brackets_open=True,
    exact="all",
    fatal=frozenset({("convolutional", "groups")}),
    fixed_header=20,
    conv_padding="same",
    pool_padding="same",
    shortcut_widths="equal",
    route_groups="refused",
    group_id_needed="refused",
    misread_indexes={"from": "all", "layers": "zero"},
    unreachable=words("yolo route"),
    multiple_of=32,
    skips_zeros=True,
    heads=Heads(
        counts=frozenset({2, 3}),
        same=words("classes"),
        first=words("anchors"),
        everywhere=words("scale_x_y new_coords"),
        strides=((32, 16), (32, 16, 8), (8, 16, 32)),
        behind=words("linear logistic"),
        named=True,
    ),
)
PYTORCH_YOLOV4: Final = _converter(
    name="pytorch-yolov4",
    title="pytorch-YOLOv4's darknet2pytorch",
    own_keys=keys.table(
        "width height channels",
        "",
        {
            "convolutional": "filters size stride pad activation batch_normalize",
            "maxpool": "size stride",
            "avgpool": "",
            "softmax": "",
            "cost": "type",
            "route": "layers groups group_id",
            "shortcut": "from activation",
            "upsample": "stride",
            "connected": "output activation",
            "reorg": "stride",
            "region": "anchors classes num object_scale noobject_scale class_scale coord_scale",
            "yolo": "anchors mask classes num scale_x_y",
        },
    ),
    activations=words("linear leaky relu mish"),
    own_activations={"shortcut": words("linear leaky relu")},
    needed={
        "net": _INPUT,
        "convolutional": ("filters", "size", "stride", "pad", "activation"),
        "maxpool": ("size", "stride"),
        "upsample": ("stride",),
        "route": ("layers",),
        "shortcut": ("from", "activation"),
        "yolo": ("classes", "num", "anchors", "mask", "scale_x_y"),
    },
    unknown_activation_is="linear",
    bare_key_refused=True,
    section_blanks="anywhere",
    comments="first column",
    python=True,
    exact="known",
    refused={
        "connected": "weights of [connected] can't be loaded: they are copied as a vector",
        "region": "[region] gives no boxes",
        "reorg": "[reorg] divides into floats, which Python 3 refuses as sizes",
    },
    fatal=frozenset({("convolutional", "groups")}),
    fixed_header=20,
    conv_padding="half",
    pool_padding="torch",
    shortcut_widths="equal",
    route_counts=frozenset({1, 2, 4}),
    route_needs_last=True,
    route_groups="passed over",
    group_id_needed="refused",
    zero_refused=True,
    unreachable=words("yolo"),
    tracks="strides",
    heads=Heads(needed=True),
)
OPENCV5: Final = ReaderProfile(
    name="opencv5",
    title="OpenCV 5",
    dialect=ALEXEYAB_DIALECT,
    own_keys={"net": frozenset()},
    activations=frozenset(),
    trains=False,
    refuses="reads no Darknet files: readNetFromDarknet went with version 5; it reads what yoloprune convert writes",
)
CONVERTERS: Final = {reader.name: reader for reader in (NCNN, TENSORRT_DEMOS, PYTORCH_YOLOV4, OPENCV5)}
"""By the name that `--for` takes."""


def profile_named(name: str) -> ReaderProfile:
    """The reader or converter of that name, or an InputError that lists them."""
    known = {**PROFILES, **CONVERTERS}
    if name not in known:
        raise InputError(f"--for: expected one of {', '.join(known)}, found {name!r}")
    return known[name]
