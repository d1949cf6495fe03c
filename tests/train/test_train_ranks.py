"""Two ranks on CPU train as one process does.

All checks run in one pair of spawned processes (`train.train_ranks`); each has a test that reads
its outcome on both ranks.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch.multiprocessing

from scale.test_two_ranks import Outcomes, free_port, read
from train.train_ranks import CHECKS, RANKS, start

pytestmark = pytest.mark.slow
LIMIT_SECONDS = 240


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
    return [read(Path(folder) / f"{rank}.json") for rank in range(RANKS)]


@pytest.mark.parametrize("check", CHECKS)
def test_training_on_every_rank(outcomes: Outcomes, check: str) -> None:
    for rank, found in enumerate(outcomes):
        assert check in found, f"rank {rank} stopped before, or hung in, {check}"
        assert found[check] is None, f"rank {rank}:\n{found[check]}"
