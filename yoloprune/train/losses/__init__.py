"""Darknet's losses, found by the head's class."""

from yoloprune.train.losses import classes, region, yolo
from yoloprune.train.losses.base import LOSSES, Loss, find_loss, inject, passed

__all__ = ["LOSSES", "Loss", "classes", "find_loss", "inject", "passed", "region", "yolo"]
