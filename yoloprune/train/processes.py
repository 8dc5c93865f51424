"""Several processes that train one network, as torchrun starts them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from yoloprune.darknet.network import Network
from yoloprune.errors import InputError
from yoloprune.train.ranks import world_size

_PATIENCE = timedelta(hours=12)
"""How long a process waits for the others, the first one's measuring included."""


_UNSHARED_BUFFERS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in signature(DistributedDataParallel.__init__).parameters
    else {"broadcast_buffers": False}  # its older name
)


@contextmanager
def process_group(device: str, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """The process group of torchrun for the block, if it started this process; gives the device that it is to use.

    gloo on CPUs, nccl on GPUs, of which `cuda` means one for each process. InputError where they are too few, or one is
    named for all.
    """
    if world_size(environment) < 2 or dist.is_initialized():
        yield device
        return
    if device.startswith("cuda"):
        own = _own_gpu(device, environment)
        torch.cuda.set_device(own)
        dist.init_process_group("nccl", timeout=_PATIENCE, device_id=own)
        device = str(own)
    else:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield device
        # Threads of gloo abort a process that ends while another is still at work, or while a module holds the group.
        gc.collect()
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _own_gpu(device: str, environment: Mapping[str, str]) -> torch.device:
    if device != "cuda":
        raise InputError(f"--device: expected cuda, of which each process of torchrun takes one, found {device}")
    number, count = int(environment.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise InputError(f"--device cuda: expected a GPU for each process of torchrun, found {count}")
    return torch.device("cuda", number)


class Processes:
    """The processes that share a run. Mini-batch k of an update is done by process k modulo their number."""

    def __init__(self) -> None:
        in_group = dist.is_available() and dist.is_initialized()
        self.count = dist.get_world_size() if in_group else 1
        self.rank = dist.get_rank() if in_group else 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as it is to be called: gradients become the mean over the processes."""
        return module if self.count == 1 else DistributedDataParallel(module, **_UNSHARED_BUFFERS)

    def gradient_sync(self, module: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a mini-batch: gradients are exchanged with the last one of an update."""
        return nullcontext() if last or not isinstance(module, DistributedDataParallel) else module.no_sync()

    def all_reduce(self, value: Tensor) -> Tensor:
        """Sum over the processes."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def broadcast(self, answer: bool) -> bool:
        """What the first process says."""
        if self.count == 1:
            return answer
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        flag = torch.tensor([answer], dtype=torch.int32, device=device)
        dist.broadcast(flag, 0)
        return bool(flag.item())

    def broadcast_bytes(self, data: bytes) -> bytes:
        """What the first process has; others give as many of their own."""
        if self.count == 1:
            return data
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        values = torch.tensor(bytearray(data), dtype=torch.uint8, device=device)
        dist.broadcast(values, 0)
        return values.cpu().numpy().tobytes()

    def barrier(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()


class RunningStatistics:
    """Running means and variances of batch norm, kept as if one process had taken the mini-batches in order.

    A mini-batch moves r to (1-m)r + mb. Of N mini-batches at once, process i knows its own m b_i; the result is
    (1-m)^N r + sum_i (1-m)^(N-1-i) m b_i, which is a sum over the processes. Arrays that k layers share (share_index)
    move k times a mini-batch: there it is (1-m)^k instead of 1-m.
    """

    def __init__(self, network: Network, processes: Processes) -> None:
        self._processes = processes
        kept: dict[Tensor, float] = {}
        for module in network.layers if processes.count > 1 else ():
            if module.training and hasattr(module, "variance"):
                share: Any = module.momentum
                for tensor in (module.mean, module.variance):
                    assert isinstance(tensor, Tensor)
                    kept[tensor] = kept.get(tensor, 1.0) * (1 - share)
        self._buffers = list(kept)
        if kept:
            self._kept = torch.cat([torch.full_like(tensor, value) for tensor, value in kept.items()])

    @contextmanager
    def synchronized(self) -> Iterator[None]:
        """Around forward and backward of a mini-batch, in all processes."""
        if not self._buffers:
            yield
            return
        before = torch.cat(self._buffers)
        yield
        count, rank = self._processes.count, self._processes.rank
        own = torch.cat(self._buffers) - self._kept * before
        moved = self._processes.all_reduce(own * self._kept ** (count - 1 - rank))
        after = self._kept**count * before + moved
        for tensor, values in zip(
            self._buffers, torch.split(after, [len(each) for each in self._buffers]), strict=True
        ):
            tensor.copy_(values)
