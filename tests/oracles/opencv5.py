"""OpenCV 5 on `.onnx` files, in a Python of its own, as one process can't hold two OpenCVs; $YOLOPRUNE_OPENCV5 is it.

python -m venv cv5; cv5/bin/pip install --no-deps 'opencv-python>=5' numpy; export YOLOPRUNE_OPENCV5=$PWD/cv5/bin/python
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

VARIABLE = "YOLOPRUNE_OPENCV5"


def available() -> str | None:
    """None, or why it cannot be used here."""
    named = os.environ.get(VARIABLE)
    if not named:
        return f"no OpenCV 5: ${VARIABLE} names no Python that has it"
    code = "import cv2; assert cv2.__version__.split('.')[0] >= '5', cv2.__version__"
    done = subprocess.run([named, "-c", code], capture_output=True, text=True, check=False, env=_environment())
    return None if done.returncode == 0 else f"${VARIABLE}: {done.stderr.strip().splitlines()[-1]}"


def outputs(files: Sequence[Path], inputs: Sequence[np.ndarray], folder: Path) -> list[Mapping[str, np.ndarray] | str]:
    """For each file what it gives for its input [1, C, H, W], by name; or what OpenCV says against it."""
    for number, each in enumerate(inputs):
        np.save(folder / f"{number}.npy", each)
    job = json.dumps([str(folder), *map(str, files)])
    command = [os.environ[VARIABLE], __file__]
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
    answers: list[object] = []
    for number, file in enumerate(files):
        try:
            net = cv2.dnn.readNetFromONNX(file)
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
