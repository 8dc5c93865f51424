"""What each reader of Darknet's files accepts, ignores and computes differently, as data.

pjreddie, alexeyab: their parser.c and option_list.c; hank-ai: darknet_cfg.cpp, darknet_enums.cpp; opencv:
modules/dnn/src/darknet/darknet_io.cpp. Converters are in `converters`. A rule asks for a fact, never for a name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from yoloprune.compat import keys
from yoloprune.compat.keys import words
from yoloprune.darknet.cfg import Entry, Section
from yoloprune.darknet.cnumbers import atof
from yoloprune.darknet.dialect import ALEXEYAB as ALEXEYAB_DIALECT
from yoloprune.darknet.dialect import PJREDDIE as PJREDDIE_DIALECT
from yoloprune.darknet.dialect import Dialect
from yoloprune.darknet.keys import full_name, keys_of
from yoloprune.darknet.layers.activations import ACTIVATIONS, CLASSIC, NOT_IN_CONNECTED, NOT_IN_SHORTCUT


@dataclass(frozen=True)
class Heads:
    """What a converter asks of all [yolo] together. What is not said, it doesn't ask."""

    counts: frozenset[int] = frozenset()
    """How many there may be."""
    needed: bool = False
    """There must be one."""
    same: frozenset[str] = frozenset()
    """Keys with one value in all, else it refuses."""
    first: frozenset[str] = frozenset()
    """Keys of which the first head's value is taken for all."""
    everywhere: frozenset[str] = frozenset()
    """Keys that stand in all or in none, else it refuses."""
    same_anchors: bool = False
    """It refuses masks of several lengths."""
    whole_anchors: bool = False
    """It cuts anchors to whole numbers."""
    shrinks: bool = False
    """It divides boxes by scale_x_y, and leaves their centres."""
    threshold: bool = False
    """It takes ignore_thresh, at most 0.25, for the confidence under which nothing is found."""
    strides: tuple[tuple[int, ...], ...] = ()
    """Input size over map size, in the order of the heads."""
    behind: frozenset[str] = frozenset()
    """Activations of the [convolutional] before it."""
    named: bool = False
    """The file's name says which network it is."""


