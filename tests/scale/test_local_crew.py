"""Workers may die at any moment, and so may who waits for them: nothing is lost or left behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from puna.scale.executor import Limits, LocalExecutor, Progress, Task, Work, run_tasks
from scale.executor_pieces import (
    HERE,
    MISBEHAVE,
    do,
    is_running,
    is_there,
    one,
    outcomes,
    wait_until,
)

# --- workers that are lost ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "how"),
    [
        (do("kill", signal="SIGKILL"), "killed by SIGKILL, as the system does where memory runs"),
        (do("kill", signal="SIGTERM"), "killed by SIGTERM$"),
        (do("crash"), "killed by SIGSEGV$"),
        (do("exit at once"), "ended with exit code 3$"),
    ],
)
@pytest.mark.parametrize("retries", [0, 2])
def test_a_worker_that_dies(task: Task, how: str, retries: int) -> None:
    told: list[Progress] = []
    begun = time.monotonic()
    found = outcomes(
        run_tasks([task, do("well")], MISBEHAVE, workers=1, retries=retries, progress=told.append)
    )
    assert time.monotonic() - begun < 10, "it was noticed at once"
    with pytest.raises(AssertionError, match=how):
        raise AssertionError(found[task.key].error)
    assert found[task.key].attempts == retries + 1
    assert found["well"].error is None
    assert told[-1] == Progress(done=2, failed=1, retried=retries, running=0)


def test_a_lost_task_is_done_by_a_fresh_worker(tmp_path: Path) -> None:
    found = one(LocalExecutor(2), do("kill once", mark=str(tmp_path / "mark")))
    assert (found.error, found.attempts) == (None, 2)


def test_a_worker_that_dies_leaves_no_processes(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    found = one(LocalExecutor(1, Limits(retries=0)), do("leave child", mark=str(mark)))
    assert found.error == "the worker ended with exit code 7"
    child = int(mark.read_text())
    wait_until(lambda: not is_running(child))


def test_a_worker_that_loses_its_line_is_lost() -> None:
    found = one(LocalExecutor(1, Limits(retries=0)), do("close line"))
    assert "the worker" in (found.error or "")


def test_a_task_that_takes_too_long_is_stopped() -> None:
    tasks = [do("sleep"), do("well"), Task("quick", {"way": "sleep", "seconds": 0.01})]
    begun = time.monotonic()
    found = outcomes(run_tasks(tasks, MISBEHAVE, workers=2, task_seconds=0.6))
    assert time.monotonic() - begun < 10
    assert found["sleep"].error == "took more than 0.6 s and was stopped"
    assert found["sleep"].attempts == 1
    assert found["sleep"].seconds >= 0.6
    assert found["well"].error is found["quick"].error is None


def test_a_slow_consumer_makes_no_task_late() -> None:
    tasks = [Task(str(number), {"seconds": 0.05}) for number in range(4)]
    found = []
    for outcome in run_tasks(tasks, Work(f"{HERE}Opened"), workers=2, task_seconds=0.4):
        time.sleep(0.6)
        found.append(outcome)
    assert [outcome.error for outcome in found] == [None] * 4
    assert max(outcome.seconds for outcome in found) < 0.4


@pytest.mark.skipif(sys.platform != "linux", reason="address space is bounded on Linux only")
def test_memory_is_bounded() -> None:
    executor = LocalExecutor(1, memory_bytes=1 << 30)
    tasks = [Task("much", {"way": "hold memory", "bytes": 4 << 30}), do("hold memory", bytes=1000)]
    found = outcomes(executor.run(tasks, MISBEHAVE))
    assert (found["much"].error, found["much"].attempts) == ("MemoryError: ", 2)
    assert found["hold memory"].error is None


def test_a_worker_makes_way_after_so_many_tasks() -> None:
    executor = LocalExecutor(1, Limits(tasks_per_worker=2))
    tasks = [Task(str(number)) for number in range(5)]
    found = [outcome.result or {} for outcome in executor.run(tasks, Work(f"{HERE}Opened"))]
    assert [result["done"] for result in found] == [1, 2, 1, 2, 1]
    assert len({result["pid"] for result in found}) == 3


def test_no_process_is_left() -> None:
    found = list(run_tasks([do("well")], MISBEHAVE, workers=2))
    assert not is_there((found[0].result or {})["pid"])
    running = run_tasks([do("well"), do("sleep")], MISBEHAVE, workers=1)
    process = (next(running).result or {})["pid"]
    assert is_there(process)
    running.close()  # type: ignore[attr-defined]
    assert not is_there(process), "it was at work, and was waited for"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_workers_killed_at_any_moment_lose_nothing() -> None:
    stop, kills = threading.Event(), []
    killing = threading.Thread(target=_kill_workers, args=(stop, random.Random(5), kills))
    killing.start()
    try:
        tasks = [Task(str(number), {"seconds": 0.05}) for number in range(25)]
        limits = Limits(retries=1000)
        found = list(LocalExecutor(2, limits).run(tasks, Work(f"{HERE}Opened")))
    finally:
        stop.set()
        killing.join()
    assert sorted(int(outcome.key) for outcome in found) == list(range(25))
    assert all(outcome.error is None for outcome in found)
    assert kills, "it was over before one was killed"


def _kill_workers(stop: threading.Event, chance: random.Random, kills: list[str]) -> None:
    while len(kills) < 8 and not stop.wait(chance.uniform(0.05, 0.4)):
        children: list[str] = []
        for listing in Path("/proc/self/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children += listing.read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if b"puna.scale.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
                    kills.append(child)


# --- the process that waits ---------------------------------------------------------------------

SCRIPT = """
    import sys, threading, time
    from puna.scale.executor import run_tasks
    from scale.executor_pieces import MISBEHAVE, do
    from puna.scale.executor import Task

    def run(tasks, workers=2):
        return run_tasks(tasks, MISBEHAVE, workers=workers)
"""


def script(folder: Path, code: str) -> list[str]:
    """The command that runs code, which begins workers without any guard."""
    place = folder / "script.py"
    place.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(code))
    return [sys.executable, str(place)]


def run_script(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        script(folder, code), env=environment(), text=True, capture_output=True, check=True
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}


def test_workers_use_one_thread_and_print_to_stderr(tmp_path: Path) -> None:
    names = ["OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "TOKENIZERS_PARALLELISM"]
    found = one(LocalExecutor(1), do("environment", names=names))
    assert found.result is not None
    assert found.result["found"] == dict(zip(names, ["1", "1", "false"], strict=True))
    done = run_script(tmp_path, "print(len(list(run([do('print')]))))")
    assert done.stdout == "1\n"
    assert "a task prints" in done.stderr


SLEEPING = """
    tasks = [do("well"), *(Task(str(n), {"way": "sleep"}) for n in range(2))]
    def all():
        for outcome in run(tasks):
            print(outcome.result["pid"], flush=True)
"""


def begin(folder: Path, last: str) -> subprocess.Popen[str]:
    command = script(folder, textwrap.dedent(SLEEPING) + last)
    return subprocess.Popen(
        command,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    with begin(tmp_path, "all()") as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        worker = int(parent.stdout.readline())
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
        parent.wait(10)
        assert "KeyboardInterrupt" in parent.stderr.read()
        assert not is_running(worker)


@pytest.mark.parametrize("last", ["all()", "threading.Thread(target=all).start()"])
def test_workers_end_with_the_process_that_began_them(tmp_path: Path, last: str) -> None:
    with begin(tmp_path, last) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert is_running(worker)
        parent.kill()
        wait_until(lambda: not is_running(worker), seconds=5)
