"""Times networks, and layers one by one, where yoloprune isn't: `bench --emit` copies this file into its folder.

    python3 time_here.py [--reader opencv|ncnn] [--rounds 30]

Needs Python 3.8 or newer and NumPy, and OpenCV 4 or ncnn's Python package. Writes bench.json and timings.json beside
itself. yoloprune's own workers time by the same functions, so this file imports nothing of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LAYER_ROUNDS = 25
"""How often a layer is timed."""
AT_ONCE = 16
"""Layers that are timed in turns."""
HEADER = np.array([0, 2, 5, 0, 0], np.int32).tobytes()
"""Of a .weights file."""


def in_turns(runs: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """What each of `runs` measures, `rounds` times after one that is not counted [n][rounds].

    They take turns, so what else the machine does meets all alike.
    """
    for run in runs:
        run()
    found = [[run() for run in runs] for _ in range(rounds)]
    return [list(each) for each in zip(*found)]  # noqa: B905 - strict= came with Python 3.10


def processor_seconds(run: Callable[[], object]) -> Callable[[], float]:
    """What runs and says how many seconds of the processor that took."""
    return _timed(run, time.process_time)


def seconds_on(threads: int, run: Callable[[], object]) -> Callable[[], float]:
    """What runs and says how long that took: of the processor on one thread, by the clock on more."""
    return _timed(run, time.process_time if threads == 1 else time.perf_counter)


def _timed(run: Callable[[], object], clock: Callable[[], float]) -> Callable[[], float]:
    def timed() -> float:
        start = clock()
        run()
        return clock() - start

    return timed


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds: the median, and between which four fifths of the times lie."""
    low, median, high = (1000 * float(each) for each in np.quantile(np.asarray(seconds), (0.1, 0.5, 0.9)))
    return {"median": median, "low": low, "high": high}


def opencv_run(cfg: bytes, weights: bytes, image: Any, threads: int = 1) -> Callable[[], object]:
    """What runs a network in OpenCV on an image [1, C, H, W], after reading its files."""
    import cv2

    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromDarknet(np.frombuffer(cfg, np.uint8), np.frombuffer(weights, np.uint8))
    last = net.getUnconnectedOutLayersNames()

    def run() -> None:
        net.setInput(image)
        net.forward(last)

    return run


def opencv_section_run(text: str, floats: int) -> Callable[[], float]:
    """What runs a net with random weights and says how many seconds its last section took, by OpenCV's clock.

    The map that is handed over is copied, which takes longer than small layers do, and is not in it. What OpenCV fuses
    into the layer before it takes no time of its own.
    """
    import cv2

    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    weights = np.frombuffer(HEADER + rng.random(floats, np.float32).tobytes(), np.uint8)
    net = cv2.dnn.readNetFromDarknet(np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8), weights)
    values = dict(line.split("=", 1) for line in reversed(text.splitlines()) if "=" in line)
    net.setInput(rng.random((1, *(int(values[key]) for key in ("channels", "height", "width"))), np.float32))
    names, last = net.getLayerNames(), net.getUnconnectedOutLayersNames()
    own = [opencv_is_of(name, text.count("[") - 2) for name in names]

    def run() -> float:
        net.forward(last)
        return float(np.array(net.getPerfProfile()[1]).ravel()[own].sum()) / cv2.getTickFrequency()

    return run


OPENCV_ACTIVATIONS = frozenset({"relu", "leaky", "swish", "mish", "logistic", "tanh"})
"""They carry the index after their layer's (darknet_io.cpp)."""


def opencv_is_of(name: str, section: int) -> bool:
    """Whether OpenCV's layer of that name is of that section of the cfg, or of a later one."""
    kind, _, index = name.rpartition("_")
    return index.isdigit() and kind not in OPENCV_ACTIVATIONS and int(index) >= section


