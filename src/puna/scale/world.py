"""Who else is computing: rank, size, device, and the few collectives that the loops need."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from puna.errors import InputError
from puna.scale.prepare import default_device
from puna.scale.voice import naming_lost_ranks, one_voice

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_PATIENCE = timedelta(minutes=30)  # others wait while the first one publishes; a dead rank ends it


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
        never train apart in silence. What ends the block badly on several ranks is told by one.

        Raises:
            InputError: The environment names a world only in part; or another rank stopped.
            AlreadyToldError: Another rank has told what was wrong.
        """
        if not any(name in os.environ for name in _NAMES):
            yield cls.single(default_device())
            return
        device = _own_device()
        backend = "nccl" if device.type == "cuda" else "gloo"
        with naming_lost_ranks():
            _join(backend)
        failed = True
        try:
            world = cls(dist.get_rank(), dist.get_world_size(), device)
            with one_voice() if world.size > 1 else contextlib.nullcontext():
                yield world
            failed = False
        finally:
            # NCCL would wait for what the others have not sent; the end of the process does not.
            if not failed or backend == "gloo":
                dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all ranks, on each of them; `value` is not changed.

        Raises:
            InputError: Another rank stopped.
        """
        if self.size == 1:
            return value
        total = value.clone()
        with naming_lost_ranks():
            dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """Wait until every rank is here.

        Raises:
            InputError: Another rank stopped.
        """
        if self.size > 1:
            with naming_lost_ranks():
                dist.barrier()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """A block in which a model talks to the other ranks by itself.

        Raises:
            InputError: Another rank stopped.
        """
        with naming_lost_ranks() if self.size > 1 else contextlib.nullcontext():
            yield


def _join(backend: str) -> None:
    """Meet the other ranks; after a restart, where those before it left nothing.

    torchrun keeps its store over restarts, and with it the addresses of the ranks that are gone: a
    rank that is quick would call there.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
    own = dist.distributed_c10d.PrefixStore(f"puna/attempt-{attempt}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=_PATIENCE)


def _own_device() -> torch.device:
    """What this rank of a launcher computes on.

    Raises:
        InputError: The launcher did not say all; or there are more ranks here than GPUs.
    """
    missing = sorted(name for name in _NAMES if name not in os.environ)
    if missing:
        names = ", ".join(missing)
        raise InputError(f"the launcher did not set {names}", fix="start with torchrun")
    if default_device().type != "cuda":
        return torch.device("cpu")  # gloo has no collectives on other accelerators
    own, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if own >= there:
        raise InputError(
            f"rank {own} of this machine has no GPU: there are {there}",
            fix=f"start with --nproc-per-node {there}",
        )
    device = torch.device("cuda", own)
    torch.cuda.set_device(device)
    return device
