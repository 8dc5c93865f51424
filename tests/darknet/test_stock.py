"""Every cfg of Debian's darknet and of AlexeyAB's: text, number of weights, bytes of a payload, and a run.

Darknet draws every weight it makes room for, which for all of them together takes minutes. So what has more than WHOLE
weights is compared with a quarter of its filters, which changes no other key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import CFGS
from tests.helpers import random_model
from tests.oracles import libdarknet_many
from yoloprune.darknet import cfg as cfg_file
from yoloprune.darknet import weights as weights_file
from yoloprune.darknet.cfg import Cfg, Section
from yoloprune.darknet.dialect import ALEXEYAB, PJREDDIE, Dialect
from yoloprune.darknet.model import Graph, build_graph
from yoloprune.darknet.network import build
from yoloprune.errors import InputError

WHOLE = int(os.environ.get("YOLOPRUNE_WHOLE_NETS", 10_000_000))
DEBIAN = CFGS["debian"]
OTHERS = {
    "is ignored by dialect pjreddie, which takes all channels": "yolov4-tiny-3l yolov4-tiny-custom yolov4-tiny "
    "yolov4-tiny_contrastive",
    "dilation, antialiasing, stride_x and stride_y are unknown": "resnet152_trident",
    "activation=mish expected one of": "csdarknet53-omega cspx-p7-mish-omega cspx-p7-mish cspx-p7-mish_hp "
    "yolov4-csp-s-mish yolov4-csp-x-mish yolov4-csp yolov4-custom yolov4-p5-frozen yolov4-p5 yolov4-p6 "
    "yolov4-sam-mish-csp-reorg-bfm yolov4 yolov4_new yolov4x-mish",
    "activation=swish expected one of": "efficientnet_b0 enet-coco yolov4-csp-swish yolov4-csp-x-swish-frozen "
    "yolov4-csp-x-swish yolov7 yolov7x",
    "activation=relu6 expected one of": "efficientnet-lite3",
    "unknown or unsupported in dialect pjreddie": "Gaussian_yolov3_BDD",
}
"""What Debian's library loads as another network, or not at all (reference, section 11) -> the cfgs, all AlexeyAB's."""
COUNTED_ONLY = {
    "crnn.train": "[crnn]",
    "yolov3-tiny_occlusion_track": "[crnn]",
}
"""Cfgs with a section that isn't run."""
BROKEN = {"alexeyab/cspx-p7-mish": "mask=16,17,18,19 expected anchors 0..15"}
"""Its last head names anchors past num=16: Darknet reads whatever lies behind them."""


@pytest.fixture(scope="module")
def cfgs(cfg_folders: list[Path]) -> dict[str, Cfg]:
    """By folder/name; AlexeyAB's only where `shared` is."""
    if DEBIAN not in cfg_folders:
        pytest.skip("Debian's darknet is not installed")
    found = {
        f"{folder.name}/{path.stem}": cfg_file.read(path)
        for folder in cfg_folders
        for path in sorted(folder.glob("*.cfg"))
    }
    assert len(found) == 45 + 87 * (len(cfg_folders) - 1)
    return found


