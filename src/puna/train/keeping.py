"""Writing checkpoints: by one rank or by all, at once or beside the steps that follow.

The first rank makes a temporary folder, every rank writes its part into it, and when all have told
the digests of what they wrote, the first one lists them in `state.json` and renames the folder. A
rank that is killed at any moment leaves the checkpoints before as they were. In the background a
thread writes a copy that was taken in main memory.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from puna.artifact import writing_folder
from puna.errors import InputError
from puna.scale.pieces import Piece
from puna.scale.world import World
from puna.train import checkpoints
from puna.train.checkpoint_pieces import (
    OPTIMIZER,
    TRAINED,
    Part,
    Parts,
    merged,
    parts_of,
    to_write,
    write_parts,
)
from puna.train.ranks import gather, together


@dataclass(frozen=True)
class Content:
    """What goes into a checkpoint, of what is on this rank."""

    step: int
    state: Mapping[str, Any]
    """Plain data, the same on every rank; those of the first one count."""
    trained: Mapping[str, Tensor]
    """What learns, by name; plain."""
    optimizer: Mapping[str, Tensor]
    """Its state, as `NAME/FIELD`."""
    places: Mapping[str, Piece]
    """Where what learns lies."""
    sharded: bool
    """Whether each rank has a part only; else each has everything, and the first one writes."""
    best_step: int | None = None
    """A checkpoint that is not to be removed."""
    prune: bool = True
    """Whether to remove others that are too many, once this one has its place."""


class Keeper:
    """Writes the checkpoints of a run; every rank calls the same methods in the same order.

    Args:
        workspace: The folder of the run.
        world: The ranks.
        newest: How many checkpoints to keep, beside the best one.
        background: Whether steps go on while one is written. It then takes its place in `settle`,
            at the latest when the next one is due, or in `finish`.
    """

    def __init__(self, workspace: Path, world: World, *, newest: int, background: bool) -> None:
        self._workspace, self._world = workspace, world
        self._newest, self._background = newest, background
        self._pending: _Pending | None = None

    @property
    def is_written(self) -> bool:
        """Whether this rank has written its part of a checkpoint that has not its place yet."""
        return self._pending is not None and not self._pending.writer.is_alive()

    def has(self, step: int) -> bool:
        """Whether the checkpoint of a step is there or being written, the same on every rank."""
        pending = self._pending is not None and self._pending.content.step == step
        there = gather(self._world, pending or checkpoints.exists(self._workspace, step))
        return bool(there[0])

    def keep(self, content: Content) -> None:
        """Write a checkpoint, or begin to.

        Raises:
            InputError: The disk refused, or a value is not finite, on this rank or another one, of
                this checkpoint or of the one before. Older checkpoints are as they were.
        """
        self.finish()
        first = self._world.is_first
        place = contextlib.ExitStack()
        folder: Path | None = None
        with together(self._world):
            if first:
                path = checkpoints.place_for(self._workspace, content.step)
                folder = self._open(place, path)
        shared = Path(gather(self._world, folder and str(folder))[0])
        writer = _Writer(shared, self._own(content), self._number(content))
        self._pending = _Pending(content, shared, place, writer)
        if self._background:
            writer.start()
        else:
            writer.run()
            self.finish()

    def settle(self, written: bool) -> None:
        """Give a checkpoint its place, if every rank has written its part.

        Args:
            written: Whether `is_written` holds on all of them; the same on each.

        Raises:
            InputError: As `keep`.
        """
        if written:
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, if one is, and give it its place.

        Raises:
            InputError: As `keep`.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        pending.writer.wait()
        if pending.writer.told is None:
            self._abandon(pending)
            raise pending.writer.crash or RuntimeError("a checkpoint was not written to its end")
        told = gather(self._world, pending.writer.told)
        with together(self._world):
            if self._world.is_first:
                self._publish(pending, told)

    def close(self) -> None:
        """Leave nothing behind after a failure of the run.

        One process alone finishes what it was writing; of several, others may be gone.
        """
        if self._pending is None:
            return
        self._pending.writer.wait()
        if self._world.size == 1 and self._pending.writer.told is not None:
            with contextlib.suppress(InputError):
                self.finish()
        else:
            pending, self._pending = self._pending, None
            self._abandon(pending)

    def found(
        self,
        up_to: int | None,
        accept: Callable[[Mapping[str, Any]], None],
        note: Callable[[str], None],
    ) -> checkpoints.Saved | None:
        """The checkpoint to go on from, the same on every rank; later ones are removed.

        Args:
            up_to: The newest one up to this step, or else the newest there is; None for the
                newest, with which a process begins.
            accept: Is given its state, and raises where the run must not go on from it.
            note: Is told what is damaged, and where the run goes on.

        Raises:
            InputError: None can be read, though there are some; or `accept` raised it.
        """
        self.finish()  # it may be the one
        saved, faults = checkpoints.newest(self._workspace, up_to, self._world)
        if saved is None and up_to is not None:
            saved, faults = checkpoints.newest(self._workspace, world=self._world)
        for fault in faults:
            note(f"a checkpoint is damaged and left out: {fault}")
        if saved is None:
            return None
        accept(saved.state)
        with together(self._world):
            if self._world.is_first:
                checkpoints.drop_after(self._workspace, saved.step)
        if up_to is None:
            note(f"going on from the checkpoint after step {saved.step}")
            before, now = len(saved.state["random"]), self._world.size
            if before != now:
                note(f"the run was on {before} ranks, this is one of {now}")
        return saved

    def _open(self, place: contextlib.ExitStack, path: Path) -> Path:
        try:
            return place.enter_context(writing_folder(path))
        except InputError as error:
            raise checkpoints.with_what_is_left(error, self._workspace) from error

    def _own(self, content: Content) -> dict[str, Parts]:
        """What this rank has to write; in the background a copy of it."""
        kinds = {TRAINED: content.trained, OPTIMIZER: content.optimizer}
        found = {
            kind: to_write(parts_of(tensors, content.places), first=self._world.is_first)
            for kind, tensors in kinds.items()
        }
        if not self._background:
            return found
        return {kind: _frozen(parts) for kind, parts in found.items()}

    def _number(self, content: Content) -> int | str | None:
        """Whose files they are: a rank's, the one file of all, or none."""
        if content.sharded:
            return self._world.rank
        return _ALL if self._world.is_first else None

    def _publish(self, pending: _Pending, told: list[dict[str, Any]]) -> None:
        """On the first rank: the listing, and the folder's name."""
        content = pending.content
        try:
            with pending.place:  # cleans up, and says what the disk refused
                _raise_first(told)
                files = merged([row["files"] for row in told])
                checkpoints.write_state(pending.folder, content.step, content.state, files)
        except InputError as error:
            raise checkpoints.with_what_is_left(error, self._workspace) from error
        if content.prune:
            checkpoints.prune(self._workspace, self._newest, content.best_step)

    def _abandon(self, pending: _Pending) -> None:
        with contextlib.suppress(_Abandoned), pending.place:
            raise _Abandoned


