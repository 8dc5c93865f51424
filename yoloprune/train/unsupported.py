"""What a cfg asks of training and does not get."""

from __future__ import annotations

from yoloprune.darknet.cfg import Entry
from yoloprune.darknet.model import Graph

_NEUTRAL = {
    "adversarial_lr": "0",
    "assisted_excitation": "0",
    "attention": "0",
    "badlabels_rejection_percentage": "0",
    "center": "0",
    "classes_multipliers": "",
    "clip": "0",
    "contrastive": "0",
    "counters_per_class": "",
    "cutmix": "0",
    "delta_normalizer": "1",
    "dynamic_minibatch": "0",
    "equidistant_point": "0",
    "grad_centr": "0",
    "map": "",
    "notruth": "0",
    "num_sigmas_reject_badlabels": "0",
    "onlyforward": "0",
    "random": "0",
    "seq_scales": "",
    "sequential_subdivisions": "1",
    "smooth": "0",
    "time_steps": "1",
    "track": "0",
    "try_fix_nan": "0",
    "weights_reject_freq": "0",
}
"""Keys that change training in Darknet and are not read here -> the value that means nothing."""
_OF_DETECTORS = ("mosaic", "mixup", "blur", "gaussian_noise")
"""Keys of [net] that are read, but do nothing for classifiers here."""


def unsupported(graph: Graph) -> list[str]:
    """A line for each thing that Darknet would do in training and `train` does not."""
    lines = [_line(graph, entry) for entry in graph.unused if entry.value != _NEUTRAL.get(entry.key, entry.value)]
    if not graph.detection_heads:
        entries = [graph.cfg.sections[0].get(key) for key in _OF_DETECTORS if getattr(graph.net, key)]
        lines += [_line(graph, entry) for entry in entries if entry is not None]
    return lines


def _line(graph: Graph, entry: Entry) -> str:
    return f"{graph.cfg.file}:{entry.line}: {entry.key}={entry.value} is not supported in training"
