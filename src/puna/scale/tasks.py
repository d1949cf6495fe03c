"""What an executor is given and gives back: tasks, the function that does them, and outcomes.

All that travels between processes is JSON, so a task means the same in this process, in a worker
beside it and on another machine.
"""

from __future__ import annotations

import importlib
import inspect
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from puna.errors import InputError

Json = dict[str, Any]
"""A JSON object."""
Call = Callable[[Json], Json]
"""What does one task: its arguments in, its result out."""

MOST_ERROR_CHARS = 4_000
_TRACEBACK_FRAMES = 30


@dataclass(frozen=True)
class Task:
    """One thing to do, apart from all others."""

    key: str
    """By which its outcome is known; unique within a run."""
    arguments: Json = field(default_factory=dict)
    """JSON; what is large goes by its path."""


@dataclass(frozen=True)
class Work:
    """What is done with each task."""

    function: str
    """`module:name` of an importable function: either `f(shared, arguments)` that gives a result,
    or, where it takes one argument, a factory: `f(shared)` is called once in each worker, loads
    what the tasks need, and gives what is then called with the arguments of each. A class whose
    instances can be called is a factory too."""
    shared: Json = field(default_factory=dict)
    """JSON, the same for all tasks."""

    def __post_init__(self) -> None:
        module, _, name = self.function.partition(":")
        if not module or not name:
            raise InputError(f"a function is named as module:name, found {self.function!r}")


@dataclass(frozen=True)
class Outcome:
    """What came of a task: either a result or an error."""

    key: str
    """Of the task."""
    result: Json | None
    """What the function gave; None where there is an error."""
    error: str | None
    """In words: `Type: message` of an exception, or how its worker ended."""
    attempts: int
    """How many times it was begun."""
    seconds: float
    """That it took in all attempts; waiting for a worker is not counted."""
    traceback: str | None = None
    """Of an exception, its last frames."""


def open_work(work: Work) -> Call:
    """Import the function and, where it is a factory, let it load what it needs.

    Raises:
        InputError: There is no such function.
        Exception: What the module or the factory raises.
    """
    function = _imported(work.function)
    if _is_factory(function):
        opened: Call = function(work.shared)
        return opened
    return lambda arguments: function(work.shared, arguments)


def answer(call: Call, arguments: Json) -> str:
    """Do one task and tell of it in one line of JSON, whatever happens.

    Either {"result", "seconds"}, or {"error", "traceback", "exhausted", "seconds"}: "exhausted"
    says that memory ran out, which another worker may mend.
    """
    begun = time.perf_counter()
    try:
        result = call(arguments)
        if not isinstance(result, dict):
            raise TypeError(f"the result of a task is a JSON object, not {type(result).__name__}")
        return json.dumps({"result": result, "seconds": time.perf_counter() - begun})
    except (Exception, SystemExit) as error:  # some libraries end the process where they fail
        return json.dumps({**describe(error), "seconds": time.perf_counter() - begun})


def describe(error: BaseException) -> Json:
    """An exception as JSON: what an outcome tells of it."""
    text = f"{type(error).__name__}: {error}"
    if len(text) > MOST_ERROR_CHARS:
        text = text[:MOST_ERROR_CHARS] + " ..."
    told = traceback.format_exception(error, limit=-_TRACEBACK_FRAMES)
    return {
        "error": text,
        "traceback": "".join(told),
        "exhausted": isinstance(error, MemoryError),
    }


def _imported(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module != missing and not module.startswith(f"{missing}."):
            raise  # the module is there, and misses another one
        raise InputError(f"there is no module {missing!r} to import {function!r} from") from error
    if not callable(found):
        raise InputError(f"the module {module!r} has no function {name!r}")
    called: Callable[..., Any] = found
    return called


def _is_factory(function: Callable[..., Any]) -> bool:
    taken = inspect.signature(function).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in plain and one.default is one.empty for one in taken) == 1
