"""What is known of keys: by name what their values are, what they change, what Darknet takes where they are left out.

Which keys a section has is in darknet/keys.py, and beside a reader that has a parser of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from yoloprune.darknet.dialect import DIALECTS
from yoloprune.darknet.keys import asked, asked_as
from yoloprune.darknet.layers import REGISTRY
from yoloprune.darknet.options import Asked

Keys = Mapping[str, frozenset[str]]
"""For each section, by its full name, the keys that are read in it."""


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def table(net: str, common: str, sections: Mapping[str, str]) -> Keys:
    """Keys of [net], of every other section, and of each for itself."""
    return {"net": words(net), **{name: words(f"{common} {own}") for name, own in sections.items()}}


POLICIES: Final[Mapping[str, frozenset[str]]] = {
    "constant": frozenset(),
    "step": frozenset({"step", "scale"}),
    "steps": frozenset({"steps", "scales", "seq_scales"}),
    "sgdr": frozenset({"steps", "scales", "seq_scales"}),
    "exp": frozenset({"gamma"}),
    "sigmoid": frozenset({"gamma", "step"}),
    "poly": frozenset(),
    "random": frozenset(),
}
"""Keys of [net] that are read under that policy only."""
POLICY_KEYS: Final = frozenset().union(*POLICIES.values())
ADAM_KEYS: Final = frozenset({"B1", "B2", "eps"})

TEXTS: Final = asked_as("text") | words("map lstm_activation")
"""Keys whose value is a word."""
LISTS: Final = asked_as("list") | words("seq_scales counters_per_class")
"""Keys whose value is a list of numbers."""

SAME_AS: Final = "="
ANY: Final = "*"
_OTHER_EFFECTS: Final[Mapping[str, Mapping[str, str]]] = {
    "net": {"inputs": ANY, "time_steps": "1"},
    "convolutional": {"stride_x": "=stride", "stride_y": "=stride", "cbn": "0", "binary": "0", "bin_output": "0"},
    "maxpool": {"stride_x": "=stride", "stride_y": "=stride"},
    "yolo": {"map": ANY},
    "region": {"map": ANY},
    "rnn": {"hidden": ANY},
    "crnn": {"output": ANY, "hidden": ANY, "output_filters": ANY, "hidden_filters": ANY, "pad": "1", "xnor": "0"},
}
"""Of keys with an effect that no layer asks for, or whose neutral value isn't their default."""
_SAID_ELSEWHERE: Final = {
    "convolutional": words("padding sway rotate stretch stretch_sway deform"),
    "maxpool": words("padding out_channels maxpool_zero_nonmax"),
    "yolo": words("nms_kind beta_nms"),
    "shortcut": words("weights_normalization"),
    "route": words("group_id"),
    "softmax": words("groups"),
    "crnn": words("padding"),
}
"""Keys whose effect other rules tell, or that change training and suppression only."""


@cache
def effects(section: str) -> Mapping[str, str]:
    """Keys that change what a network computes, with the value that changes nothing.

    `=key`: that of another key; `*`: none. To pass over any other key costs training or display only.
    """
    computed = {key: each for key, each in _asked(section).items() if not each.trains}
    neutral = {key: ANY if each.default is None else _written(each.default) for key, each in computed.items()}
    neutral |= _OTHER_EFFECTS.get(section, {})
    return {key: value for key, value in neutral.items() if key not in _SAID_ELSEWHERE.get(section, ())}


@cache
def defaults(section: str) -> Mapping[str, str]:
    """What Darknet takes for keys that are left out; `=key`: as another key."""
    known = {key: _written(each.default) for key, each in _asked(section).items() if each.default is not None}
    return known | ({"size": "=stride"} if section == "maxpool" else {})


def _asked(section: str) -> Mapping[str, Asked]:
    """In any dialect."""
    kind = REGISTRY.get(section)
    known = [asked(kind, dialect) for dialect in DIALECTS.values() if kind is not None]
    return {key: each for one in reversed(known) for key, each in one.items()}


def _written(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
