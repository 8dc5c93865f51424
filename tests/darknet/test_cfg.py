"""cfg text: byte-identical when nothing changed, minimal edits, legal output, located errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloprune.darknet import cfg as cfg_file
from yoloprune.errors import InputError

USUAL = st.sampled_from(
    ["", "# note", "  ; old", "[convolutional]", " [ route ] ", "filters=8", "shown = 1 # why", "key", "k="]
)
LINES = st.lists(
    st.one_of(USUAL, st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\0["))).filter(
        lambda line: "[" not in line or "]" in line
    ),
    max_size=20,
)


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_round_trip_is_byte_identical(lines: list[str], end: str, final: bool) -> None:
    data = (end.join(["[net]", "width=32", *lines]) + (end if final else "")).encode()
    assert cfg_file.dump(cfg_file.parse(data)) == data


def test_round_trip_of_bytes_that_are_no_utf8() -> None:
    data = b"[net]\n# \xb2\xe2\xca\xd4\nwidth=32\n"
    assert cfg_file.dump(cfg_file.parse(data)) == data


def test_stock_cfgs_round_trip(cfg_folders: list[Path]) -> None:
    files = [file for folder in cfg_folders for file in folder.glob("*.cfg")]
    assert len(files) >= 45
    for file in files:
        assert cfg_file.dump(cfg_file.read(file)) == file.read_bytes(), file


def test_blanks_go_and_the_first_of_equal_keys_wins() -> None:
    cfg = cfg_file.parse(b"[net]\nwidth = 4 1 6\nwidth=32\n;height=1\nnothing\nempty=\n")
    entry = cfg.sections[0].get("width")
    assert entry is not None
    assert (entry.value, entry.line) == ("416", 2)
    assert [each.key for each in cfg.sections[0].entries] == ["width", "width"]


def test_edit_touches_only_its_lines_and_moves_a_comment_up() -> None:
    text = "[net]\nwidth=32\n\n[convolutional]\n# wide\nfilters = 64 # was 128\nsize=3\n\n[route]\nlayers=-1\n"
    edited = cfg_file.edit(cfg_file.parse(text.encode()), {1: {"filters": "40", "groups": "4"}})
    expected = text.replace("filters = 64 # was 128\nsize=3\n", "# was 128\nfilters=40\nsize=3\ngroups=4\n")
    assert cfg_file.dump(edited).decode() == expected


def test_edit_removes_a_key_and_keeps_its_comment() -> None:
    text = "[net]\nwidth=32\n\n[convolutional]\nsize=3 # was 5\n\r\n; old\nfilters=8\nsize = 1"
    edited = cfg_file.edit(cfg_file.parse(text.encode()), {1: {"size": None, "pad": None}})
    assert cfg_file.dump(edited).decode() == "[net]\nwidth=32\n\n[convolutional]\n# was 5\n\r\n; old\nfilters=8\n"
    both = cfg_file.edit(cfg_file.parse(text.encode()), {1: {"filters": None, "size": None, "groups": "2", "pad": "1"}})
    assert cfg_file.dump(both).decode() == ("[net]\nwidth=32\n\n[convolutional]\n# was 5\n\r\n; old\ngroups=2\npad=1\n")


@given(st.lists(USUAL), st.integers(0, 3))
def test_a_removed_key_takes_no_other_byte_along(lines: list[str], changed: int) -> None:
    cfg = cfg_file.parse("\n".join(["[net]", "filters=4", *lines, "filters=9"]).encode())
    section = cfg.sections[min(changed, len(cfg.sections) - 1)]
    edited = cfg_file.edit(cfg, {cfg.sections.index(section): {"filters": None}})
    gone = {entry.line for entry in section.entries if entry.key == "filters"}
    assert edited.lines == tuple(line for number, line in enumerate(cfg.lines, 1) if number not in gone)


@given(st.lists(USUAL), st.integers(0, 3))
def test_a_key_has_one_value_for_every_reader(lines: list[str], changed: int) -> None:
    """Readers take the first or the last of equal keys: what was edited is equal in all, and legal text has one."""
    cfg = cfg_file.parse("\n".join(["[net]", "filters=4", *lines, "filters=9 # old"]).encode())
    section = min(changed, len(cfg.sections) - 1)
    edited = cfg_file.edit(cfg, {section: {"filters": "6"}})
    assert {entry.value for entry in edited.sections[section].entries if entry.key == "filters"} == {"6"}
    for before, after in zip(cfg.sections, cfg_file.legal(cfg).sections, strict=True):
        assert [entry.key for entry in after.entries] == list(dict.fromkeys(entry.key for entry in before.entries))
        first, left = before.get("filters"), after.get("filters")
        assert first is left is None or (first and left and left.value == first.value.split("#")[0])


def test_legal_rewrites_only_what_readers_trip_over() -> None:
    text = "\ufeff[net]\r\nwidth=32\r\nlearning_rate = 1e-3\r\nscales=.1,1E-05 # two\r\n"
    text += "size=3 ; five\r\n; old\r\n  # in\r\nanchors=1, 2,  3\r\n# 1e-3 stays\r\n"
    legal = cfg_file.dump(cfg_file.legal(cfg_file.parse(text.encode()))).decode()
    expected = "[net]\nwidth=32\nlearning_rate=0.001\n# two\nscales=.1,0.00001\n"
    expected += "# five\nsize=3\n# old\n# in\nanchors=1, 2,  3\n# 1e-3 stays\n"
    assert legal == expected
    assert cfg_file.legal(cfg_file.parse(expected.encode())).lines == cfg_file.parse(expected.encode()).lines


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected [net] first, found no section"),
        (b"[convolutional]\n", "a.cfg:1: expected [net] first, found ['convolutional']"),
        (b"width=1\n[net]\n", "a.cfg:1: expected [net] first, found 'width=1'"),
        (b"[net]\nwidth=1\n[yolo] # last\n", "a.cfg:3: expected [section] and nothing after it"),
        (
            b"[net]\nwidth\nheight\nheight=\n[net]\nheight=1\nwi dth=2\nwidth\n[net]\n height\nheight = 2\n",
            "a.cfg:11: expected 'height' once, found it without a value in line 10, which Darknet takes",
        ),
        (b"[net]\nwi\0dth=1\n", "a.cfg:2: expected text, found a NUL byte"),
    ],
)
def test_errors_locate(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        cfg_file.parse(data, "a.cfg")
    assert message in str(caught.value)
