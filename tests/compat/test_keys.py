"""A section's keys are said once, where its class reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from yoloprune.compat import PROFILES, check
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet.declared import integer
from yoloprune.darknet.dialect import DIALECTS, Dialect
from yoloprune.darknet.keys import full_name, keys_of
from yoloprune.darknet.layers import REGISTRY
from yoloprune.darknet.layers.base import Layer, register
from yoloprune.darknet.model import build_graph
from yoloprune.errors import InputError

TEXT = "[net]\nwidth=8\nheight=8\nchannels=4\n[convolutional]\nsize=1\n[doubled]\ntimes=3\ntime=2\n"


@pytest.fixture
def doubled() -> Iterator[None]:
    @register
    @dataclass(frozen=True)
    class Doubled(Layer):
        times: int = integer(1)

        names: ClassVar[tuple[str, ...]] = ("doubled",)
        extended: ClassVar[bool] = True

    yield
    del REGISTRY["doubled"]


def test_a_new_sections_key_is_said_once(doubled: None) -> None:
    found = check(cfg_file.parse(TEXT.encode()), list(PROFILES.values()))
    about = {(each.reader, each.line, each.severity, each.message) for each in found if each.line and each.line > 6}
    unknown = "unknown key time; is it times?"
    assert about == {
        ("pjreddie", 7, "break", "unknown section [doubled]"),
        ("alexeyab", 9, "ignored", unknown),
        ("hank-ai", 9, "break", "unknown key time"),
        ("opencv", 7, "break", "unknown section [doubled]"),
    }


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
def test_full_sections_are_asked_for_no_other_keys_than_empty_ones(cfg_folders: list[Path], dialect: Dialect) -> None:
    """Of every stock cfg, as far as the dialect takes it."""
    seen = 0
    for path in (path for folder in cfg_folders for path in sorted(folder.glob("*.cfg"))):
        try:
            graph = build_graph(cfg_file.read(path, lenient=True), dialect)
        except InputError:
            continue
        unused = {entry.line for entry in graph.unused}
        for section in graph.cfg.sections:
            asked = {entry.key for entry in section.entries if entry.line not in unused}
            assert asked <= (keys_of(full_name(section.name), dialect) or set()), (path, section)
            seen += len(asked)
    assert seen > 1000
