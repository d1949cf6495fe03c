"""A pretraining run on several ranks: who joins, who is told, and who opens the folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from puna.errors import InputError
from puna.flows.opening import resolve_device
from puna.flows.run_place import PRETRAINING, RunPlace, check_place, held, open_place
from puna.model import LlamaModel
from puna.scale.spread import SpreadConfig, spread
from puna.scale.world import World
from puna.train import Silent
from puna.train.ranks import check_same, gather, together


class Unwatched(Silent):
    """The watcher of ranks that nobody looks at."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def lines(self, title: str, lines: list[str]) -> None:
        """Nothing."""


@contextlib.contextmanager
def joined(device: str) -> Iterator[World]:
    """The ranks that a launcher began, or this process alone.

    Args:
        device: The recipe's word; with several ranks each has a device of its own.

    Raises:
        InputError: The ranks compute on something else than the recipe says; or see
            `World.launched`.
    """
    with World.launched() as world:
        if world.size == 1:
            yield World.single(resolve_device(device))
            return
        if device not in ("auto", world.device.type):
            raise InputError(
                f"the recipe asks for device {device!r}, and the ranks are on {world.device.type}",
                fix="set device to auto",
            )
        yield world


@contextlib.contextmanager
def opened(
    out: Path, identity: str, world: World, *, force: bool, resume: bool
) -> Iterator[RunPlace]:
    """The run's folder, which the first rank opens and holds; all leave the block together.

    Args:
        out: The folder.
        identity: Of the run.
        world: The ranks.
        force: Remove the run that is there, and begin again.
        resume: There must be one to go on with.

    Raises:
        InputError: As `open_place`; on every rank.
    """
    with held(out) if world.is_first else contextlib.nullcontext():
        place = None
        with together(world):
            if world.is_first:
                place = open_place(out, identity, force=force, resume=resume, kind=PRETRAINING)
        mine = None if place is None else [place.finished, place.begun]
        finished, begun = gather(world, mine)[0]
        yield RunPlace(out, identity, finished=finished, begun=begun, kind=PRETRAINING)
        world.barrier()


def check_free(out: Path, world: World, *, force: bool, resume: bool) -> None:
    """Refuse a folder that cannot take the run, before anything is read.

    Raises:
        InputError: As `check_place`; on every rank.
    """
    with together(world):
        if world.is_first:
            check_place(out, force=force, resume=resume)


def laid_out(
    model: LlamaModel, world: World, config: SpreadConfig, compute_dtype: torch.dtype | None
) -> LlamaModel:
    """A fresh model as the ranks share it.

    Args:
        model: Whole on each rank.
        world: The ranks.
        config: How they share it.
        compute_dtype: Of gathered weights; None for their own.

    Raises:
        InputError: The ranks do not hold the same weights, or do not make up whole groups.
    """
    check_same(world, dict(model.named_parameters()))
    return spread(
        model,
        world,
        config,
        blocks=model.model.layers,
        doors=LlamaModel.DOORS,
        compute_dtype=compute_dtype,
    )
