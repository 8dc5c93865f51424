"""A call into another process: the job as JSON, arrays as .npz, both in a temporary folder.

`call` is our side, `serve` the worker's. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from yoloprune.readers.base import Floats, ReaderError

Arrays = Mapping[str, NDArray[Any]]
LAYER_ROUNDS: Final = 25
"""How often a layer is timed."""
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
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
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


def in_turns(runs: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """What each of `runs` measures, `rounds` times after one that is not counted [n][rounds].

    They take turns, so what else the machine does meets all alike.
    """
    for run in runs:
        run()
    found = [[run() for run in runs] for _ in range(rounds)]
    return [list(each) for each in zip(*found, strict=True)]


def processor_seconds(run: Callable[[], object]) -> Callable[[], float]:
    """What runs and says how many seconds of the processor that took."""

    def timed() -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    return timed


def timing(job: Mapping[str, Any], timed: Callable[[str, str], Callable[[], float]]) -> Answer:
    """The jobs `race` and `seconds`; timed: for a cfg and a weights file, what runs them and says how long it took."""
    if job["do"] == "race":
        return Answer(in_turns([timed(*files) for files in job["files"]], job["rounds"]))
    (times,) = in_turns([timed(job["cfg"], job["weights"])], job["repeats"])
    return Answer(statistics.median(times))


def last_section_seconds(texts: Sequence[str], timed: Callable[[str], Callable[[], float]]) -> list[float]:
    """Least time of each cfg's last section: of the net, less that of the net without it where others stand before.

    timed: for a cfg, what runs it and says how many seconds that took.
    """
    shorter = [text[: text.rindex("\n[") + 1] for text in texts]
    alone = [text.count("[") < 2 for text in shorter]
    runs = [timed(text) for text in texts]
    runs += [timed(text) for text, only in zip(shorter, alone, strict=True) if not only]
    least = [min(each) for each in in_turns(runs, LAYER_ROUNDS)]
    before = iter(least[len(texts) :])
    return [whole if only else max(whole - next(before), 0.0) for whole, only in zip(least, alone, strict=False)]


def _ending(status: int, stderr: str) -> str:
    """One line on how a worker ended, with the last thing that it said.

    Darknet's error() prints its message and then fails an assert(0), which says nothing: the message is taken.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    spoken = [line for line in lines if not _EMPTY_ASSERT.search(line) and not _TABLE_HEAD.match(line)]
    how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
    return f"{how}: {spoken[-1][:200]}" if spoken else how
