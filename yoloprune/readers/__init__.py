"""Other programs that run Darknet's files, each in a process of its own: stock Darknet, OpenCV, ncnn, onnxruntime."""

from typing import Final

from yoloprune.readers import libdarknet, ncnn, onnxruntime, opencv
from yoloprune.readers.base import Reader, ReaderError

READERS: Final[dict[str, Reader]] = {"darknet": libdarknet, "opencv": opencv, "ncnn": ncnn, "onnxruntime": onnxruntime}
"""Every reader by the name that reports use."""
STOCK: Final = frozenset({"darknet", "opencv"})
"""Those that read Darknet's files themselves."""

__all__ = ["READERS", "STOCK", "Reader", "ReaderError"]
