"""Who does which task, and what happens where a worker is lost: the same here and on a cluster.

A task is given to a worker only once that one is open, one at a time, so that its time is known,
and that what was lost with a worker is known too.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from puna.errors import InputError
from puna.scale.tasks import Outcome, Task


@dataclass(frozen=True)
class Limits:
    """How long is waited and how often something is tried."""

    retries: int = 1
    """How many more times a task is begun whose worker was lost, or ran out of memory."""
    task_seconds: float | None = None
    """After which a task is stopped; None: never."""
    open_seconds: float = 600.0
    """After which a worker that has not opened counts as lost."""
    tasks_per_worker: int | None = None
    """After which a worker makes way for a fresh one, which gives back what it held; None: never.
    """

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise InputError(f"retries must be at least 0, not {self.retries}")
        for name in ("task_seconds", "open_seconds", "tasks_per_worker"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be greater than 0, not {value}")


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    done: int
    """Tasks with an outcome, errors included."""
    failed: int
    """Those of them with an error."""
    retried: int
    """Attempts that were lost and begun again."""
    running: int
    """Tasks that workers are at."""


Tell = Callable[[Progress], None]
"""Called after each outcome and each lost attempt."""


@dataclass(frozen=True)
class Event:
    """Something that a worker did."""

    worker: int
    """Its number."""
    kind: Literal["opened", "unopened", "answered", "lost"]
    """opened: it takes tasks; unopened: its function could not be loaded; answered: it has done
    its task; lost: it is no more."""
    message: Mapping[str, Any] = field(default_factory=dict)
    """unopened and answered: of `tasks.answer`; lost: {"error"}, how."""


class Crew(Protocol):
    """Workers of one kind; they are known by numbers."""

    def hire(self) -> int:
        """Begin a worker; `events` tells when it is open."""

    def give(self, worker: int, task: Task) -> bool:
        """Hand a task to an open worker that has none.

        Returns:
            False where it is known not to have got it: `events` then tells that it is lost.
        """

    def dismiss(self, worker: int) -> None:
        """End a worker at once, whatever it does; nothing is heard of it afterwards."""

    def events(self, timeout_seconds: float) -> list[Event]:
        """What happened, as soon as something has; nothing after the time is over."""

    def close(self) -> None:
        """End all workers, and wait until they are gone."""


def dispatch(
    tasks: Iterable[Task], crew: Crew, *, seats: int, limits: Limits, tell: Tell | None = None
) -> Iterator[Outcome]:
    """Have tasks done; outcomes come as they are, in no order. Closes the crew in any case.

    Args:
        tasks: Drawn as workers come free, so that there may be any number.
        crew: Who does them.
        seats: How many workers at most.
        limits: Of time and attempts.
        tell: Told how far it is.

    Raises:
        InputError: The function could not be loaded, or workers are lost while they load it; or
            two tasks have the same key.
    """
    try:
        yield from _Desk(iter(tasks), crew, seats, limits, tell).outcomes()
    finally:
        crew.close()


@dataclass
class _Attempts:
    """A task and what was spent on it."""

    task: Task
    begun: int = 0
    seconds: float = 0.0
    since: float = 0.0  # of the attempt that runs
    until: float = math.inf  # when it is stopped


class _Desk:
    def __init__(
        self, tasks: Iterator[Task], crew: Crew, seats: int, limits: Limits, tell: Tell | None
    ) -> None:
        self._tasks, self._crew, self._seats = tasks, crew, seats
        self._limits, self._tell = limits, tell
        self._waiting: deque[_Attempts] = deque()
        self._opening: dict[int, float] = {}  # by when they are to be open
        self._idle: list[int] = []
        self._busy: dict[int, _Attempts] = {}
        self._served: dict[int, int] = {}
        self._keys: set[str] = set()
        self._unopened = 0  # workers lost in opening since the last one that opened
        self._done = self._failed = self._retried = 0

    def outcomes(self) -> Iterator[Outcome]:
        """Until each task has one."""
        self._assign()
        while self._busy or self._waiting:
            found = [self._hear(event) for event in self._crew.events(self._patience())]
            found += self._stop_overdue()
            self._assign()  # before yielding: the workers go on while the consumer is at work
            paused = time.monotonic()
            yield from (outcome for outcome in found if outcome is not None)
            self._put_off(time.monotonic() - paused)

    def _put_off(self, seconds: float) -> None:
        """Nobody listened while the consumer was at work: what was done meanwhile is not late."""
        for attempts in self._busy.values():
            attempts.until += seconds
        for worker in self._opening:
            self._opening[worker] += seconds

    def _assign(self) -> None:
        self._draw()
        while self._waiting and self._idle:
            worker, attempts = self._idle.pop(), self._waiting[0]
            if not self._crew.give(worker, attempts.task):
                continue  # it died while it had nothing to do: that is no attempt
            self._waiting.popleft()
            attempts.begun += 1
            attempts.since = time.monotonic()
            attempts.until = attempts.since + (self._limits.task_seconds or math.inf)
            self._busy[worker] = attempts
        free = self._seats - len(self._busy) - len(self._opening)
        for _ in range(min(free, len(self._waiting) - len(self._opening))):
            self._opening[self._crew.hire()] = time.monotonic() + self._limits.open_seconds

    def _draw(self) -> None:
        while len(self._waiting) < self._seats - len(self._busy):
            task = next(self._tasks, None)
            if task is None:
                return
            if task.key in self._keys:
                raise InputError(f"two tasks have the key {task.key!r}")
            self._keys.add(task.key)
            self._waiting.append(_Attempts(task))

    def _patience(self) -> float:
        """Seconds until the next limit is reached, at most a second."""
        ends = [*self._opening.values(), *(one.until for one in self._busy.values())]
        return min(1.0, max(0.0, min(ends, default=math.inf) - time.monotonic()))

    def _hear(self, event: Event) -> Outcome | None:
        if event.kind == "opened":
            del self._opening[event.worker]
            self._idle.append(event.worker)
            self._served[event.worker] = self._unopened = 0
            self._seats = max(self._seats, len(self._idle) + len(self._busy))
        elif event.kind == "unopened" and not event.message.get("exhausted"):
            raise _unopened(event.message)
        elif event.kind == "answered":
            return self._answered(event.worker, event.message)
        elif event.worker in self._opening:
            self._lost_in_opening(event.worker, event.message["error"])
        elif event.worker in self._busy:
            return self._end(self._busy.pop(event.worker), event.message, may_retry=True)
        elif event.worker in self._idle:
            self._idle.remove(event.worker)
        return None

    def _answered(self, worker: int, message: Mapping[str, Any]) -> Outcome | None:
        attempts = self._busy.pop(worker)
        self._served[worker] += 1
        exhausted = bool(message.get("exhausted"))
        most = self._limits.tasks_per_worker
        if exhausted or (most is not None and self._served[worker] >= most):
            self._crew.dismiss(worker)
        else:
            self._idle.append(worker)
        return self._end(attempts, message, may_retry=exhausted)

    def _end(
        self, attempts: _Attempts, message: Mapping[str, Any], *, may_retry: bool
    ) -> Outcome | None:
        attempts.seconds += message.get("seconds", time.monotonic() - attempts.since)
        if may_retry and attempts.begun <= self._limits.retries:
            self._waiting.append(attempts)
            self._retried += 1
            self._report()
            return None
        error = message.get("error")
        self._done += 1
        self._failed += error is not None
        self._report()
        result = None if error is not None else message["result"]
        return Outcome(
            attempts.task.key,
            result,
            error,
            attempts.begun,
            attempts.seconds,
            message.get("traceback"),
        )

    def _stop_overdue(self) -> list[Outcome | None]:
        now, found = time.monotonic(), []
        for worker in [one for one, end in self._opening.items() if end <= now]:
            self._crew.dismiss(worker)
            self._lost_in_opening(worker, f"not open after {self._limits.open_seconds:g} s")
        for worker in [one for one, attempts in self._busy.items() if attempts.until <= now]:
            self._crew.dismiss(worker)
            message = {"error": f"took more than {self._limits.task_seconds:g} s and was stopped"}
            found.append(self._end(self._busy.pop(worker), message, may_retry=False))
        return found

    def _lost_in_opening(self, worker: int, how: str) -> None:
        del self._opening[worker]
        self._unopened += 1
        others = len(self._busy) + len(self._idle)
        if self._unopened <= self._limits.retries:
            return
        if not others:
            raise InputError(
                f"workers are lost while they load what the tasks need: {how}",
                fix="try one worker alone, or give each more memory",
            )
        self._seats = others  # there is room for those that are open, and for no more

    def _report(self) -> None:
        if self._tell is not None:
            running = len(self._busy)
            self._tell(Progress(self._done, self._failed, self._retried, running))


def _unopened(message: Mapping[str, Any]) -> Exception:
    """What a worker could not load, raised here as the same kind of error."""
    if message.get("what") is not None:
        return InputError(message["what"], where=message["where"], fix=message["fix"])
    return RuntimeError(f"a worker could not begin: {message['error']}\n{message['traceback']}")
