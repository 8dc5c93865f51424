"""OpenCV 5 on `.onnx` files, in a Python of its own, as one process can't hold two OpenCVs.

`make opencv5` sets one up in .opencv5/; $YOLOPRUNE_OPENCV5 names another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
VARIABLE = "YOLOPRUNE_OPENCV5"
_OWN = Path(__file__).resolve().parents[1] / ".opencv5" / "bin" / "python"


def find() -> str | None:
    """The Python that has it."""
    return os.environ.get(VARIABLE) or (str(_OWN) if _OWN.exists() else None)


def available() -> str | None:
    """None, or why it cannot be used here."""
    python = find()
    if python is None:
        return f"no OpenCV 5: `make opencv5` installs it, or ${VARIABLE} names a Python that has it"
    code = "import cv2; assert cv2.__version__.split('.')[0] >= '5', cv2.__version__"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, env=_environment())
    return None if done.returncode == 0 else f"{python}: {done.stderr.strip().splitlines()[-1]}"


def outputs(files: Sequence[Path], inputs: Sequence[Floats]) -> list[Mapping[str, Floats] | str]:
    """For each file what it gives for its input [1, C, H, W], by name; or what OpenCV says against it."""
    with tempfile.TemporaryDirectory(prefix="opencv5-") as name:
        folder = Path(name)
        for number, each in enumerate(inputs):
            np.save(folder / f"{number}.npy", each)
        job = json.dumps([name, *map(str, files)])
        command = [str(find()), __file__]
        subprocess.run(command, input=job, text=True, check=True, env=_environment(), capture_output=True)
        answers = json.loads((folder / "answers.json").read_text())
        return [
            answer if isinstance(answer, str) else {name: np.load(folder / file) for name, file in answer.items()}
            for answer in answers
        ]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _serve() -> None:
    import cv2

    folder, *files = json.loads(sys.stdin.read())
    dnn: Any = cv2.dnn
    answers: list[object] = []
    for number, file in enumerate(files):
        try:
            net = dnn.readNetFromONNX(file)
            names = net.getUnconnectedOutLayersNames()
            net.setInput(np.load(f"{folder}/{number}.npy"))
            found = dict(zip(names, net.forward(names), strict=True))
        except cv2.error as error:
            answers.append(" ".join(str(error).split()))
            continue
        for at, array in enumerate(found.values()):
            np.save(f"{folder}/{number}-{at}.npy", array)
        answers.append({name: f"{number}-{at}.npy" for at, name in enumerate(found)})
    Path(folder, "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    _serve()