@dataclass(frozen=True)
class ReaderProfile:
    """One program that reads Darknet's files. What is not said is as in pjreddie's Darknet."""

    name: str
    """What `--for` takes."""
    title: str
    """Whose it is, for messages."""
    dialect: Dialect
    """Whose sections and arrays it reads, as near as a dialect of ours comes."""
    activations: frozenset[str]
    own_keys: keys.Keys | None = None
    """Sections, by their full names alone, and keys of a parser of its own; None: the dialect's."""
    lacks: frozenset[str] = frozenset()
    """Sections of the dialect that it doesn't have."""
    lacks_keys: frozenset[str] = frozenset()
    """Keys of the dialect that it doesn't have, in any section."""
    mute: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Activations that give zeros on a CPU, for a section ("": any)."""
    default_activation: str = "logistic"
    """Of [convolutional] and [connected]."""
    defaults: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Section and key -> default, where it is another than Darknet's."""
    needed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keys without which a section is refused."""
    unknown_activation_is: str | None = "ReLU"
    """What it takes an unknown activation for; None: it refuses."""
    more_words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For keys that may be any word in Darknet, those it takes beside its dialect's."""
    unknown_key_refused: bool = False
    bare_key_refused: bool = False
    """A line without `=`."""
    repeated: Literal["first", "last", "refused"] = "first"
    """Which of equal keys counts."""
    strict: bool = False
    """Numbers are made of -, . and digits only; blanks and comments as in no other reader (hank-ai)."""
    reads_cr: bool = True
    reads_bom: bool = False
    hash_ends: frozenset[str] = frozenset()
    """Keys whose list ends at #; elsewhere a comment's commas count."""
    trailing_comma_adds: bool = True
    anchors: Mapping[str, Literal["overflow", "cut", "exact", "given"]] = field(default_factory=dict)
    """What becomes of more anchors than 2 * num, for a head. given: as cut, and there are no others where some lack."""
    needs_maps: bool = False
    """Divides by the number of layers that read more than 1x1."""
    trains: bool = True
    variance_over: float | None = None
    """Batch norm is finite for variances over this; None: as the dialect has it."""
    bn_formula: str = "(x - mean) / sqrt(variance + 1e-5)"
    weights: Literal["loose", "long", "exact"] = "loose"
    """exact: another length than the cfg needs is refused; long: a shorter one is."""
    weights_ending: str | None = None
    """A weights file with another ending is silently not loaded."""
    connected_norm_first: bool = False
    """Reads the batch norm of [connected] before its weights, where Darknet writes it behind."""
    transposed: Literal["read", "shifted", "refused"] = "read"
    """What becomes of a weights file of version over 1000."""
    shortcut_same_size: bool = True
    """[shortcut] refuses maps of two sizes."""
    one_shortcut: bool = True
    """[shortcut] takes only the first layer of `from`."""
    pointwise_broken: bool = False
    """A 1x1 convolution with stride or padding reads the wrong pixels."""
    fast_shortcut: bool = False
    """[shortcut] may read past a narrower layer."""
    fast_maxpool: bool = False
    """Stride 1 is computed wrong by a CPU build with AVX."""
    multiple_of: int = 1
    """Width and height of a detector must be a multiple."""
    refuses: str | None = None
    """Why it reads no Darknet file at all."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Sections that it knows and fails on, with the reason."""
    fatal: frozenset[tuple[str, str]] = frozenset()
    """Sections and keys with an effect that it passes over, and then reads other weights than the file holds."""
    section_comment: Literal["break", "net", "hash"] = "break"
    """Where a comment behind a section's name breaks: anywhere; at [net] only; where it doesn't start with #."""
    section_blanks: Literal["fine", "within", "anywhere"] = "fine"
    """Blanks that hide a section."""
    python: bool = False
    """Its lines go through Python: UTF-8, split at `=` into exactly two; a comment starts with # only."""
    comments: Literal["anywhere", "first column"] = "anywhere"
    """Where that # may stand."""
    brackets_open: bool = False
    """A [ in a comment before [net] starts a section."""
    exact: Literal["no", "known", "all"] = "no"
    """Whether whole values must be numbers: of no key, of those that it knows, of all (then # ends a value)."""
    no_number_refused: bool = False
    """A value that starts with no number is refused; elsewhere it counts as 0."""
    own_activations: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Activations that a section takes, where they are others."""
    conv_padding: Literal["darknet", "undilated", "same", "half"] = "darknet"
    """undilated: as many as with dilation=1; same: for map / stride places, rounded up, more at the start; half:
    (size - 1) / 2 where pad=1, else none."""
    pool_padding: Literal["darknet", "same", "sides", "torch"] = "darknet"
    """same: as above, more at the end; sides: stride * ((size - 1) / 2) on all sides; torch: as MaxPoolDark."""
    doubles: bool = False
    """[upsample] is always by 2."""
    shortcut_widths: Literal["any", "equal", "packed"] = "any"
    """[shortcut] of two widths: as Darknet; refused; right only where both are packed alike."""
    route_counts: frozenset[int] = frozenset()
    """How many layers a [route] may have; none: any."""
    route_needs_last: bool = False
    """A [route] of several layers must have the layer before it: the first of four, one of two."""
    route_groups: Literal["any", "passed over", "refused"] = "any"
    """`groups` of a [route] of several layers."""
    group_id_needed: Literal["no", "refused", "passed over"] = "no"
    """What becomes of `groups` without `group_id`, which is 0 in Darknet."""
    zero_refused: bool = False
    """An index of 0 in [route] or [shortcut] means the section itself."""
    misread_indexes: Mapping[str, Literal["all", "zero"]] = field(default_factory=dict)
    """Keys whose absolute indexes, or 0 only, mean another layer."""
    unreachable: frozenset[str] = frozenset()
    """Sections that no index may point to; route: one of a single layer without groups."""
    tracks: Literal["nothing", "sizes", "strides"] = "nothing"
    """What it follows from layer to layer by rules of its own."""
    fixed_header: int | None = None
    """Bytes that it takes for the header of a weights file, whatever its version says."""
    skips_zeros: bool = False
    """What it converts to can skip zeros in the pattern 2:4 on some GPUs; elsewhere all weights are computed."""
    own_int8: str = ""
    """What is known of a quantization of its own, if it has one."""
    heads: Heads = Heads()

    def keys(self, kind: str) -> frozenset[str] | None:
        """The keys that it reads in a section, by its full name; None if it knows none such."""
        if self.own_keys is not None:
            return self.own_keys.get(kind)
        known = None if kind in self.lacks else keys_of(kind, self.dialect)
        return known if known is None or not self.lacks_keys else known - self.lacks_keys

    def kind(self, name: str) -> str | None:
        """The full name of a section as this reader takes it; None if it knows none such."""
        kind = full_name(name)
        return kind if self.keys(kind) is not None and (kind == name or self.own_keys is None) else None

    def knows(self, kind: str, key: str) -> bool:
        """Whether it reads the key there."""
        return key in (self.keys(kind) or ())

    def entry(self, section: Section, key: str) -> Entry | None:
        """The entry that counts, whether the key is known or not."""
        found = [entry for entry in section.entries if entry.key == key]
        return None if not found else found[-1 if self.repeated == "last" else 0]

    def counting(self, section: Section) -> dict[str, Entry]:
        """For each key of the section, the entry that counts."""
        entries = section.entries if self.repeated == "last" else reversed(section.entries)
        return {entry.key: entry for entry in entries}

    def cut(self, text: str) -> str:
        """A value without the comment behind it, where # ends every value."""
        return text.split("#")[0] if self.strict or self.exact == "all" else text

    def items(self, entry: Entry) -> list[str]:
        """The items of a list as this reader splits it."""
        text = entry.value.split("#")[0] if entry.key in self.hash_ends else self.cut(entry.value)
        if self.strict:
            return re.findall(r"[-.\d]+", text)
        items = text.split(",")
        return items[:-1] if not items[-1] and not self.trailing_comma_adds else items