@pytest.fixture(autouse=True)
def _in_darknets_folder(cfgs: dict[str, Cfg], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where data/9k.tree is."""
    monkeypatch.chdir(DEBIAN.parent)


def refusal(cfg: Cfg, dialect: Dialect) -> str | None:
    try:
        build_graph(cfg, dialect)
    except InputError as error:
        return str(error)
    return None


def test_pjreddie_refuses_what_its_darknet_takes_for_another_network(cfgs: dict[str, Cfg]) -> None:
    expected = {f"alexeyab/{name}": reason for reason, names in OTHERS.items() for name in names.split()}
    found = {name: reason for name, cfg in cfgs.items() if (reason := refusal(cfg, PJREDDIE))}
    assert set(found) == set(expected) & set(cfgs)
    for name, reason in found.items():
        assert expected[name] in reason, name


def single(cfg: Cfg, **values: int) -> Cfg:
    """One image at a time, and other values in [net]."""
    once = {"batch": 1, "subdivisions": 1, "time_steps": 1, **values}
    present = {key: str(value) for key, value in once.items() if key in values or cfg.sections[0].get(key)}
    return cfg_file.edit(cfg, {0: present})


def quartered(cfg: Cfg) -> Cfg:
    """A quarter of the filters and groups everywhere but before heads."""
    changes = {}
    for number, section in enumerate(cfg.sections[1:], 1):
        behind = cfg.sections[number + 1].name if number + 1 < len(cfg.sections) else ""
        if behind in ("yolo", "region", "Gaussian_yolo", "detection"):
            continue
        changed = {}
        for key in ("filters", "groups", "output"):
            value = number_of(section, key)
            if value > 1 and value % 4 == 0 and section.name not in ("route", "crnn"):
                changed[key] = str(value // 4)
        changes[number] = changed
    return cfg_file.edit(cfg, changes)


def number_of(section: Section, key: str) -> int:
    entry = section.get(key)
    return int(entry.value.split("#")[0]) if entry else 0


def unique(cfgs: dict[str, Cfg], dialect: Dialect) -> Iterator[tuple[str, Cfg]]:
    """Those that the dialect loads; of several with the same layers, the first."""
    seen = set()
    for name, cfg in cfgs.items():
        layers = tuple(
            (section.name, *((each.key, each.value) for each in section.entries)) for section in cfg.sections[1:]
        )
        if layers not in seen and refusal(cfg, dialect) is None:
            seen.add(layers)
            yield name, cfg


def test_number_of_weights_is_libdarknets(libdarknet: Path, cfgs: dict[str, Cfg], tmp_path: Path) -> None:
    graphs = {name: build_graph(single(cfg), PJREDDIE) for name, cfg in unique(cfgs, PJREDDIE)}
    graphs = {name: graph for name, graph in graphs.items() if graph.parameters <= WHOLE}
    assert len(graphs) >= 9
    files = [tmp_path / f"{number}.cfg" for number in range(len(graphs))]
    for file, graph in zip(files, graphs.values(), strict=True):
        cfg_file.write(file, graph.cfg)
    found = dict(zip(graphs, libdarknet_many.sizes(files), strict=True))
    assert found == {name: 20 + 4 * graph.parameters for name, graph in graphs.items()}


def test_payload_is_libdarknets_after_loading_and_saving(
    libdarknet: Path, cfgs: dict[str, Cfg], tmp_path: Path
) -> None:
    """So the number of weights is the same, and where each belongs."""
    nets = list(unique(cfgs, PJREDDIE))
    for first in range(0, len(nets), 12):
        some, files = nets[first : first + 12], []
        for number, (_, cfg) in enumerate(some):
            graph = build_graph(quartered(single(cfg)), PJREDDIE)
            paths = [tmp_path / f"{number}.{kind}" for kind in ("cfg", "weights", "again")]
            cfg_file.write(paths[0], graph.cfg, force=True)
            weights_file.write(paths[1], weights_file.initial(graph.layers, number), graph.layers, force=True)
            files.append((paths[0], paths[1], paths[2]))
        libdarknet_many.resave(files)
        for (name, _), (_, ours, theirs) in zip(some, files, strict=True):
            assert ours.read_bytes()[20:] == theirs.read_bytes()[20:], name


def shrunk(cfg: Cfg, dialect: Dialect) -> Graph:
    """For a small input, with a quarter of the filters; [crop] goes along."""
    if cfg.sections[0].get("width") is None:
        return build_graph(single(cfg), dialect)
    fitting = (each for each in (at_side(cfg, side) for side in (64, 96, 128)) if refusal(each, dialect) is None)
    return build_graph(next(fitting), dialect)


def at_side(cfg: Cfg, side: int) -> Cfg:
    small = quartered(single(cfg, width=side, height=side))
    crops = {
        number: {"crop_width": str(side - 8), "crop_height": str(side - 8)}
        for number, section in enumerate(small.sections)
        if section.name == "crop"
    }
    return cfg_file.edit(small, crops)


def test_each_runs_on_a_small_input(cfgs: dict[str, Cfg], one_thread: None) -> None:
    ran = refused = 0
    for name, cfg in cfgs.items():
        dialect = ALEXEYAB if refusal(cfg, ALEXEYAB) is None else PJREDDIE
        if name in BROKEN:
            assert BROKEN[name] in str(refusal(cfg, ALEXEYAB))
            refused += 1
            continue
        graph = shrunk(cfg, dialect)
        bits = "xnor" in name and dialect is ALEXEYAB
        reason = "xnor" if bits else COUNTED_ONLY.get(Path(name).name)
        if reason:
            refused += 1
            with pytest.raises(InputError, match=reason.replace("[", r"\[")):
                build(random_model(graph, 0))
            continue
        c, h, w = graph.net.input
        x = np.random.default_rng(1).random((2, c, h, w)).astype(np.float32)
        with torch.inference_mode():
            outputs = build(random_model(graph, 0))(torch.from_numpy(x))
        for index, output in outputs.items():
            assert output.shape == (2, *graph.layers[index].out), name
            assert output.isfinite().all(), name
        for head in graph.detection_heads:
            assert head.decode(outputs[head.index], 0.0).boxes.shape[1] == 4
        ran += 1
    assert ran == len(cfgs) - refused
    assert refused < 10
