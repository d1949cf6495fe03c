"""Many independent tasks, done by several workers: processes of this machine, or of a cluster.

    work = Work("puna.corpus.work:curate_unit", {"recipe": recipe})
    for outcome in run_tasks((Task(key, {"path": path}) for key, path in units), work, workers=2):
        ...

What came of each task is told, whatever becomes of the worker: an exception is an outcome, a
worker that is killed loses its task to a fresh one, and only then is it an outcome too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from puna.errors import InputError
from puna.scale.dispatch import Limits, Progress, Tell, dispatch
from puna.scale.local_crew import LocalCrew
from puna.scale.tasks import Call, Outcome, Task, Work, answer, open_work

__all__ = [
    "Executor",
    "Limits",
    "LocalExecutor",
    "Outcome",
    "Progress",
    "Task",
    "Work",
    "run_tasks",
]


class Executor(Protocol):
    """Has tasks done."""

    def run(
        self, tasks: Iterable[Task], work: Work, *, progress: Tell | None = None
    ) -> Iterator[Outcome]:
        """Outcomes as they come, in no order; closing the iterator ends what is being done.

        Args:
            tasks: With different keys; drawn as workers come free.
            work: What is done with each.
            progress: Called after each outcome and each lost attempt.

        Raises:
            InputError: The function cannot be loaded, or two tasks have the same key.
            RuntimeError: The function's module or factory failed in a worker; the message holds
                its traceback. In this process its own exception comes through.
        """


@dataclass(frozen=True)
class LocalExecutor:
    """Processes of this machine, each with one thread for the libraries that it uses.

    They end with this process, however that ends, and with an exception that passes through the
    iterator, such as Ctrl-C.
    """

    workers: int
    """How many; 0: the tasks are done in this process, for tests and debugging, where a worker
    that dies takes all with it and nothing bounds time or memory."""
    limits: Limits = field(default_factory=Limits)
    """Of time and attempts."""
    memory_bytes: int | None = None
    """Address space of each worker (Linux), beyond which comes `MemoryError`; None: no bound. It
    counts what is reserved and not used too: 0.4 GiB with numpy and pyarrow, before any data."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise InputError(f"workers must be at least 0, not {self.workers}")
        if self.memory_bytes is not None and self.memory_bytes <= 0:
            raise InputError(f"memory_bytes must be greater than 0, not {self.memory_bytes}")
        bounded = self.limits.task_seconds is not None or self.memory_bytes is not None
        if self.workers == 0 and bounded:
            raise InputError(
                "task_seconds and memory_bytes bound worker processes, and workers is 0",
                fix="set workers to 1, or leave them out",
            )

    def run(
        self, tasks: Iterable[Task], work: Work, *, progress: Tell | None = None
    ) -> Iterator[Outcome]:
        """See `Executor.run`."""
        if self.workers == 0:
            return _in_this_process(tasks, work, progress)
        return self._in_workers(tasks, work, progress)

    def _in_workers(
        self, tasks: Iterable[Task], work: Work, progress: Tell | None
    ) -> Iterator[Outcome]:
        crew = LocalCrew(work, memory_bytes=self.memory_bytes)
        yield from dispatch(tasks, crew, seats=self.workers, limits=self.limits, tell=progress)


def run_tasks(
    tasks: Iterable[Task],
    work: Work,
    *,
    workers: int,
    retries: int = 1,
    task_seconds: float | None = None,
    progress: Tell | None = None,
) -> Iterator[Outcome]:
    """Have tasks done by processes of this machine; see `LocalExecutor` for more choices.

    Args:
        tasks: With different keys; drawn as workers come free.
        work: What is done with each.
        workers: How many processes; 0: this one.
        retries: How many more times a task is begun whose worker was lost.
        task_seconds: After which a task is stopped; None: never.
        progress: Called after each outcome and each lost attempt.

    Returns:
        Outcomes as they come, in no order.

    Raises:
        InputError: As `Executor.run`, or a limit makes no sense.
        RuntimeError: As `Executor.run`.
    """
    limits = Limits(retries=retries, task_seconds=task_seconds)
    return LocalExecutor(workers, limits).run(tasks, work, progress=progress)


def _in_this_process(tasks: Iterable[Task], work: Work, progress: Tell | None) -> Iterator[Outcome]:
    call: Call | None = None
    keys: set[str] = set()
    failed = 0
    for task in tasks:
        if task.key in keys:
            raise InputError(f"two tasks have the key {task.key!r}")
        keys.add(task.key)
        # through JSON, so that a task means here what it means in a worker
        call = call or open_work(Work(work.function, json.loads(json.dumps(work.shared))))
        told = json.loads(answer(call, json.loads(json.dumps(task.arguments))))
        failed += "error" in told
        if progress is not None:
            progress(Progress(len(keys), failed, retried=0, running=0))
        seconds, error, trace = told["seconds"], told.get("error"), told.get("traceback")
        yield Outcome(task.key, told.get("result"), error, 1, seconds, trace)
