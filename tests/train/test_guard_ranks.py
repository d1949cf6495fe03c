"""Two ranks on CPU leave out bad steps together.

All checks run in one pair of spawned processes (`train.guard_ranks`); each has a test that reads
its outcome on both ranks.
"""

from __future__ import annotations

import pytest

from scale.pool import Outcomes, assert_passed, run_ranks
from train.guard_ranks import CHECKS, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What each rank wrote: check -> traceback, or None where it passed."""
    return run_ranks(start, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("check", CHECKS)
def test_guarding_on_every_rank(outcomes: Outcomes, check: str) -> None:
    assert_passed(outcomes, check)
