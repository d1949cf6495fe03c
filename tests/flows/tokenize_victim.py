"""A tokenizing run that is killed, again and again: `python tokenize_victim.py OUT DATA`.

Each attempt is a forked child that kills itself at a place of the whole flow; the last one comes
through. A line is printed for each: the place, and how the child ended.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import puna.artifact
from flows.tokenizing_setup import SMALL, asked, rows, run
from puna.flows import tokenizing
from puna.flows.tokenize_place import Workspace
from puna.tokens.shard_writer import ShardWriter

PLACES = (  # in the order of the flow, as far as it goes before it ends
    "sync 2",  # the so-manieth writing of a file or folder to the disk
    "save_plan",
    "sync 3",
    "load_vocabulary",
    "add 50",  # the so-manieth document
    "sync 3",
    "add 40",
    "sync 4",
    "told_files",
    "publish",
    "replace",
    "remove",
)
CALLS = ("save_plan", "load_vocabulary", "told_files", "publish")


def recipe(folder: Path) -> dict[str, Any]:
    """Two sources, in many files; written once, for a run knows its files by their times."""
    sources = {"web": rows(90), "books": rows(40, begin=1000)}
    return asked(folder, sources, SMALL)


def strike(*_: Any, **__: Any) -> None:
    """Die without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def after(count: int, then: Callable[..., Any]) -> Callable[..., Any]:
    """`then`, but for the count-th call."""
    left = [count]

    def call(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            strike()
        return then(*arguments, **named)

    return call


def attempt(out: Path, asked_for: dict[str, Any], place: str) -> None:
    """Run, and die at a place."""
    word, _, number = place.partition(" ")
    if word in CALLS:
        setattr(tokenizing, word, strike)
    elif word == "sync":
        puna.artifact._sync = after(int(number), puna.artifact._sync)
    elif word == "add":
        setattr(ShardWriter, word, after(int(number), ShardWriter.add))
    elif word == "replace":
        puna.artifact._replace = after(1, puna.artifact._replace)
    elif word == "remove":
        setattr(Workspace, word, strike)
    run(out, asked_for)


def main(out: Path, data: Path) -> None:
    """Attempt at each place in turn, and then without dying."""
    told = recipe(data)
    for place in (*PLACES, "nowhere"):
        child = os.fork()
        if not child:
            code = 1
            try:
                attempt(out, told, place)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(
            place,
            os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status),
            flush=True,
        )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
