"""A run that ends by time: when it stops, what is judged, and what the learning rate does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from puna.train import ScheduleConfig, TrainConfig
from puna.train.schedule import factor, timed_factor
from train.stub import Heard, job, train

TIMED = TrainConfig(
    epochs=None, max_seconds=10, schedule=ScheduleConfig(kind="linear", warmup_share=0.0)
)


class Watch:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Slow(Heard):
    """Each step takes two seconds."""

    def __init__(self, watch: Watch, stop_after: int | None = None) -> None:
        super().__init__()
        self.watch, self.stop_after = watch, stop_after

    def step(self, metrics: Any) -> None:
        super().step(metrics)
        self.watch.now += 2
        if metrics.step == self.stop_after:
            raise InterruptedError("the process is killed")


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    made = Watch()
    monkeypatch.setattr("puna.train.clock.time", made)
    return made


def test_it_stops_after_the_first_step_beyond_and_is_judged_there(
    tmp_path: Path, watch: Watch
) -> None:
    heard = Slow(watch)
    made = job(evaluate=lambda: {"validation_loss": 1.0})
    result = train(made, tmp_path, TIMED, heard)
    assert (result.steps, result.stopped, result.seconds) == (5, "time", 10.0)
    assert [step for step, *_ in heard.evaluations] == [4, 5]  # the epoch, and the end
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-4", "step-5"]
    assert heard.began == [(0, None)]


def test_an_evaluation_may_be_what_ends_it(tmp_path: Path, watch: Watch) -> None:
    def evaluate() -> dict[str, float]:
        watch.now += 3
        return {"validation_loss": 1.0}

    heard = Slow(watch)
    result = train(job(evaluate=evaluate), tmp_path, TIMED, heard)
    assert (result.steps, result.stopped) == (4, "time")
    assert [step for step, *_ in heard.evaluations] == [4]


def test_work_before_the_loop_counts(tmp_path: Path, watch: Watch) -> None:
    heard = Slow(watch)
    result = train(job(seconds_before=6.0), tmp_path, TIMED, heard)
    assert (result.steps, result.seconds, result.seconds_before) == (2, 4.0, 6.0)
    rates = [m.learning_rate / TIMED.optim.learning_rate for m in heard.steps]
    assert rates == pytest.approx([1.0, 0.5])


def test_a_budget_that_is_spent_before_the_loop_still_gives_a_step(
    tmp_path: Path, watch: Watch
) -> None:
    result = train(job(seconds_before=60.0), tmp_path, TIMED, Slow(watch))
    assert (result.steps, result.stopped) == (1, "time")


def test_the_time_of_an_earlier_process_counts(tmp_path: Path, watch: Watch) -> None:
    config = replace(TIMED, checkpoint_every_steps=2)
    with pytest.raises(InterruptedError):
        train(job(seconds_before=1.0), tmp_path, config, Slow(watch, stop_after=3))
    watch.now += 1000  # a pause
    heard = Slow(watch)
    result = train(job(seconds_before=0.5), tmp_path, config, heard)
    assert heard.began == [(2, None)]
    assert (result.steps, result.seconds, result.seconds_before) == (5, 10.0, 1.5)


def test_the_nearer_limit_counts(tmp_path: Path, watch: Watch) -> None:
    heard = Slow(watch)
    config = replace(TIMED, max_steps=4)
    result = train(job(), tmp_path, config, heard)
    assert (result.steps, result.stopped) == (4, "steps")
    rates = [m.learning_rate / config.optim.learning_rate for m in heard.steps]
    assert rates == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert heard.began == [(0, 4)]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
def test_the_course_by_time_is_the_course_by_steps(kind: Any) -> None:
    config = ScheduleConfig(kind=kind, warmup_share=0.1, final_share=0.1)
    for step in range(101):
        by_time = timed_factor(0, step / 100, config)
        assert by_time == pytest.approx(factor(step, 100, config), abs=1e-9)


def test_warmup_steps_are_steps_also_where_time_decides() -> None:
    config = ScheduleConfig(kind="constant", warmup_steps=4)
    assert [timed_factor(n, 0.9, config) for n in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
