"""Each task has an outcome, the same with any number of workers."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import InputError
from puna.scale.executor import Limits, LocalExecutor, Task, Work, run_tasks
from puna.scale.tasks import answer, open_work
from scale.executor_pieces import HERE, MISBEHAVE, do, one, outcomes

# --- what comes back ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40)
@given(shared=st.dictionaries(st.text(), JSON), arguments=st.dictionaries(st.text(), JSON))
def test_any_json_comes_through(shared: dict[str, Any], arguments: dict[str, Any]) -> None:
    work = Work(f"{HERE}echo", shared)
    line = answer(open_work(work), arguments)
    assert "\n" not in line
    assert line.isascii(), "also where a text holds lone surrogates"
    (found,) = run_tasks([Task("a", arguments)], work, workers=0)
    assert json.loads(line)["result"] == found.result == {"shared": shared, "arguments": arguments}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_are_the_same_with_any_number_of_workers(workers: int) -> None:
    tasks = [Task(f"task {number}", {"value": number}) for number in range(20)]
    found = outcomes(run_tasks(tasks, Work(f"{HERE}times", {"by": 3}), workers=workers))
    assert {key: one.result for key, one in found.items()} == {
        f"task {number}": {"value": 3 * number} for number in range(20)
    }
    assert all(one.error is None and one.attempts == 1 for one in found.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_no_tasks_begin_no_worker(workers: int) -> None:
    assert list(run_tasks([], Work("no.such:thing"), workers=workers)) == []


def test_a_factory_is_opened_once_in_each_worker() -> None:
    tasks = [Task(str(number), {"seconds": 0.05}) for number in range(8)]
    found = list(run_tasks(tasks, Work(f"{HERE}Opened"), workers=2))
    by_worker: dict[int, list[int]] = {}
    for outcome in found:
        assert outcome.result is not None
        by_worker.setdefault(outcome.result["pid"], []).append(outcome.result["done"])
        assert 0.05 <= outcome.seconds < 5
    assert os.getpid() not in by_worker
    assert 1 <= len(by_worker) <= 2
    assert all(done == list(range(1, len(done) + 1)) for done in by_worker.values())


def test_large_arguments_and_results() -> None:
    text = "中" * 3_000_000
    (found,) = run_tasks([Task("a", {"text": text})], Work(f"{HERE}echo"), workers=1)
    assert found.result == {"shared": {}, "arguments": {"text": text}}


def test_tasks_are_drawn_as_workers_come_free() -> None:
    drawn = itertools.count()
    tasks = (Task(str(number), {"value": next(drawn)}) for number in range(1000))
    running = run_tasks(tasks, Work(f"{HERE}times", {"by": 1}), workers=2)
    next(running)
    assert next(drawn) <= 6
    running.close()  # type: ignore[attr-defined]


# --- exceptions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_is_an_outcome(workers: int) -> None:
    tasks = [do("well"), do("raise"), do("exit"), do("no object"), Task("after", {"way": "well"})]
    found = outcomes(run_tasks(tasks, MISBEHAVE, workers=workers))
    expected = "InputError: file.txt:3: is no number\n  fix: write one"
    assert (found["raise"].error, found["raise"].result) == (expected, None)
    assert "in _raise" in (found["raise"].traceback or "")
    assert found["exit"].error == "SystemExit: enough"
    assert (found["no object"].error or "").startswith("TypeError: Object of type set")
    assert all(outcome.attempts == 1 for outcome in found.values())
    assert found["well"].result == found["after"].result, "by the same process"
    (listed,) = run_tasks([Task("a")], Work(f"{HERE}no_json"), workers=workers)
    assert listed.error == "TypeError: the result of a task is a JSON object, not list"


def test_a_long_message_is_cut() -> None:
    def fail(arguments: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("x" * 1_000_000)

    told = json.loads(answer(fail, {}))
    assert len(told["error"]) < 5_000
    assert told["error"].startswith("ValueError: xxx")
    assert not told["exhausted"]


# --- what cannot be loaded ----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("scale.executor_works:echo", "there is no module 'scale.executor_works'"),
        ("no.such:echo", "there is no module 'no'"),
        (f"{HERE}ecko", "the module 'scale.executor_work' has no function 'ecko'"),
        (f"{HERE}MISBEHAVE", "has no function"),
        (f"{HERE}refuses", "^models/a: the model is not there\n  fix: get it$"),
    ],
)
def test_a_function_that_is_not_there(workers: int, function: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(run_tasks([do("well")], Work(function), workers=workers))


def test_a_function_is_named_with_its_module() -> None:
    with pytest.raises(InputError, match="module:name, found 'echo'"):
        Work("echo")


def test_a_factory_with_a_bug_shows_it() -> None:
    with pytest.raises(RuntimeError, match=r"KeyError: 'a bug'\n(.|\n)*in fails"):
        list(run_tasks([do("well")], Work(f"{HERE}fails"), workers=2))


def test_workers_that_die_while_they_load_end_the_run() -> None:
    with pytest.raises(InputError, match=r"lost while they load .*: .* ended with exit code 9"):
        list(run_tasks((Task(str(n)) for n in range(100)), Work(f"{HERE}dies"), workers=2))


def test_a_worker_that_never_opens_ends_the_run() -> None:
    executor = LocalExecutor(1, Limits(retries=0, open_seconds=0.5))
    with pytest.raises(InputError, match=r"not open after 0\.5 s"):
        one(executor, Task("a"), Work(f"{HERE}never_opens"))


@pytest.mark.parametrize("workers", [0, 2])
def test_two_tasks_of_one_key(workers: int) -> None:
    with pytest.raises(InputError, match="two tasks have the key 'well'"):
        list(run_tasks([do("well"), do("well")], MISBEHAVE, workers=workers))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalExecutor(-1), "workers must be at least 0"),
        (lambda: LocalExecutor(1, memory_bytes=0), "memory_bytes must be greater"),
        (lambda: Limits(retries=-1), "retries must be at least 0"),
        (lambda: Limits(task_seconds=0), "task_seconds must be greater than 0"),
        (lambda: Limits(tasks_per_worker=0), "tasks_per_worker must be greater"),
        (lambda: LocalExecutor(0, Limits(task_seconds=1)), "workers is 0"),
    ],
)
def test_limits_that_make_no_sense(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
