"""A tuning run that is killed, again and again: `python tune_victim.py FOLDER BASE PAIRS`.

Each attempt is a forked child that kills itself at a place of the whole flow; the last one comes
through. A line is printed for each: the place, and how the child ended.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import puna.artifact
from flows.tuning_setup import Heard, asked, run
from puna.flows import run_place, tuning

DROPOUT = {"method": "lora", "rank": 4, "layers": 1, "dropout": 0.1}
PLACES = (  # in the order of the flow, as far as it goes before it ends
    "judging the base: answering",
    "trunk cache",
    "attach",
    "sync 4",  # the so-manieth writing of a file or folder to the disk
    "begin",
    "step 1",
    "step 2",
    "evaluated 4",
    "sync 9",
    "step 6",
    "end",
    "load_trained",
    "judging the result: scoring",
    "sync 2",
    "publish",
    "tune_page",
    "write",
    "finish",
)
CALLS = ("publish", "write", "attach", "load_trained", "tune_page")


def recipe(base: Path, pairs: Path) -> dict[str, Any]:
    """With dropout, and a metric that is found by generating; the cache in many chunks."""
    return asked(
        base,
        pairs,
        method=DROPOUT,
        watch={"metrics": ["chrf"], "max_examples": 3},
        trunk_cache={"batch_tokens": 128},
        threads=1,
    )


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
    heard = Heard({place: strike})
    if place == "trunk cache":
        heard.at = {place: after(3, lambda: None)}  # in the midst of it
    elif place in CALLS:
        setattr(tuning, place, strike)
    elif place == "finish":
        setattr(run_place.RunPlace, place, strike)
    elif place.startswith("sync "):
        puna.artifact._sync = after(int(place.removeprefix("sync ")), puna.artifact._sync)
    run(out, asked_for, heard)


def main(out: Path, base: Path, pairs: Path) -> None:
    """Attempt at each place in turn, and then without dying."""
    for name in ("numba", "sacrebleu", "puna.generate.step_kernels"):
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)  # once, rather than in each child
    for place in (*PLACES, "nowhere"):
        child = os.fork()
        if not child:
            code = 1
            try:
                attempt(out, recipe(base, pairs), place)
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
    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:]))
