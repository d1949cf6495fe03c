"""Two ranks on CPU: every door of a spread model gives what one process gives.

All checks run in one pair of spawned processes (`scale.ranks`); each has a test that reads its
outcome on both ranks.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
import torch.multiprocessing

from scale.ranks import CHECKS, RANKS, start

pytestmark = pytest.mark.slow
LIMIT_SECONDS = 240

Outcomes = list[dict[str, str | None]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What each rank wrote: check -> traceback, or None where it passed."""
    folder = tmp_path_factory.mktemp("ranks")
    world = torch.multiprocessing.spawn(
        start, (free_port(), str(folder)), nprocs=RANKS, join=False, daemon=True
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
    paths = [folder / f"{rank}.json" for rank in range(RANKS)]
    return [read(path) for path in paths]


def read(path: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = json.loads(path.read_text()) if path.exists() else {}
    return found


@pytest.mark.parametrize("check", CHECKS)
def test_on_every_rank(outcomes: Outcomes, check: str) -> None:
    for rank, found in enumerate(outcomes):
        assert check in found, f"rank {rank} stopped before, or hung in, {check}"
        assert found[check] is None, f"rank {rank}:\n{found[check]}"
