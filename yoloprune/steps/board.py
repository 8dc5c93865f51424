"""`bench --emit`: a folder that times networks, and the layers of the first, on a machine without yoloprune."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any, Final

import numpy as np

from yoloprune.artefacts import VERSION, atomic_path
from yoloprune.darknet.cfg import dump
from yoloprune.darknet.model import Graph
from yoloprune.errors import InputError
from yoloprune.prune.channel_units import ChannelUnits
from yoloprune.prune.latency import all_networks
from yoloprune.readers.board import HEADER
from yoloprune.readers.ncnn_convert import Converted, convert
from yoloprune.readers.process import RefusalError, without_last
from yoloprune.steps.milliseconds import Network, networks_of

_SCRIPTS: Final = {"time_here.py": "board.py", "darknet.sh": "darknet.sh"}
"""In the folder: what they are here."""
_README: Final = """\
Times of networks on this machine, which needs no yoloprune.

    python3 time_here.py        OpenCV 4 and ncnn, whichever Python has: needs Python 3.8, NumPy, and
                                opencv-python (4) or ncnn. Writes bench.json and timings.json here.
    sh darknet.sh [PROGRAM]     Darknet, pjreddie's or AlexeyAB's; PROGRAM is its path.

bench.json: milliseconds of each network, on one thread (time of the processor) and on all (by the clock): the median,
and between which four fifths of the times lie.
timings.json: seconds of single layers of {first}. Where the job on that network is,

    yoloprune prune --objective latency --timings timings.json --ratio 0.5

prunes for this machine.

networks/ has the files: .cfg and .weights for Darknet and OpenCV, .param and .bin for ncnn, converted with Darknet's
windows of [maxpool], which ncnn's own converter has otherwise.
{networks}
"""


@dataclass(frozen=True)
class Emitted:
    """What was written."""

    folder: Path
    networks: int
    layers: int
    """Single layers that are timed there."""
    not_in_ncnn: Mapping[str, str]
    """Networks that ncnn's converter refuses, and why."""


def emit(files: Sequence[Path], out: Path, *, dialect: str = "alexeyab", force: bool = False) -> Emitted:
    """Write networks (cfg, weights, cfg, weights ...), the layers of the first, and what times both to the folder.

    InputError as `bench`, and where the folder has something in it, unless `force`: then what it has goes if it is such
    a folder.
    """
    networks = networks_of(files, dialect)
    _make_way(out, force=force)
    (out / "networks").mkdir(parents=True)
    refused: dict[str, str] = {}
    entries = [_network(each, number, out, refused) for number, each in enumerate(networks)]
    graph = networks[0].graph
    layers = [_layer(key, each) for key, each in all_networks(graph, ChannelUnits.of(graph).channels).items()]
    _write(out / "job.json", json.dumps({"version": VERSION, "networks": entries, "layers": layers}))
    for name, source in _SCRIPTS.items():
        _write(out / name, resources("yoloprune.readers").joinpath(source).read_text(encoding="utf-8"))
    listed = "\n".join(f"{each['cfg']}  {each['file']}" for each in entries)
    _write(out / "README", _README.format(first=networks[0].name, networks=listed))
    return Emitted(out, len(entries), len(layers), refused)


def _make_way(out: Path, *, force: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise InputError("exists already; --force replaces it", file=out)
    if not (out / "job.json").is_file():
        raise InputError("has something else in it than bench --emit writes; expected another folder", file=out)
    shutil.rmtree(out)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _network(network: Network, number: int, out: Path, refused: dict[str, str]) -> dict[str, Any]:
    """Its files in the folder, and what a script has to know; why ncnn can't have it goes to `refused`."""
    stem = f"networks/{number}-{re.sub(r'[^A-Za-z0-9.-]', '_', network.cfg.stem)}"
    cfg, weights = network.cfg.read_bytes(), network.weights.read_bytes()
    contents = {"cfg": cfg, "weights": weights}
    entry: dict[str, Any] = {"file": network.name, "input": list(network.graph.net.input)}
    try:
        converted = convert(cfg, weights, own_windows=False)
        contents |= {"param": converted.param.encode(), "bin": converted.model}
        entry["ends"] = list(converted.ends)
    except RefusalError as reason:
        refused[network.name] = str(reason)
    for suffix, content in contents.items():
        entry[suffix] = f"{stem}.{suffix}"
        with atomic_path(out / entry[suffix]) as temporary:
            temporary.write_bytes(content)
    return entry


def _layer(key: str, graph: Graph) -> dict[str, Any]:
    text = dump(graph.cfg).decode("utf-8", "surrogateescape")
    entry: dict[str, Any] = {"key": key, "cfg": text, "floats": graph.parameters}
    shorter = without_last(text)
    weights = HEADER + np.zeros(graph.parameters, np.float32).tobytes()
    with suppress(RefusalError):  # ncnn isn't timed, then
        entry["ncnn"] = [
            each and _in_ncnn(convert(_bytes(each), weights, own_windows=False)) for each in (text, shorter)
        ]
    return entry


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _in_ncnn(converted: Converted) -> dict[str, Any]:
    return {
        "param": converted.param,
        "bytes": len(converted.model),
        "ends": list(converted.ends),
        "input": list(converted.input),
    }
