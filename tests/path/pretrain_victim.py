"""A pretraining run that is killed, again and again: `python pretrain_victim.py FOLDER SHARDS`.

Each attempt is a forked child that kills itself at a place of the whole flow; the last one comes
through. A line is printed for each: the place, and how the child ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

import puna.artifact
from flows.pretraining_setup import asked, raise_model
from flows.tuning_setup import Heard
from path.tune_victim import after, strike
from puna.flows import pretraining, run_place

PLACES = (  # in the order of the flow, as far as it goes before it ends
    "data",
    "begin",
    "step 2",
    "sync 2",  # the so-manieth writing of a file or folder to the disk
    "step 4",
    "sync 7",
    "evaluated 4",
    "step 8",
    "sync 5",
    "end",
    "load_trained",
    "publish_pretrained",
    "sync 4",
    "pretrain_page",
    "write",
    "finish",
)
CALLS = ("load_trained", "publish_pretrained", "pretrain_page", "write")


def attempt(out: Path, shards: Path, place: str) -> None:
    """Run, and die at a place."""
    heard = Heard({place: strike})
    if place in CALLS:
        setattr(pretraining, place, strike)
    elif place == "finish":
        setattr(run_place.RunPlace, place, strike)
    elif place.startswith("sync "):
        puna.artifact._sync = after(int(place.removeprefix("sync ")), puna.artifact._sync)
    raise_model(out, asked(shards, threads=1), heard)


def main(out: Path, shards: Path) -> None:
    """Attempt at each place in turn, and then without dying."""
    for place in (*PLACES, "nowhere"):
        child = os.fork()
        if not child:
            code = 1
            try:
                attempt(out, shards, place)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        print(place, ended, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:]))