def number(text: str) -> float:
    """As atof; what is infinite or none counts as 0, as no rule asks for it."""
    value = atof(text)
    return value if math.isfinite(value) else 0.0


PJREDDIE: Final = ReaderProfile(
    name="pjreddie",
    title="pjreddie's Darknet",
    dialect=PJREDDIE_DIALECT,
    activations=frozenset(CLASSIC),
    reads_cr=False,
    anchors={"yolo": "overflow", "region": "overflow"},
    bn_formula="(x - mean) / (sqrt(variance) + 1e-6)",
    shortcut_same_size=False,
    pointwise_broken=True,
)
ALEXEYAB: Final = ReaderProfile(
    name="alexeyab",
    title="AlexeyAB's Darknet",
    dialect=ALEXEYAB_DIALECT,
    activations=frozenset(ACTIVATIONS),
    mute={
        "": frozenset({"relu6"}),
        "activation": frozenset(NOT_IN_CONNECTED),
        "shortcut": frozenset(NOT_IN_SHORTCUT),
        "connected": frozenset(NOT_IN_CONNECTED),
    },
    hash_ends=frozenset({"mask", "anchors", "steps"}),
    anchors={"yolo": "cut", "region": "cut", "Gaussian_yolo": "overflow"},
    needs_maps=True,
    transposed="shifted",
    one_shortcut=False,
    fast_shortcut=True,
    fast_maxpool=True,
)
HANK_AI: Final = ReaderProfile(
    name="hank-ai",
    title="hank-ai's Darknet",
    dialect=ALEXEYAB_DIALECT,
    lacks=words("local activation gru conv_lstm history crop detection normalization batchnorm reorg implicit empty"),
    lacks_keys=words("show_details max_crop min_crop unsupervised"),
    activations=frozenset(ACTIVATIONS),
    unknown_activation_is=None,
    more_words={"iou_thresh_kind": ("mse",)},
    unknown_key_refused=True,
    repeated="refused",
    strict=True,
    section_blanks="anywhere",
    trailing_comma_adds=False,
    anchors={"yolo": "overflow", "region": "cut", "Gaussian_yolo": "overflow"},
    needs_maps=True,
    weights="exact",
    weights_ending=".weights",
    transposed="shifted",
    one_shortcut=False,
    fast_shortcut=True,
    fast_maxpool=True,
    multiple_of=32,
)
OPENCV: Final = ReaderProfile(
    name="opencv",
    title="OpenCV",
    dialect=ALEXEYAB_DIALECT,
    own_keys=keys.table(
        "width height channels",
        "activation",
        {
            "convolutional": "size pad padding stride filters groups batch_normalize flipped",
            "connected": "output batch_normalize",
            "maxpool": "stride size padding",
            "avgpool": "",
            "softmax": "groups",
            "route": "layers groups group_id",
            "dropout": "",
            "cost": "",
            "crop": "crop_height crop_width noadjust",
            "reorg": "stride",
            "region": "thresh coords classes num classfix softmax tree anchors",
            "shortcut": "from alpha beta",
            "scale_channels": "from",
            "sam": "from",
            "upsample": "stride",
            "yolo": "classes num thresh nms_threshold scale_x_y new_coords anchors mask",
        },
    ),
    activations=words("linear leaky relu swish mish logistic tanh"),
    default_activation="linear",
    defaults={
        ("net", "width"): 416,
        ("net", "height"): 416,
        ("net", "channels"): 3,
        ("maxpool", "size"): 2,
        ("maxpool", "stride"): 2,
        ("upsample", "stride"): 1,
        ("reorg", "stride"): 2,
    },
    needed={
        "convolutional": ("size", "filters"),
        "yolo": ("classes", "num", "anchors", "mask"),
        "region": ("classes", "num", "anchors"),
    },
    unknown_activation_is=None,
    bare_key_refused=True,
    repeated="last",
    section_comment="net",
    reads_bom=True,
    trailing_comma_adds=False,
    anchors={"yolo": "exact", "region": "exact"},
    trains=False,
    variance_over=float(np.float32(-1e-6)),
    bn_formula="(x - mean) / sqrt(variance + 1e-6)",
    connected_norm_first=True,
    transposed="refused",
    own_int8="its own int8 was off by up to 0.98 at the heads of two networks, and slower",
)
PROFILES: Final = {reader.name: reader for reader in (PJREDDIE, ALEXEYAB, HANK_AI, OPENCV)}
"""By the name that `--for` takes: those that `check` looks through where none is named."""