def ncnn_loaded(param: str, model: bytes, threads: int = 1, exact: bool = False) -> Any:
    """ncnn's net. exact: float32 and no kernel that transforms what it multiplies. OSError where ncnn refuses it."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    if exact:
        for option in ("winograd_convolution", "fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(net.opt, "use_" + option, False)
    with tempfile.TemporaryDirectory(prefix="yoloprune-ncnn-") as name:
        files = Path(name) / "net.param", Path(name) / "net.bin"
        files[0].write_text(param, encoding="utf-8")
        files[1].write_bytes(model)
        if net.load_param(str(files[0])) or net.load_model(str(files[1])):
            raise OSError("ncnn can't load the converted network")
    return net


def ncnn_values(net: Any, image: Any, blobs: Sequence[str], light: bool = True) -> list[Any]:
    """Values of blobs for an image [C, H, W]. light: what is read is let go, as ncnn does by itself."""
    import ncnn

    extractor = net.create_extractor()
    extractor.set_light_mode(light)
    extractor.input("data", ncnn.Mat(np.ascontiguousarray(image)).clone())
    found = []
    for blob in blobs:
        status, value = extractor.extract(blob)
        if status:
            raise OSError(f"ncnn can't compute {blob}: status {status}")
        found.append(np.array(value, np.float32))
    return found


def less_without_last(least: Sequence[float], alone: Sequence[bool]) -> list[float]:
    """The time of each net's last section: of the net, less that of the net without it where others stand before.

    least: of all nets, then of those without their last section, where there are such.
    """
    before = iter(least[len(alone) :])
    return [whole if only else max(whole - next(before), 0.0) for whole, only in zip(least, alone)]  # noqa: B905


class _OpenCV:
    """Nets are Darknet's files; layers their cfg."""

    module = "cv2"

    @staticmethod
    def network(folder: Path, net: Mapping[str, Any], image: Any, threads: int) -> Callable[[], object]:
        cfg, weights = (folder / net[key] for key in ("cfg", "weights"))
        return opencv_run(cfg.read_bytes(), weights.read_bytes(), image[None], threads)

    @staticmethod
    def layers(layers: Sequence[Mapping[str, Any]]) -> list[float]:
        runs = [opencv_section_run(each["cfg"], each["floats"]) for each in layers]
        return [min(each) for each in in_turns(runs, LAYER_ROUNDS)]


class _Ncnn:
    """Nets and layers are converted; weights of layers are 0, which takes as long."""

    module = "ncnn"

    @staticmethod
    def network(folder: Path, net: Mapping[str, Any], image: Any, threads: int) -> Callable[[], object]:
        param, model = (folder / net[key] for key in ("param", "bin"))
        loaded = ncnn_loaded(param.read_text(encoding="utf-8"), model.read_bytes(), threads)
        return lambda: ncnn_values(loaded, image, net["ends"])

    @staticmethod
    def layers(layers: Sequence[Mapping[str, Any]]) -> list[float]:
        nets = [each["ncnn"][0] for each in layers] + [each["ncnn"][1] for each in layers if each["ncnn"][1]]
        least = [min(each) for each in in_turns([_ncnn_layer(each) for each in nets], LAYER_ROUNDS)]
        return less_without_last(least, [each["ncnn"][1] is None for each in layers])


def _ncnn_layer(net: Mapping[str, Any]) -> Callable[[], float]:
    loaded, image = ncnn_loaded(net["param"], bytes(net["bytes"])), np.zeros(net["input"], np.float32)
    return processor_seconds(lambda: ncnn_values(loaded, image, net["ends"]))


READERS: dict[str, Any] = {"opencv": _OpenCV, "ncnn": _Ncnn}


def main() -> None:
    """Time what lies beside this file, and write it there."""
    parser = argparse.ArgumentParser(description="Times the networks and layers in this folder.")
    parser.add_argument("--reader", choices=sorted(READERS), action="append", help="left out, all that are installed")
    parser.add_argument("--rounds", type=int, default=30, help="how often each network runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the second time, by the clock")
    args = parser.parse_args()
    folder = Path(__file__).resolve().parent
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    results: dict[str, Any] = {"ms": {}, "ms_all_threads": {}, "threads": args.threads}
    timings: dict[str, dict[str, float]] = {}
    for name in args.reader or READERS:
        try:
            __import__(READERS[name].module)
        except ImportError as error:
            print(f"{name}: left out ({error})", file=sys.stderr)
            continue
        print(f"{name}: {len(job['networks'])} networks, {len(job['layers'])} layers", file=sys.stderr)
        for key, threads in (("ms", 1), ("ms_all_threads", args.threads)):
            nets = _for(name, job["networks"])
            for file, each in _networks(folder, nets, READERS[name], args.rounds, threads).items():
                results[key].setdefault(file, {})[name] = each
                print(
                    f"{file} {name}, {threads} threads: {each['median']:.2f} ms ({each['low']:.2f}-{each['high']:.2f})"
                )
        timings[name + ", one thread"] = _layers(_for(name, job["layers"]), READERS[name])
    head = {"yoloprune": "latency", "version": job["version"]}
    for file, value in (("bench.json", results), ("timings.json", {**head, "readers": timings})):
        (folder / file).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        print(folder / file)


def _for(reader: str, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that a reader can have."""
    return [each for each in entries if reader != "ncnn" or "param" in each or "ncnn" in each]


def _networks(
    folder: Path, nets: Sequence[Mapping[str, Any]], reader: Any, rounds: int, threads: int
) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    runs = [
        seconds_on(threads, reader.network(folder, net, rng.random(net["input"], np.float32), threads)) for net in nets
    ]
    return {net["file"]: spread(times) for net, times in zip(nets, in_turns(runs, rounds))}  # noqa: B905


def _layers(layers: Sequence[Mapping[str, Any]], reader: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for start in range(0, len(layers), AT_ONCE):
        some = layers[start : start + AT_ONCE]
        found.update(zip([each["key"] for each in some], reader.layers(some)))  # noqa: B905
        print(f"layers: {min(start + AT_ONCE, len(layers))} of {len(layers)}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
