"""What a cfg asks of training and does not get."""

from __future__ import annotations

from yoloprune.darknet.cfg import Entry
from yoloprune.darknet.model import Graph

_OFF = (
    "adversarial_lr", "assisted_excitation", "attention", "badlabels_rejection_percentage", "center", "clip",
    "contrastive", "cutmix", "dynamic_minibatch", "equidistant_point", "grad_centr", "notruth",
    "num_sigmas_reject_badlabels", "onlyforward", "random", "smooth", "track", "try_fix_nan", "weights_reject_freq",
)  # fmt: skip
_NEUTRAL = dict.fromkeys(_OFF, "0") | {
    **dict.fromkeys(("classes_multipliers", "counters_per_class", "map", "seq_scales"), ""),
    **dict.fromkeys(("delta_normalizer", "sequential_subdivisions", "time_steps"), "1"),
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
