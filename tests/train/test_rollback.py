"""Bad steps are left out, and after several the run goes back and on with the data after them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from puna.errors import InputError
from puna.train import GuardConfig, Job, MetricsLog, TrainConfig, checkpoints
from puna.train.checkpoints import load_trained
from train.poison import Ending, GoesOn, Poison, Without
from train.stub import Heard, Loader, assert_same, job, train, values
from train.test_resume import Cut, assert_same_end, cut

GUARD = GuardConfig(max_bad_steps=2, max_rollbacks=2)
CONFIG = TrainConfig(epochs=None, max_steps=12, checkpoint_every_steps=2, guard=GUARD)
BAD = range(10, 14)  # the members of the sixth and the seventh batch


def poisoned(
    members: Collection[int] = BAD, loader: Any = None, by: float = float("nan"), **changes: Any
) -> Job:
    """A run in which some data do harm."""
    given = Loader(60, 2, shuffle=False) if loader is None else loader
    return job(given, objective=Poison(members, by), **changes)


def skipping(places: Collection[int], **changes: Any) -> Job:
    """A run that never meets those batches."""
    return job(Without(places), **changes)


def learnt(folder: Path, made: Job, config: TrainConfig = CONFIG) -> Any:
    folder.mkdir()
    return train(made, folder, config)


def test_the_run_goes_on_behind_the_bad_data(tmp_path: Path) -> None:
    """Bit for bit as one that never met them, nor the good data that had to be passed over."""
    made, heard = poisoned(dropout=True), Heard()
    (tmp_path / "poisoned").mkdir()
    result = train(made, tmp_path / "poisoned", CONFIG, heard)
    clean = skipping([4, 5, 6], dropout=True)
    learnt(tmp_path / "clean", clean)
    assert_same(values(made), values(clean))
    assert (result.steps, result.stopped) == (12, "steps")
    assert (result.bad_steps, result.rollbacks, result.passed_steps) == (2, 1, 3)
    assert [row["step"] for row in result.history] == list(range(1, 13))
    assert not any(row["skipped"] for row in result.history)
    assert result.tokens == sum(row["tokens"] for row in result.history)
    assert [m.step for m in heard.steps] == [1, 2, 3, 4, 5, 6, 7, *range(5, 13)]
    assert heard.notes == [
        "step 6 was skipped: not finite (loss nan, gradient norm nan)",
        "step 7 was skipped: not finite (loss nan, gradient norm nan)",
        "2 bad steps in a row up to step 7: the run went back to the checkpoint after step 4, "
        "and goes on with the data that follow",
    ]
    members = made.objective.seen  # type: ignore[attr-defined]
    assert [row[0] // 2 for row in members] == list(range(15))


def test_every_event_is_in_the_log(tmp_path: Path) -> None:
    result = train(poisoned(), tmp_path, CONFIG)
    rows = [row for row in MetricsLog(tmp_path).rows() if row["kind"] == "event"]
    assert list(result.events) == rows
    figures = {"loss": None, "grad_norm": None, "reason": "not finite"}
    back = {"to_step": 4, "bad_in_row": 2, "passed_steps": 3, "rollbacks": 1}
    assert rows == [
        {"kind": "event", "step": 6, "event": "skipped", **figures, "number": 1},
        {"kind": "event", "step": 7, "event": "skipped", **figures, "number": 2},
        {"kind": "event", "step": 7, "event": "rollback", **back, "number": 3},
    ]


def test_it_may_go_back_twice(tmp_path: Path) -> None:
    made = poisoned([*BAD, *range(18, 22)])
    result = learnt(tmp_path / "poisoned", made)
    clean = skipping([4, 5, 6, 9, 10])
    learnt(tmp_path / "clean", clean)
    assert_same(values(made), values(clean))
    assert (result.rollbacks, result.passed_steps, result.bad_steps) == (2, 5, 4)
    assert [row["step"] for row in result.history] == list(range(1, 13))


def test_then_it_gives_up(tmp_path: Path) -> None:
    config = replace(CONFIG, guard=replace(GUARD, max_rollbacks=1))
    message = (
        r"not finite in 2 steps in a row, up to step 8 \(.*\), "
        "after going back to an earlier checkpoint once"
    )
    with pytest.raises(InputError, match=message):
        train(poisoned([*BAD, *range(18, 22)]), tmp_path, config)
    assert checkpoints.exists(tmp_path, 6)


def test_without_a_checkpoint_it_gives_up_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="and there is no checkpoint to go back to"):
        train(poisoned(range(4)), tmp_path, CONFIG)


def test_by_default_it_never_goes_back(tmp_path: Path) -> None:
    config = replace(CONFIG, guard=GuardConfig(max_bad_steps=2))
    with pytest.raises(InputError, match=r"in 2 steps in a row, up to step 7 \(loss nan, grad"):
        train(poisoned(), tmp_path, config)


def test_a_single_bad_step_is_left_out_only(tmp_path: Path) -> None:
    result = train(poisoned([10]), tmp_path, CONFIG)
    assert (result.bad_steps, result.rollbacks, result.passed_steps) == (1, 0, 0)
    assert [row["step"] for row in result.history if row["skipped"]] == [6]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-10", "step-12"]


# --- spikes -------------------------------------------------------------------------------------

SPIKES = replace(GUARD, spike_factor=20.0, window_steps=4)


def test_a_spike_teaches_nothing(tmp_path: Path) -> None:
    made, before = poisoned([10], by=50.0), {}
    heard = Heard({5: lambda: before.update(values(made))})
    heard.at = {**heard.at, 6: lambda: assert_same(values(made), before)}
    result = train(made, tmp_path, replace(CONFIG, guard=SPIKES), heard)
    (event,) = result.events
    assert (event["event"], event["reason"], event["step"]) == ("skipped", "a spike", 6)
    assert event["loss"] > event["limit"] > 4
    assert heard.notes[0].startswith("step 6 was skipped: a spike (loss ")
    assert result.history[5]["skipped"]


def test_spikes_send_the_run_back_too(tmp_path: Path) -> None:
    made = poisoned(by=50.0)
    config = replace(CONFIG, guard=SPIKES)
    result = learnt(tmp_path / "poisoned", made, config)
    clean = skipping([4, 5, 6])
    learnt(tmp_path / "clean", clean, config)
    assert_same(values(made), values(clean))
    assert [row["reason"] for row in result.events[:2]] == ["a spike", "a spike"]


def test_a_spike_before_the_window_is_full_is_learnt_from(tmp_path: Path) -> None:
    result = train(poisoned([4], by=50.0), tmp_path, replace(CONFIG, guard=SPIKES))
    assert result.events == ()


# --- killed around it ---------------------------------------------------------------------------


class CutAfter(Heard):
    """Ends the run from within after so many steps, those that are taken again included."""

    def __init__(self, calls: int, strike: Callable[[], None] = cut):
        super().__init__()
        self.left, self.strike = calls, strike

    def step(self, metrics: Any) -> None:
        super().step(metrics)
        self.left -= 1
        if not self.left:
            self.strike()


@pytest.mark.parametrize("by", [float("nan"), 50.0])
@pytest.mark.parametrize("calls", range(1, 18))
def test_a_killed_run_goes_the_same_way(tmp_path: Path, calls: int, by: float) -> None:
    """17 steps are taken: 7, back to 4, 8 at first, back to 6, and on to 12."""
    config = replace(CONFIG, guard=SPIKES)

    def made() -> Job:
        return poisoned([*BAD, *range(18, 22)], by=by, dropout=True)

    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
    with pytest.raises(Cut):
        train(made(), tmp_path / "cut", config, CutAfter(calls))
    train(made(), tmp_path / "cut", config)
    heard = Heard()
    train(made(), tmp_path / "whole", config, heard)
    assert_same_end(tmp_path / "cut", tmp_path / "whole")
    assert len(heard.steps) == 17


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("calls", range(5, 10))
def test_an_interrupted_run_goes_the_same_way(tmp_path: Path, calls: int, keep: int) -> None:
    """Ctrl-C writes a checkpoint, also among bad steps, where what lies before them must stay."""
    config = replace(CONFIG, keep_checkpoints=keep)
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
    stopping = CutAfter(calls, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(poisoned(dropout=True), tmp_path / "cut", config, stopping)
    train(poisoned(dropout=True), tmp_path / "cut", config)
    train(poisoned(dropout=True), tmp_path / "whole", config)
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


# --- where the data are -------------------------------------------------------------------------


def test_a_loader_that_goes_on_is_read_beyond_its_end(tmp_path: Path) -> None:
    made = poisoned(loader=GoesOn(12))
    result = learnt(tmp_path / "poisoned", made)
    assert (result.steps, result.passed_steps) == (12, 3)
    members = made.objective.seen  # type: ignore[attr-defined]
    assert [row[0] // 2 for row in members] == list(range(15))
    again = train(poisoned(loader=GoesOn(12)), tmp_path / "poisoned", CONFIG, Heard())
    assert (again.steps, again.events) == (12, result.events)


def test_a_place_beyond_the_end_is_gone_on_from(tmp_path: Path) -> None:
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
    with pytest.raises(Cut):  # step 11 has the fourteenth batch, and the checkpoint is of step 10
        train(poisoned(loader=GoesOn(12)), tmp_path / "cut", CONFIG, CutAfter(14))
    train(poisoned(loader=GoesOn(12)), tmp_path / "cut", CONFIG)
    train(poisoned(loader=GoesOn(12)), tmp_path / "whole", CONFIG)
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_epochs_follow_one_another(tmp_path: Path) -> None:
    """Examples that do harm do it in every epoch; the rest comes in its order."""
    config = replace(CONFIG, guard=replace(GUARD, max_rollbacks=3), max_steps=16)
    made = poisoned(range(6, 10), Loader(20, 2, shuffle=False))  # ten batches an epoch
    result = learnt(tmp_path / "poisoned", made, config)
    members = [row[0] // 2 for row in made.objective.seen]  # type: ignore[attr-defined]
    assert members == [place % 10 for place in range(len(members))]
    assert len(members) == 16 + result.passed_steps
    assert result.rollbacks == 2
    assert [row["step"] for row in result.history] == list(range(1, 17))


@pytest.mark.parametrize("passes", [1, 2])
def test_data_that_end_early_end_the_run(tmp_path: Path, passes: int) -> None:
    config = replace(CONFIG, max_steps=10)
    heard = Heard()
    for _ in range(passes):  # a finished run is not run again
        heard = Heard()
        judged = scripted()
        made = poisoned(loader=Ending(20, 2, shuffle=False), evaluate=judged)
        result = train(made, tmp_path, config, heard)
        assert (result.steps, result.stopped, result.passed_steps) == (7, "finished", 3)
        assert [row["step"] for row in result.evaluations] == [7]
    assert heard.notes[-1] == "the data end after step 7: those of 3 steps were passed over"
    load_trained(tmp_path, 7, made.parameters)


def scripted() -> Callable[[], dict[str, float]]:
    return lambda: {"validation_loss": 1.0}
