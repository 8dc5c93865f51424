"""A call into another process: the job as JSON, arrays as .npz, both in a temporary folder.

`call` is our side, `serve` the worker's. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yoloprune.readers.base import Floats, ReaderError
from yoloprune.readers.board import LAYER_ROUNDS, in_turns, less_without_last, seconds_on

Arrays = Mapping[str, NDArray[Any]]
_ROOT = Path(__file__).resolve().parents[2]
_EMPTY_ASSERT = re.compile(r"Assertion .0. failed")
_TABLE_HEAD = re.compile(r"layer\s+filters\s+size")


@dataclass(frozen=True)
class Answer:
    """What a worker found: a JSON value and arrays."""

    value: Any = None
    arrays: Arrays = field(default_factory=dict)


class RefusalError(Exception):
    """Raised in a worker: the job cannot be done, for the reason in its text."""


def call(worker: str, job: Mapping[str, Any], arrays: Mapping[str, Floats] | None = None) -> Answer:
    """Run the module `worker` on a job. ReaderError if it refuses, exits or is ended by a signal."""
    with tempfile.TemporaryDirectory(prefix="yoloprune-reader-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job))
        np.savez(folder / "input.npz", **dict(arrays or {}))  # type: ignore[arg-type]  # numpy types only allow_pickle
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            [sys.executable, "-m", worker, name],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(job.get("threads", 1))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode or not (folder / "answer.json").exists():
            raise ReaderError(_ending(done.returncode, done.stderr.decode("utf-8", "replace")))
        answer = json.loads((folder / "answer.json").read_text())
        if "refusal" in answer:
            raise ReaderError(answer["refusal"])
        with np.load(folder / "output.npz", allow_pickle=False) as output:
            return Answer(answer["value"], dict(output))


def serve(do: Callable[[dict[str, Any], Arrays], Answer]) -> None:
    """Be a worker: read the job in the folder named on the command line, do it, write the answer there."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    with np.load(folder / "input.npz", allow_pickle=False) as inputs:
        arrays = dict(inputs)
    try:
        answer = do(job, arrays)
    except RefusalError as refusal:
        (folder / "answer.json").write_text(json.dumps({"refusal": str(refusal)}))
        return
    np.savez(folder / "output.npz", **answer.arrays)  # type: ignore[arg-type]
    (folder / "answer.json").write_text(json.dumps({"value": answer.value}))


def race(
    job: Mapping[str, Any], arrays: Arrays, ready: Callable[[str, str, Floats, int], Callable[[], object]]
) -> Answer:
    """The job `race`: seconds of each network, in turns. ready: for a cfg, weights, an image and threads, what runs."""
    threads, inputs = job["threads"], [arrays[str(number)] for number in range(len(job["files"]))]
    runs = [ready(cfg, weights, image, threads) for (cfg, weights), image in zip(job["files"], inputs, strict=True)]
    return Answer(in_turns([seconds_on(threads, run) for run in runs], job["rounds"]))


def last_section_seconds(texts: Sequence[str], timed: Callable[[str], Callable[[], float]]) -> list[float]:
    """Least time of each cfg's last section: of the net, less that of the net without it where others stand before.

    timed: for a cfg, what runs it and says how many seconds that took.
    """
    shorter = [without_last(text) for text in texts]
    runs = [timed(text) for text in (*texts, *filter(None, shorter))]
    return less_without_last([min(each) for each in in_turns(runs, LAYER_ROUNDS)], [text is None for text in shorter])


def without_last(text: str) -> str | None:
    """A cfg without its last section; None where none is left."""
    shorter = text[: text.rindex("\n[") + 1]
    return shorter if shorter.count("[") > 1 else None


def _ending(status: int, stderr: str) -> str:
    """One line on how a worker ended, with the last thing that it said.

    Darknet's error() prints its message and then fails an assert(0), which says nothing: the message is taken.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    spoken = [line for line in lines if not _EMPTY_ASSERT.search(line) and not _TABLE_HEAD.match(line)]
    how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
    return f"{how}: {spoken[-1][:200]}" if spoken else how
