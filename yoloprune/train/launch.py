"""Several processes of one command, by what torchrun is: PyTorch's elastic launcher."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from yoloprune.errors import InputError


def launch(words: Sequence[str], processes: int, devices: Sequence[int] = (), *, answers: bool = True) -> int:
    """Run `yoloprune words` in so many processes, as `torchrun --standalone` does; its exit status.

    devices: numbers of GPUs, one for each process. answers: False to keep what they print on stdout to themselves.
    KeyboardInterrupt where they were interrupted.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    with tempfile.TemporaryDirectory(prefix="yoloprune-processes-") as folder, _environment(processes, devices):
        aside = [] if answers else ["--redirects", "1", "--log-dir", folder]
        how = ["--standalone", "--nproc-per-node", str(processes), *aside, "-m", "yoloprune"]
        logging.disable(logging.ERROR)  # a process has said itself why it ends
        try:
            torchrun.main([*how, *words])
        except ChildFailedError as error:
            return max(1, *(each.exitcode for each in error.failures.values()))
        except SignalException as error:
            raise KeyboardInterrupt from error
        finally:
            logging.disable(logging.NOTSET)
    return 0


@contextmanager
def _environment(processes: int, devices: Sequence[int]) -> Iterator[None]:
    """Threads, which would else be one for each process, and GPUs; given back as it was."""
    changed = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))}
    if devices:
        changed["CUDA_VISIBLE_DEVICES"] = ",".join(_visible(devices, os.environ))
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _visible(devices: Sequence[int], environment: Mapping[str, str]) -> list[str]:
    """Names of the GPUs that have these numbers now, where only some of the machine's are visible."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(each) for each in devices]
    visible = [name for name in named.split(",") if name]
    if max(devices) >= len(visible):
        raise InputError(f"--devices: expected GPUs of 0..{len(visible) - 1}, found {max(devices)}")
    return [visible[each] for each in devices]
