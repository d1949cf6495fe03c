"""What a spike is, what is counted, and what is said of it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.train.guard import GuardConfig, count_step, hopeless, skipped_note, spike_limit
from puna.train.progress import Progress
from puna.train.stepping import Outcome

SPIKES = GuardConfig(spike_factor=6.0, window_steps=5)


def outcome(loss: float, reason: Any = None, limit: float = math.inf) -> Outcome:
    return Outcome(loss, {"next_token": loss}, 1.5, limit, reason, {})


def test_the_limit_is_that_of_the_median_and_the_median_distance() -> None:
    losses = [2.0, 2.2, 1.9, 2.1, 9.0]  # one outlier moves neither
    assert spike_limit(losses, SPIKES) == pytest.approx(2.1 + 6 * 1.4826 * 0.1)


def test_losses_that_hardly_differ_leave_some_room() -> None:
    assert spike_limit([2.0] * 5, SPIKES) == pytest.approx(2.0 + 6 * 0.02)


@pytest.mark.parametrize("count", range(5))
def test_nothing_is_a_spike_before_the_window_is_full(count: int) -> None:
    assert spike_limit([2.0] * count, SPIKES) == math.inf


def test_by_default_nothing_is_a_spike() -> None:
    config = GuardConfig()
    progress = Progress()
    for _ in range(200):
        count_step(progress, outcome(2.0), config)
    assert progress.losses == []
    assert spike_limit([2.0] * 200, config) == math.inf


@given(st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5))
def test_at_least_half_of_the_window_lies_below_the_limit(losses: list[float]) -> None:
    limit = spike_limit(losses, SPIKES)
    assert sum(loss < limit for loss in losses) >= 3


def test_the_window_holds_good_steps_only() -> None:
    progress = Progress()
    for number in range(9):
        reason = "a spike" if number == 7 else None
        count_step(progress, outcome(float(number), reason), SPIKES)
    assert progress.losses == [3.0, 4.0, 5.0, 6.0, 8.0]
    assert (progress.bad_steps, progress.bad_in_row) == (1, 0)
    count_step(progress, outcome(math.nan, "not finite"), SPIKES)
    assert progress.losses == [3.0, 4.0, 5.0, 6.0, 8.0]
    assert (progress.bad_steps, progress.bad_in_row) == (2, 1)


def test_a_spike_is_told_with_its_limit() -> None:
    assert skipped_note(7, outcome(9.25, "a spike", 3.5)) == (
        "step 7 was skipped: a spike (loss 9.25, gradient norm 1.5, limit 3.5)"
    )
    assert skipped_note(8, outcome(math.inf, "not finite", 3.5)) == (
        "step 8 was skipped: not finite (loss inf, gradient norm 1.5)"
    )


@pytest.mark.parametrize(
    ("rollbacks", "limit", "wanted"),
    [
        (0, 0, r"up to step 9 \(loss 9, gradient norm 1.5\)$"),
        (0, 2, "and there is no checkpoint to go back to"),
        (1, 1, "after going back to an earlier checkpoint once"),
        (2, 2, "after going back to an earlier checkpoint 2 times"),
    ],
)
def test_the_end_is_explained(rollbacks: int, limit: int, wanted: str) -> None:
    progress = Progress(step=9, bad_in_row=3, rollbacks=rollbacks)
    config = GuardConfig(spike_factor=6.0, max_rollbacks=limit)
    error = hopeless(progress, outcome(9.0, "a spike"), config, Path("run"))
    assert error.what.startswith(
        "the loss or the gradient was not finite, or the loss a spike, in 3 steps in a row, "
    )
    assert re.search(wanted, error.what)
    assert error.fix is not None
    assert error.fix.startswith("lower optim.learning_rate")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_bad_steps": 0}, "max_bad_steps must be at least 1, found 0"),
        ({"spike_factor": 0.0}, "spike_factor must be positive, found 0.0"),
        ({"spike_factor": math.nan}, "spike_factor must be positive, found nan"),
        ({"window_steps": 1}, "window_steps must be at least 2, found 1"),
        ({"max_rollbacks": -1}, "max_rollbacks must not be negative, found -1"),
    ],
)
def test_impossible_figures_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GuardConfig(**fields)
