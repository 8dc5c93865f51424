"""Darknet's losses, found by the head's class."""

from yoloprune.train.losses import classes, yolo
from yoloprune.train.losses.base import LOSSES, Loss, find_loss, inject

__all__ = ["LOSSES", "Loss", "classes", "find_loss", "inject", "yolo"]
