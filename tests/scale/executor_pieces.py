"""What the tests of the executors share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from puna.scale.executor import LocalExecutor, Outcome, Task, Work

HERE = "scale.executor_work:"
MISBEHAVE = Work(f"{HERE}misbehave")


def do(way: str, **arguments: Any) -> Task:
    return Task(way, {"way": way, **arguments})


def outcomes(found: Iterator[Outcome]) -> dict[str, Outcome]:
    return {outcome.key: outcome for outcome in found}


def one(executor: LocalExecutor, task: Task, work: Work = MISBEHAVE) -> Outcome:
    (found,) = executor.run([task], work)
    return found


def is_there(process: int) -> bool:
    """Whether a process exists, if only as a zombie."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(what: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_running(process: int) -> bool:
    """Whether it lives; a zombie that the system's first process has yet to take does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
