"""`check` says of the stock cfgs what their real readers did, and do."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from yoloprune.compat import PROFILES, Finding, check
from yoloprune.darknet import cfg as cfg_file
from yoloprune.readers import libdarknet, opencv

TABLE = Path(__file__).with_name("which_cfg_loads.tsv")
RUNS = [line.split("\t") for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]
FAILS_WHEN_RUN: Mapping[str, str] = {
    **dict.fromkeys(
        [
            "resnet18",
            "resnet34",
            "resnet50",
            "resnet101",
            "resnet152",
            "resnext50",
            "resnext101-32x4d",
            "resnext152-32x4d",
        ],
        "adds maps of two sizes",
    ),
    "vgg-16": "without noadjust=1",
    "yolo9000": "a tree of classes",
}
"""Cfgs that OpenCV loads, as the table says, but can't run, as `check` does: what it says."""


def one_picture(path: Path) -> cfg_file.Cfg:
    """The cfg with a batch of 1, as the runs had it."""
    return cfg_file.edit(cfg_file.read(path, lenient=True), {0: {"batch": "1", "subdivisions": "1"}})


def found_in(cfg: cfg_file.Cfg) -> list[Finding]:
    return check(cfg, list(PROFILES.values()))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run[0]}-{run[1]}")
def test_check_says_what_the_readers_did(stock_cfg: Callable[[str], Path], run: list[str]) -> None:
    folder, name, *outcomes = run
    findings = found_in(one_picture(stock_cfg(f"{folder}/{name}")))
    for reader, outcome in zip(PROFILES, outcomes, strict=True):
        own = [finding for finding in findings if finding.reader == reader]
        breaks = [finding.message for finding in own if finding.severity == "break"]
        differs = [finding.message for finding in own if finding.severity == "differs"]
        if reader == "opencv" and name in FAILS_WHEN_RUN:
            assert outcome == "loads"
            assert breaks
            assert all(message.startswith(FAILS_WHEN_RUN[name]) for message in breaks)
        else:
            assert bool(breaks) == (outcome == "fails"), (reader, outcome, breaks)
        if outcome == "ReLU":
            assert any(message.startswith("ReLU instead of") for message in differs), (reader, differs)
        if outcome == "size":
            assert differs, reader
    assert all(finding.line is not None for finding in findings)


SAMPLE = [
    "yolov2-tiny-voc", "yolov3-tiny", "yolov4-tiny", "yolov4-tiny_contrastive", "efficientnet_b0", "resnet18", "cifar",
    "rnn", "gru", "yolov7-tiny",
]  # fmt: skip
"""Small ones of every kind."""


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.usefixtures("libdarknet")
def test_real_readers_do_what_check_says(stock_cfg: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    cfg, weights = tmp_path / "a.cfg", tmp_path / "a.weights"
    cfg_file.write(cfg, one_picture(stock_cfg(name)))
    weights.write_bytes(struct.pack("<iiiQ", 0, 2, 5, 0) + bytes(1 << 20))  # both take what is missing for random
    findings = found_in(cfg_file.read(cfg, lenient=True))
    for reader, real in (("pjreddie", libdarknet), ("opencv", opencv)):
        breaks = [each.message for each in findings if each.reader == reader and each.severity == "break"]
        reason = real.loads(cfg, weights)
        assert bool(breaks) == bool(reason), (reader, breaks, reason)
