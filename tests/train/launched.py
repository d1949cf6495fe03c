"""One rank of a run under torchrun: `launched.py FOLDER MODE`, with what `puna` says at its end.

Modes: `whole`; `killed`: the second rank dies by SIGKILL in its sixth step, the first time;
`fault`: it has an error of its own there; `agreed`: both ranks have the same one at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from puna.errors import AlreadyToldError, InputError
from puna.scale.world import World
from puna.tokens.batches import Batch
from puna.train import Silent, fit
from train.shard_ranks import EVERY, EXAMPLES, ROWS, model_job
from train.stub import Loader

FATAL_BATCH = 11  # two of each step; the checkpoint of the second one has its place by then


class Fateful(Loader):
    """Strikes before a batch."""

    def __init__(self, rank: int, ranks: int, mode: str):
        super().__init__(EXAMPLES, ROWS, rank, ranks, shuffle=False)
        self.mode = mode

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        for number, pair in enumerate(super().__iter__(), 1):
            if self.rank == 1 and number == FATAL_BATCH:
                self.strike()
            yield pair

    def strike(self) -> None:
        if self.mode == "fault":
            raise InputError("the disk of this rank is gone", fix="bring it back")
        if self.mode == "killed" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)


class Notes(Silent):
    """Prints what a user should know."""

    def note(self, text: str) -> None:
        print(text, flush=True)


def train(world: World, folder: Path, mode: str) -> None:
    """A run in shards, checkpoints in the background."""
    if mode == "agreed":
        raise InputError("the recipe is wrong", fix="mend it")
    if world.is_first:
        folder.mkdir(exist_ok=True)
    world.barrier()
    made = model_job(world, spread=True)
    made = replace(made, loader=Fateful(world.rank, world.size, mode))
    config = replace(EVERY, background_checkpoints=True)
    fit(made, config, folder, world=world, report=Notes())


def main(folder: Path, mode: str) -> int:
    """As the command line does."""
    torch.set_num_threads(1)
    try:
        with World.launched() as world:
            train(world, folder, mode)
    except AlreadyToldError:
        return 2
    except InputError as error:
        print(f"puna: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
