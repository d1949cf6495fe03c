"""Functions that the tests of the executors have done: some of them go badly."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from puna.errors import InputError
from puna.scale.units import UnitStore

Json = dict[str, Any]


def echo(shared: Json, arguments: Json) -> Json:
    return {"shared": shared, "arguments": arguments}


def times(shared: Json, arguments: Json) -> Json:
    return {"value": shared["by"] * arguments["value"]}


class Opened:
    """A factory: counts how often it was opened, and what it did since."""

    def __init__(self, shared: Json) -> None:
        self.done = 0

    def __call__(self, arguments: Json) -> Json:
        time.sleep(arguments.get("seconds", 0))
        self.done += 1
        return {"pid": os.getpid(), "done": self.done}


def misbehave(shared: Json, arguments: Json) -> Json:
    """Do what `arguments` say, each by the name of a function here."""
    return {"pid": os.getpid(), **(WAYS[arguments["way"]](arguments) or {})}


def _raise(arguments: Json) -> None:
    raise InputError("is no number", where="file.txt:3", fix="write one")


def _kill(arguments: Json) -> None:
    os.kill(os.getpid(), signal.Signals[arguments["signal"]])
    time.sleep(60)


def _kill_once(arguments: Json) -> None:
    mark = Path(arguments["mark"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _sleep(arguments: Json) -> None:
    time.sleep(arguments.get("seconds", 60))


def _hold_memory(arguments: Json) -> Json:
    return {"bytes": len(bytearray(arguments["bytes"]))}


def _leave_child(arguments: Json) -> None:
    """Die, and leave a process that holds the line open."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    Path(arguments["mark"]).write_text(str(child))
    os._exit(7)


def _environment(arguments: Json) -> Json:
    return {"found": {name: os.environ.get(name) for name in arguments["names"]}}


WAYS: dict[str, Callable[[Json], Json | None]] = {
    "well": lambda arguments: None,
    "raise": _raise,
    "exit": lambda arguments: sys.exit("enough"),
    "exit at once": lambda arguments: os._exit(3),
    "no object": lambda arguments: {"set": {1, 2}},
    "kill": _kill,
    "kill once": _kill_once,
    "crash": lambda arguments: {"read": ctypes.string_at(0).decode()},
    "sleep": _sleep,
    "hold memory": _hold_memory,
    "leave child": _leave_child,
    "print": lambda arguments: print("a task prints", flush=True),
    "close line": lambda arguments: os.closerange(3, 100),
    "environment": _environment,
}


def no_json(shared: Json, arguments: Json) -> Any:
    return [1]


def refuses(shared: Json) -> Callable[[Json], Json]:
    raise InputError("the model is not there", where="models/a", fix="get it")


def fails(shared: Json) -> Callable[[Json], Json]:
    raise KeyError("a bug")


def dies(shared: Json) -> Callable[[Json], Json]:
    os._exit(9)


def never_opens(shared: Json) -> Callable[[Json], Json]:
    time.sleep(60)
    raise AssertionError("not reached")


def make_unit(shared: Json, arguments: Json) -> Json:
    """A unit of two files whose content follows from its number alone."""
    store = UnitStore(Path(shared["folder"]))
    number = arguments["number"]
    with store.writing(arguments["key"]) as folder:
        (folder / "inner").mkdir()
        (folder / "a.txt").write_text(f"unit {number}\n" * 100)
        time.sleep(shared["seconds"])
        (folder / "inner" / "b.txt").write_text("more\n" * number)
    return {"number": number}
