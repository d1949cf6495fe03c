"""Ranks on CPU in spawned processes: every check runs on each, and each tells how it went."""

from __future__ import annotations

import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.multiprocessing

from puna.scale.world import World

RANKS = 2
LIMIT_SECONDS = 240

Outcomes = list[dict[str, str | None]]


def run_ranks(start: Callable[[int, int, str], None], folder: Path, ranks: int = RANKS) -> Outcomes:
    """What each rank wrote: check -> traceback, or None where it passed.

    Args:
        start: The entry of a rank: (rank, port, folder), which calls `run_checks`.
        folder: An empty folder for what they write.
        ranks: How many there are.
    """
    world = torch.multiprocessing.spawn(
        start, (free_port(), str(folder)), nprocs=ranks, join=False, daemon=True
    )
    deadline = time.monotonic() + LIMIT_SECONDS
    try:
        while not world.join(timeout=1):
            if time.monotonic() > deadline:
                break
    except torch.multiprocessing.ProcessExitedException:
        pass  # the outcomes say how far it came
    finally:
        for process in world.processes:
            if process.is_alive():
                process.kill()
    return [_read(folder / f"{rank}.json") for rank in range(ranks)]


def run_checks(
    rank: int,
    port: int,
    folder: str,
    checks: Mapping[str, Callable[[World], None]],
    ranks: int = RANKS,
) -> None:
    """On a rank: a launcher's environment, then every check."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
    }
    torch.set_num_threads(1)
    outcomes: dict[str, str | None] = {}
    with World.launched() as world:
        for name, check in checks.items():
            try:
                check(world)
                outcomes[name] = None
            except Exception:  # reported by the test of this name
                outcomes[name] = traceback.format_exc()
            (Path(folder) / f"{rank}.json").write_text(json.dumps(outcomes), encoding="utf-8")
            world.barrier()  # a rank that failed must not leave the other in the next check


def placed(
    checks: Mapping[str, Callable[[World, Path], None]], folder: str
) -> dict[str, Callable[[World], None]]:
    """Checks that write, each with a folder of its own, as `run_checks` calls them."""

    def made(name: str, check: Callable[[World, Path], None]) -> Callable[[World], None]:
        def call(world: World) -> None:
            place = Path(folder) / name
            place.mkdir(exist_ok=True)
            check(world, place)

        return call

    return {name: made(name, check) for name, check in checks.items()}


def assert_passed(outcomes: Outcomes, check: str) -> None:
    """A check passed on every rank."""
    for rank, found in enumerate(outcomes):
        assert check in found, f"rank {rank} stopped before, or hung in, {check}"
        assert found[check] is None, f"rank {rank}:\n{found[check]}"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _read(path: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = json.loads(path.read_text()) if path.exists() else {}
    return found
