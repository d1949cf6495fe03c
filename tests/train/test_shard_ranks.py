"""Two ranks on CPU that share one model in shards train as one process does.

All checks run in one pair of spawned processes (`train.shard_ranks`); each has a test that reads
its outcome on both ranks.
"""

from __future__ import annotations

import pytest

from scale.pool import Outcomes, assert_passed, run_ranks
from train.shard_ranks import CHECKS, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What each rank wrote: check -> traceback, or None where it passed."""
    return run_ranks(start, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("check", CHECKS)
def test_training_in_shards_on_every_rank(outcomes: Outcomes, check: str) -> None:
    assert_passed(outcomes, check)
