"""What a cfg asks of training and does not get."""

from __future__ import annotations

from yoloprune.darknet.cfg import Entry
from yoloprune.darknet.model import Graph

_NEUTRAL = {
    "adam": "0",
    "adversarial_lr": "0",
    "assisted_excitation": "0",
    "attention": "0",
    "badlabels_rejection_percentage": "0",
    "blur": "0",
    "burnin_update": "0",
    "classes_multipliers": "",
    "contrastive": "0",
    "counters_per_class": "",
    "cutmix": "0",
    "dont_update": "0",
    "dynamic_minibatch": "0",
    "equidistant_point": "0",
    "gaussian_noise": "0",
    "grad_centr": "0",
    "label_smooth_eps": "0",
    "map": "",
    "mixup": "0",
    "mosaic": "0",
    "num_sigmas_reject_badlabels": "0",
    "onlyforward": "0",
    "sequential_subdivisions": "1",
    "stopbackward": "0",
    "time_steps": "1",
    "track": "0",
    "train_only_bn": "0",
}
"""Keys that change training in Darknet and are not read here -> the value that means nothing."""


def unsupported(graph: Graph) -> list[str]:
    """A line for each thing that Darknet would do in training and `train` does not."""
    lines = [_line(graph, entry) for entry in graph.unused if entry.value != _NEUTRAL.get(entry.key, entry.value)]
    for section in graph.cfg.sections[1:]:
        rate = section.get("learning_rate")
        if rate is not None:
            lines.append(_line(graph, rate))
    heads = [head for head in graph.detection_heads if getattr(getattr(head, "training", None), "random", 0)]
    if heads:
        lines.append(f"{heads[-1]}: random: multi-scale training is not supported, all images get {graph.net.input}")
    return lines


def _line(graph: Graph, entry: Entry) -> str:
    return f"{graph.cfg.file}:{entry.line}: {entry.key}={entry.value} is not supported in training"
