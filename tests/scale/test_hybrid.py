"""Four ranks on CPU in two groups, each with a copy of the model in shards."""

from __future__ import annotations

import pytest

from scale.hybrid_ranks import CHECKS, RANKS, start
from scale.pool import Outcomes, assert_passed, run_ranks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What each rank wrote: check -> traceback, or None where it passed."""
    return run_ranks(start, tmp_path_factory.mktemp("hybrid"), RANKS)


@pytest.mark.parametrize("check", CHECKS)
def test_on_every_rank_of_two_groups(outcomes: Outcomes, check: str) -> None:
    assert_passed(outcomes, check)
