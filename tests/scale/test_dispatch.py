"""Who is given what, with workers that are made up."""

from __future__ import annotations

from puna.scale.dispatch import Event, Limits, dispatch
from puna.scale.tasks import Outcome, Task


class Puppets:
    """A crew that does what a script says: what happens next, by the events of each call."""

    def __init__(self, script: list[list[Event]]) -> None:
        self.script = iter(script)
        self.hired = 0
        self.given: list[tuple[int, str]] = []
        self.dismissed: list[int] = []
        self.dead: set[int] = set()
        self.closed = False

    def hire(self) -> int:
        self.hired += 1
        return self.hired - 1

    def give(self, worker: int, task: Task) -> bool:
        self.given.append((worker, task.key))
        return worker not in self.dead

    def dismiss(self, worker: int) -> None:
        self.dismissed.append(worker)

    def events(self, timeout_seconds: float) -> list[Event]:
        assert 0 <= timeout_seconds <= 1
        return next(self.script)

    def close(self) -> None:
        self.closed = True


def opened(worker: int) -> Event:
    return Event(worker, "opened")


def lost(worker: int) -> Event:
    return Event(worker, "lost", {"error": "lost"})


def answered(worker: int) -> Event:
    return Event(worker, "answered", {"result": {"by": worker}, "seconds": 1.0})


def play(script: list[list[Event]], tasks: int, seats: int = 2) -> tuple[Puppets, list[Outcome]]:
    crew = Puppets(script)
    asked = [Task(str(number)) for number in range(tasks)]
    found = list(dispatch(asked, crew, seats=seats, limits=Limits(retries=1)))
    assert crew.closed
    return crew, found


def test_no_more_workers_than_tasks() -> None:
    crew, found = play([[opened(0)], [answered(0)]], tasks=1, seats=8)
    assert crew.hired == 1
    assert found == [Outcome("0", {"by": 0}, None, 1, 1.0)]


def test_a_worker_lost_in_opening_where_others_work_is_done_without() -> None:
    """As where memory is enough for one model and not for two."""
    script = [[opened(0), lost(1)], [lost(2)], [answered(0)], [answered(0)], [answered(0)]]
    crew, found = play(script, tasks=3)
    assert crew.hired == 3
    assert [outcome.error for outcome in found] == [None] * 3


def test_a_worker_lost_while_it_waits_costs_no_attempt() -> None:
    script = [[opened(0), opened(1)], [answered(0)], [lost(0)], [lost(1)], [opened(2)]]
    crew, found = play([*script, [answered(2)]], tasks=2)
    assert [(outcome.key, outcome.attempts) for outcome in found] == [("1", 1), ("0", 2)]
    assert crew.hired == 3


def test_what_is_heard_is_told_before_what_is_late() -> None:
    crew = Puppets([[opened(0)], [answered(0)]])
    limits = Limits(task_seconds=1e-9)
    (found,) = dispatch([Task("a")], crew, seats=1, limits=limits)
    assert found.error is None or crew.dismissed == [0]


def test_a_worker_that_is_dead_when_given_a_task_costs_no_attempt() -> None:
    crew = Puppets([[opened(0)], [lost(0)], [opened(1)], [answered(1)]])
    crew.dead = {0}
    (found,) = dispatch([Task("a")], crew, seats=1, limits=Limits(retries=0))
    assert (found.error, found.attempts) == (None, 1)
    assert crew.given == [(0, "a"), (1, "a")]


def test_a_worker_short_of_memory_while_it_loads_is_lost_like_one_that_was_killed() -> None:
    short = Event(1, "unopened", {"error": "MemoryError: ", "exhausted": True})
    script = [[opened(0), short], [lost(2)], [answered(0)], [answered(0)], [answered(0)]]
    crew, found = play(script, tasks=3)
    assert crew.hired == 3
    assert [outcome.error for outcome in found] == [None] * 3
