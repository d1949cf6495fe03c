"""The course of the learning rate, held against transformers' own schedules."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.train.schedule import ScheduleConfig, factor, warmup

TOTAL, WARMUP = 50, 7


def theirs(make: Callable[..., Any], **arguments: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    schedule = make(optimizer, num_warmup_steps=WARMUP, **arguments)
    return [schedule.lr_lambdas[0](step) for step in range(TOTAL)]


def ours(**fields: Any) -> list[float]:
    config = ScheduleConfig(warmup_steps=WARMUP, **fields)
    return [factor(step, TOTAL, config) for step in range(TOTAL)]


def test_as_transformers_has_them() -> None:
    t = transformers
    total = {"num_training_steps": TOTAL}
    assert ours(kind="linear") == pytest.approx(theirs(t.get_linear_schedule_with_warmup, **total))
    assert ours(kind="cosine") == pytest.approx(theirs(t.get_cosine_schedule_with_warmup, **total))
    assert ours(kind="constant") == pytest.approx(theirs(t.get_constant_schedule_with_warmup))
    floor = theirs(t.get_cosine_with_min_lr_schedule_with_warmup, **total, min_lr_rate=0.1)
    assert ours(kind="cosine", final_share=0.1) == pytest.approx(floor)
    wsd = theirs(t.get_wsd_schedule, **total, num_decay_steps=10, decay_type="linear")
    assert ours(kind="wsd", decay_share=0.2) == pytest.approx(wsd)


def test_a_share_of_the_steps_warms_up() -> None:
    assert warmup(60, ScheduleConfig()) == 2
    assert warmup(60, ScheduleConfig(warmup_steps=5)) == 5
    assert warmup(60, ScheduleConfig(warmup_share=0.0)) == 0
    assert factor(0, 60, ScheduleConfig(warmup_share=0.0)) == 1.0


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
def test_a_run_of_one_step_learns(kind: Any) -> None:
    assert factor(0, 1, ScheduleConfig(kind=kind)) > 0
    assert warmup(4, ScheduleConfig(warmup_share=1.0)) == 3


@given(
    kind=st.sampled_from(["cosine", "linear", "constant", "wsd"]),
    total=st.integers(1, 40),
    share=st.floats(0, 1),
    final=st.floats(0, 1),
    decay=st.floats(0, 1),
)
def test_rises_then_falls(kind: Any, total: int, share: float, final: float, decay: float) -> None:
    config = ScheduleConfig(kind=kind, warmup_share=share, final_share=final, decay_share=decay)
    rising = warmup(total, config)
    course = [factor(step, total, config) for step in range(total + 3)]
    assert all(0 <= value <= 1 for value in course)
    assert course[:rising] == sorted(course[:rising])
    falling = course[rising:]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(falling))


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"final_share must lie between 0 and 1, found 1\.5"):
        ScheduleConfig(final_share=1.5)
    with pytest.raises(InputError, match="warmup_steps must not be negative"):
        ScheduleConfig(warmup_steps=-1)
