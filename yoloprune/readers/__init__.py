"""Other programs that read Darknet's files, each run in a process of its own: stock Darknet and OpenCV."""

from typing import Final

from yoloprune.readers import libdarknet, opencv
from yoloprune.readers.base import Reader, ReaderError

READERS: Final[dict[str, Reader]] = {"darknet": libdarknet, "opencv": opencv}
"""Every reader by the name that reports use."""

__all__ = ["READERS", "Reader", "ReaderError"]