_ALL = "all"


class _Abandoned(Exception):
    """A checkpoint that is not to be."""


@dataclass(frozen=True)
class _Pending:
    """A checkpoint without its place."""

    content: Content
    folder: Path
    place: contextlib.ExitStack  # of the folder, on the first rank
    writer: _Writer


class _Writer(threading.Thread):
    """Writes the part of one rank; `told` is what the others are told at its end."""

    def __init__(self, folder: Path, kinds: Mapping[str, Parts], number: int | str | None) -> None:
        super().__init__(name="checkpoint", daemon=True)
        self._folder, self._kinds, self._number = folder, kinds, number
        self.told: dict[str, Any] | None = None
        self.crash: Exception | None = None

    def run(self) -> None:
        """Write, in whichever thread."""
        rank = self._number if isinstance(self._number, int) else None
        try:
            files = {} if self._number is None else write_parts(self._folder, self._kinds, rank)
            self.told = {"files": files}
        except InputError as error:
            where = None if error.where is None else str(error.where)
            self.told = {"fault": [error.what, where, error.fix]}
        except OSError as error:
            self.told = {"refused": [error.errno, error.strerror or str(error)]}
        except Exception as error:  # a defect of ours, for the thread that trains to raise
            self.crash = error
        finally:
            self._kinds = {}  # the copy's memory

    def wait(self) -> None:
        """Until all is written; in the foreground it is."""
        if self.ident is not None:
            self.join()


def _frozen(parts: Parts) -> Parts:
    frozen: dict[str, Part] = {name: part.frozen() for name, part in parts.items()}
    return frozen


def _raise_first(told: list[dict[str, Any]]) -> None:
    """What went wrong on the first rank on which something did."""
    for row in told:
        if "refused" in row:
            raise OSError(*row["refused"])
        if "fault" in row:
            what, where, fix = row["fault"]
            raise InputError(what, where=where, fix=fix)
