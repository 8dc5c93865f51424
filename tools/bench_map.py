"""Time of `map` against OpenCV dnn doing the same work, in one run.

    python tools/bench_map.py CFG WEIGHTS --data F [--repeats 5]

Both decode the images, bring them to the network's size, run the network and end with boxes after plain NMS over a
probability of 0.005; ours also computes the accuracy. OpenCV: decode, blobFromImage, forward, NMSBoxesBatched, an image
at a time, as its samples do; its heads drop no box (thresh=0), like ours. The two take turns; printed are medians and
the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np

from yoloprune.darknet.cfg import dump, edit
from yoloprune.darknet.data import DataFile, Split, load_split, read_data
from yoloprune.darknet.dialect import ALEXEYAB
from yoloprune.darknet.model import Model, load
from yoloprune.detect.image import read_pixels
from yoloprune.detect.load import load_measure
from yoloprune.detect.measure import network_for_measuring


def main() -> None:
    """Take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cfg", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    model = load(args.cfg, args.weights, ALEXEYAB)
    data = read_data(args.data)
    split = load_split(data, "valid", ALEXEYAB, classes=model.graph.classes)
    # OpenCV's heads drop boxes of probabilities under 0.2 unless the cfg says otherwise, and then do less.
    unfiltered = edit(model.graph.cfg, {head.index + 1: {"thresh": "0"} for head in model.graph.detection_heads})
    net = cv2.dnn.readNetFromDarknet(np.frombuffer(dump(unfiltered), np.uint8), np.fromfile(args.weights, np.uint8))
    once(model, data, net, split)  # not counted
    pairs = [once(model, data, net, split) for _ in range(args.repeats)]
    ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    spread = ", ".join(f"{a / b:.2f}" for a, b in pairs)
    print(f"{len(split.images)} images: map {ours:.2f} s, OpenCV {theirs:.2f} s, ratio {ratio:.2f} ({spread})")


def once(model: Model, data: DataFile, net: cv2.dnn.Net, split: Split) -> tuple[float, float]:
    """Seconds of both, each from the files on."""
    start = time.perf_counter()
    measure = load_measure(model.graph, data, nms_kind="default")
    measure.accuracy(network_for_measuring(model))
    middle = time.perf_counter()
    with_opencv(net, split, (model.graph.net.input.w, model.graph.net.input.h))
    return middle - start, time.perf_counter() - middle


def with_opencv(net: cv2.dnn.Net, split: Split, size: tuple[int, int]) -> int:
    """Boxes found in all images."""
    names = net.getUnconnectedOutLayersNames()
    found = 0
    for path in split.images:
        blob = cv2.dnn.blobFromImage(read_pixels(path), 1 / 255, size, swapRB=True)
        net.setInput(blob)
        rows = np.concatenate(net.forward(names))
        cells, classes = np.nonzero(rows[:, 5:] > 0.005)
        boxes = rows[cells, :4].astype(np.float64)
        boxes[:, :2] -= boxes[:, 2:] / 2
        scores = rows[cells, 5 + classes]
        if len(cells):
            found += len(cv2.dnn.NMSBoxesBatched(boxes.tolist(), scores.tolist(), classes.tolist(), 0.005, 0.45))
    return found


if __name__ == "__main__":
    main()
