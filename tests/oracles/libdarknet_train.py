"""Stock Darknet trains: `train_network` and `get_current_rate` by ctypes.

Run as a program: FOLDER with net.cfg, job.json and optionally start.weights and data.npz (x [N, C*H*W], y [N, truths]).
Writes end.weights and answer.json. Darknet exits on bad input, hence a process of its own (see `train`, `rates`).
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Matrix(Structure):
    _fields_ = (("rows", c_int), ("cols", c_int), ("vals", POINTER(POINTER(c_float))))


class Data(Structure):
    _fields_ = (
        ("w", c_int),
        ("h", c_int),
        ("X", Matrix),
        ("y", Matrix),
        ("shallow", c_int),
        ("num_boxes", c_void_p),
        ("boxes", c_void_p),
    )


def train(library: Path, folder: Path, x: Floats, y: Floats) -> float:
    """Train on all rows once, from start.weights to end.weights in `folder`; the loss that Darknet reports."""
    np.savez(folder / "data.npz", x=x.reshape(len(x), -1), y=y.reshape(len(y), -1))
    return float(_run(library, folder, {"do": "train"}))


def rates(library: Path, folder: Path, seen: list[int]) -> list[float]:
    """get_current_rate of net.cfg at each `seen`."""
    return list(_run(library, folder, {"do": "rates", "seen": seen}))


def _run(library: Path, folder: Path, job: dict[str, object]) -> object:
    (folder / "job.json").write_text(json.dumps({"library": str(library), **job}))
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "answer.json").read_text())


def _matrix(array: Floats) -> Matrix:
    rows = (POINTER(c_float) * len(array))(*(row.ctypes.data_as(POINTER(c_float)) for row in array))
    return Matrix(array.shape[0], array.shape[1], ctypes.cast(rows, POINTER(POINTER(c_float))))


def _main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    library = ctypes.CDLL(job["library"])
    library.load_network.restype, library.load_network.argtypes = c_void_p, [c_char_p, c_char_p, c_int]
    library.train_network.restype, library.train_network.argtypes = c_float, [c_void_p, Data]
    library.get_current_rate.restype, library.get_current_rate.argtypes = c_float, [c_void_p]
    library.get_current_batch.restype, library.get_current_batch.argtypes = c_size_t, [c_void_p]
    library.load_weights.argtypes = library.save_weights.argtypes = [c_void_p, c_char_p]
    start = folder / "start.weights"
    net = library.load_network(str(folder / "net.cfg").encode(), str(start).encode() if start.exists() else None, 0)
    if job["do"] == "train":
        with np.load(folder / "data.npz") as data:
            x, y = (np.ascontiguousarray(data[name], np.float32) for name in ("x", "y"))
        answer: object = library.train_network(net, Data(0, 0, _matrix(x), _matrix(y), 0, None, None))
        library.save_weights(net, str(folder / "end.weights").encode())
    else:
        found = []
        for seen in job["seen"]:
            (folder / "seen.weights").write_bytes(
                np.array([0, 2, 0], "<i4").tobytes() + np.array([seen], "<u8").tobytes()
            )
            library.load_weights(net, str(folder / "seen.weights").encode())
            found.append(library.get_current_rate(net))
        answer = found
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
