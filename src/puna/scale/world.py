"""Who else is computing: rank, size, device, and the few collectives that the loops need."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from puna.errors import InputError
from puna.scale.prepare import default_device


@dataclass(frozen=True)
class World:
    """The processes of one run. A single process has the same methods, and needs no launcher."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def single(cls, device: torch.device | str = "cpu") -> World:
        """One process."""
        return cls(0, 1, torch.device(device))

    @classmethod
    @contextlib.contextmanager
    def launched(cls) -> Iterator[World]:
        """The world that `torchrun` describes in the environment; one process without it.

        gloo on CPU, NCCL on GPU. A launcher's variables always lead to a process group, so ranks
        never train apart in silence.

        Raises:
            InputError: The environment names a world only in part.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        found = [name for name in names if name in os.environ]
        if not found:
            yield cls.single(default_device())
            return
        if len(found) < len(names):
            missing = ", ".join(sorted(set(names) - set(found)))
            raise InputError(f"the launcher did not set {missing}", fix="start with torchrun")
        device = default_device()
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield cls(dist.get_rank(), dist.get_world_size(), device)
        finally:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all ranks, on each of them; `value` is not changed."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()
