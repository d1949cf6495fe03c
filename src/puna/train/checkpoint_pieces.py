"""The files of a checkpoint: tensors in runs of rows, written by whoever holds them, read by any.

A model that is whole on each rank makes one file of a kind, a spread one a file for each rank. A
listing says of every file which tensors it holds, with their digests, whole shapes and first rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.errors import InputError
from puna.scale.pieces import Piece, piece
from puna.store.checkpoint import LazyTensor
from puna.store.safetensors import read_safetensors
from puna.store.safetensors_writer import write_shard
from puna.store.values import digest_lazy

TRAINED, OPTIMIZER = "trained", "optimizer"  # kinds of files

# kind -> file -> tensor -> its sha256, the shape of the whole tensor, and the first row here
Listing = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Part:
    """What this rank holds of a tensor."""

    tensor: Tensor
    """Plain."""
    place: Piece

    def frozen(self) -> Part:
        """A copy in main memory, which later steps leave as it is."""
        return Part(self.tensor.detach().to("cpu", copy=True), self.place)


Parts = dict[str, Part]


def parts_of(tensors: Mapping[str, Tensor], places: Mapping[str, Piece]) -> Parts:
    """What this rank holds of tensors.

    Args:
        tensors: What learns by its name, or the state of an optimizer as `NAME/FIELD`; plain.
        places: Where what learns lies. A field that is shaped as what is here of its tensor lies
            where that does; all else is whole.
    """
    found = {}
    for name, tensor in tensors.items():
        place = places.get(name) or places.get(name.rpartition("/")[0])
        if place is None or tuple(tensor.shape) != place.local_shape:
            place = piece(tensor)
        found[name] = Part(tensor, place)
    return found


def to_write(parts: Parts, *, first: bool) -> Parts:
    """Those that this rank has to write, so that every row is written once.

    Args:
        parts: What it holds.
        first: Whether it is the first rank, which writes what is whole on all.
    """
    return {
        name: part
        for name, part in parts.items()
        if (first if part.place.is_whole else part.place.owned and part.place.rows)
    }


def write_parts(folder: Path, kinds: Mapping[str, Parts], rank: int | None) -> Listing:
    """Write one file of each kind, and see it to the disk.

    Args:
        folder: An existing folder.
        kinds: What to write, by kind; every part in full.
        rank: Whose files these are; None: of a model that is whole on each rank.

    Returns:
        What is in the files.

    Raises:
        OSError: The disk refused.
        InputError: A value is not finite.
    """
    listing: Listing = {}
    for kind, parts in kinds.items():
        name = f"{kind}.safetensors" if rank is None else f"{kind}-{rank:05d}.safetensors"
        digests = write_shard(folder / name, [_described(*item) for item in parts.items()])
        _to_disk(folder / name)
        listing[kind] = {name: {row.name: _told(parts[row.name], row.sha256) for row in digests}}
    return listing


def merged(listings: list[Listing]) -> Listing:
    """The listing of all ranks' files."""
    found: Listing = {}
    for listing in listings:
        for kind, files in listing.items():
            found.setdefault(kind, {}).update(files)
    return found


class Stored(Mapping[str, Tensor]):
    """The tensors of a checkpoint, each as a whole or by rows; values are read when asked for.

    They may map the files: copy, do not write.
    """

    def __init__(self, runs: Mapping[str, list[_Run]]) -> None:
        self._runs = {name: sorted(own, key=lambda run: run.start) for name, own in runs.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name, 0, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        return self._runs[name][0].shape

    def dtype(self, name: str) -> torch.dtype:
        """Of its values."""
        return self._runs[name][0].lazy.dtype

    def rows(self, name: str, start: int, stop: int | None) -> Tensor:
        """The rows [start, stop) of a tensor; with 0 and None all of it."""
        runs = self._runs[name]
        if stop is None and len(runs) == 1:
            return runs[0].lazy.load()
        end = self.shape(name)[0] if stop is None else stop
        touched = [run for run in runs if run.start < end and start < run.start + run.rows]
        if not touched:
            return runs[0].lazy.load()[:0]
        parts = [run.lazy.load()[max(start - run.start, 0) : end - run.start] for run in touched]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def at(self, name: str, place: Piece) -> Tensor:
        """The rows of a piece."""
        return self[name] if place.is_whole else self.rows(name, place.start, place.stop)


@dataclass(frozen=True)
class _Run:
    """Rows of a tensor that lie in one file."""

    lazy: LazyTensor
    shape: tuple[int, ...]  # of the whole tensor
    start: int

    @property
    def rows(self) -> int:
        return self.lazy.shape[0] if self.shape else 1


def read_parts(folder: Path, listing: Mapping[str, Any], rank: int, ranks: int) -> Stored:
    """Open the files of one kind, and check a share of them.

    Args:
        folder: Where they lie.
        listing: File -> tensor -> what was written of it.
        rank: Which share: this one's of ...
        ranks: so many; together they check every byte.

    Raises:
        InputError: A file is missing, cut short or changed, or rows are missing.
    """
    runs: dict[str, list[_Run]] = {}
    number = 0
    for file, tensors in listing.items():
        lazy = read_safetensors(folder / file)
        if lazy.keys() != tensors.keys():
            raise InputError("holds other tensors than were written", where=folder / file)
        for name, told in tensors.items():
            if number % ranks == rank and digest_lazy(lazy[name]).sha256 != told["sha256"]:
                what = f"tensor {name!r} is not as it was written"
                raise InputError(what, where=folder / file)
            number += 1
            shape = tuple(told.get("shape", lazy[name].shape))
            runs.setdefault(name, []).append(_Run(lazy[name], shape, told.get("start", 0)))
    for name, own in runs.items():
        _check_rows(folder, name, own)
    return Stored(runs)


def _check_rows(folder: Path, name: str, runs: list[_Run]) -> None:
    """Every row is there, once."""
    shape, dtype, position = runs[0].shape, runs[0].lazy.dtype, 0
    for run in sorted(runs, key=lambda run: run.start):
        whole = run.start == position and run.shape == shape and run.lazy.dtype == dtype
        if not whole or run.lazy.shape[1:] != shape[1:]:
            raise InputError(f"the parts of tensor {name!r} do not fit together", where=folder)
        position += run.rows
    if position != (shape[0] if shape else 1):
        raise InputError(f"tensor {name!r} has {position} rows of {list(shape)}", where=folder)


def _described(name: str, part: Part) -> LazyTensor:
    tensor = part.tensor
    load = partial(_on_cpu, tensor)
    return LazyTensor(name, tuple(tensor.shape), tensor.dtype, str(tensor.dtype), load)


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


def _told(part: Part, sha256: str) -> dict[str, Any]:
    return {"sha256": sha256, "shape": list(part.place.shape), "start": part.place.start}


def _to_disk(path: Path) -> None:
    """What other ranks wrote cannot be seen to the disk by the one that renames."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
