"""Darknet's losses, found by the head's class."""

from yoloprune.train.losses import classes, region, yolo
from yoloprune.train.losses.base import LOSSES, Loss, by_delta, find_loss, straight_through

__all__ = [
    "LOSSES",
    "Loss",
    "by_delta",
    "classes",
    "custom_gradient",
    "find_loss",
    "region",
    "straight_through",
    "yolo",
]
