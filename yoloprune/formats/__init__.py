"""Formats that a network leaves the house in, beside Darknet's own: each a codec, `write` and `read` side by side."""

from typing import Final

from yoloprune.formats import ypz
from yoloprune.formats.base import Codes, Files, Floats, Format, Unpacked

FORMATS: Final[dict[str, Format]] = {"ypz": ypz}
"""Every format by the suffix of its files."""

__all__ = ["FORMATS", "Codes", "Files", "Floats", "Format", "Unpacked"]
