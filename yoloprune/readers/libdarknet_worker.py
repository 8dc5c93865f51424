"""The process that holds libdarknet.so; see `libdarknet`, which starts it.

Signatures are those of pjreddie's darknet.h. A network is an opaque pointer: its struct is never touched.
"""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from yoloprune.readers.base import Floats
from yoloprune.readers.board import processor_seconds
from yoloprune.readers.process import (
    Answer,
    Arrays,
    RefusalError,
    last_section_seconds,
    race,
    serve,
)

_FLOATS = ctypes.POINTER(ctypes.c_float)
_OWN_NAMES_FIRST: Final = ctypes.DEFAULT_MODE | getattr(os, "RTLD_DEEPBIND", 0)
"""Otherwise Darknet's error() is glibc's function of that name, which says something else and may go on."""


class _Image(ctypes.Structure):
    """`image` of darknet.h, passed by value."""

    _fields_ = (("w", ctypes.c_int), ("h", ctypes.c_int), ("c", ctypes.c_int), ("data", _FLOATS))


class Network:
    """One loaded network. A file that Darknet doesn't like ends the process here."""

    def __init__(self, library: str, cfg: str, weights: str | None) -> None:
        self._library = lib = _declared(library)
        for file in filter(None, (cfg, weights)):
            try:
                Path(file).open("rb").close()
            except OSError as error:
                raise RefusalError(f"{file}: {error.strerror}") from error
        self._layers = _layer_types(cfg)
        self._net = lib.load_network(cfg.encode(), None if weights is None else weights.encode(), 0)
        lib.set_batch_network(self._net, 1)

    @property
    def inputs(self) -> int:
        """Values that the net takes."""
        return int(self._library.network_inputs(self._net))

    def predict(self, image: Floats) -> None:
        """Forward pass of one image [C, H, W]; the outputs stay in the layers."""
        if image.size != self.inputs:  # Darknet would read past the end
            raise RefusalError(
                f"input {'x'.join(map(str, image.shape))} has {image.size} values, the net takes {self.inputs}"
            )
        flat = np.ascontiguousarray(image, np.float32)
        self._library.network_predict(self._net, flat.ctypes.data_as(_FLOATS))

    def output(self, layer: int) -> Floats | None:
        """A copy of a layer's output [C, H, W], or None where Darknet gives none."""
        if not 0 <= layer < len(self._layers):
            raise RefusalError(f"there is no layer {layer}, the cfg has {len(self._layers)}")
        if self._layers[layer] == "cost":  # passes on what it reads, and keeps its loss
            return self.output(layer - 1)
        image = self._library.get_network_image_layer(self._net, layer)
        if image.data:
            shape = (image.c, image.h, image.w)
            return np.ctypeslib.as_array(image.data, shape).copy()
        if layer == self._last():
            size = self._library.network_outputs(self._net)
            return np.ctypeslib.as_array(self._library.network_output(self._net), (size, 1, 1)).copy()
        return None

    def outputs(self, layers: list[int] | None) -> dict[int, Floats]:
        """Outputs of the layers asked for, or of all that have one."""
        wanted = range(len(self._layers)) if layers is None else layers
        found = {layer: self.output(layer) for layer in wanted}
        for layer, output in found.items():
            if output is None and layers is not None:
                raise RefusalError(f"layer {layer} [{self._layers[layer]}] keeps no output")
        return {layer: output for layer, output in found.items() if output is not None}

    def save(self, path: str) -> None:
        """save_weights."""
        self._library.save_weights(self._net, path.encode())

    def free(self) -> None:
        """free_network; nothing else may be asked after."""
        self._library.free_network(self._net)

    def _last(self) -> int:
        """Index of the layer whose output is the net's: the last that is no [cost] (network.c network_output)."""
        return max((index for index, name in enumerate(self._layers) if name != "cost"), default=-1)


def answer(job: dict[str, Any], arrays: Arrays) -> Answer:
    """Do one job: load, resave, outputs, race or layer_seconds."""
    library = job["library"]
    match job["do"]:
        case "race":
            return race(job, arrays, lambda cfg, weights, image, _: _ready(Network(library, cfg, weights), image))
        case "layer_seconds":
            return Answer(last_section_seconds(job["cfgs"], lambda text: _timed_text(library, text)))
    network = Network(library, job["cfg"], job["weights"])
    match job["do"]:
        case "load":
            return Answer()
        case "resave":
            network.save(job["out"])
            return Answer()
        case "outputs":
            return Answer(arrays=_stacked(network, arrays["inputs"], job["layers"]))
        case unknown:
            raise ValueError(unknown)


def _stacked(network: Network, inputs: Floats, layers: list[int] | None) -> dict[str, Floats]:
    images = []
    for image in inputs:
        network.predict(image)
        images.append(network.outputs(layers))
    return {str(layer): np.stack([image[layer] for image in images]) for layer in images[0]}


def _ready(network: Network, image: Floats) -> Callable[[], object]:
    return lambda: network.predict(image)


def _timed_text(library: str, text: str) -> Callable[[], float]:
    with tempfile.NamedTemporaryFile("w", suffix=".cfg", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        network = Network(library, file.name, None)
    image = np.random.default_rng(0).random((1, network.inputs), np.float32)
    return processor_seconds(_ready(network, image))


def _layer_types(cfg: str) -> list[str]:
    """Names of the sections after the first; lines end and blanks go where Darknet has it (utils.c fgetl, strip)."""
    text = Path(cfg).read_bytes().decode("utf-8", "surrogateescape")
    lines = (re.sub("[ \\t]", "", line) for line in text.split("\n"))
    return [line.strip("[]") for line in lines if line.startswith("[")][1:]


def _declared(path: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(path, _OWN_NAMES_FIRST)
    except OSError as error:
        raise RefusalError(f"{path}: {error}") from error
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "load_network": (pointer, [text, text, number]),
        "set_batch_network": (None, [pointer, number]),
        "network_inputs": (number, [pointer]),
        "network_outputs": (number, [pointer]),
        "network_output": (_FLOATS, [pointer]),
        "network_predict": (_FLOATS, [pointer, _FLOATS]),
        "get_network_image_layer": (_Image, [pointer, number]),
        "save_weights": (None, [pointer, text]),
        "free_network": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        if not hasattr(library, name):  # AlexeyAB's library passes whole structs in places, and lacks some of these
            raise RefusalError(f"{path}: expected pjreddie's libdarknet, found one without {name}()")
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


if __name__ == "__main__":
    serve(answer)
