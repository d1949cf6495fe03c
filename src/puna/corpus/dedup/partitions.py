"""Sorting more records than memory holds: by ranges of a 64-bit key into files, each on its own.

Keys are hashes, so ranges of equal width hold about equally many records; a file that came out too
large is parted again. Where a single key has more records than memory holds, they are sorted in
pieces, and the first one of every key goes on into the next piece, so that they stay connected.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

# A sort needs the records, their order, a sorted copy, and what is made of it.
_COPIES = 5
_FILLED = 0.75
"""How much of what may be sorted at a time a file is meant to hold."""
_LEAST_RECORDS = 256
"""Sorted at a time, however little memory is granted."""
_LEVELS = 3
_BITS_PER_LEVEL = 16


class Partitions:
    """Files of records by ranges of their first field, `key`, an unsigned integer of 64 bits."""

    def __init__(self, folder: Path, dtype: np.dtype, *, records: int, memory_bytes: int) -> None:
        """Begin, with no files yet.

        Args:
            folder: An empty folder for the files, which exists.
            dtype: Of a record; its first field is `key`.
            records: How many there will be, about.
            memory_bytes: What sorting a file may take.
        """
        self._folder, self._dtype, self._level = folder, dtype, 0
        self._most = max(memory_bytes // (dtype.itemsize * _COPIES), _LEAST_RECORDS)
        self._count = max(int(-(-records // (self._most * _FILLED))), 1)

    @property
    def block_records(self) -> int:
        """How many records may be added at a time."""
        return self._most

    def add(self, records: np.ndarray) -> None:
        """Put records into the files that they belong to, in the order that they come in."""
        if self._count == 1:
            self._append(0, records)
            return
        keys = records["key"] << np.uint64(_BITS_PER_LEVEL * self._level)
        places = ((keys >> np.uint64(32)) * np.uint64(self._count)) >> np.uint64(32)
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], np.arange(self._count + 1, dtype=np.uint64))
        sorted_records = records[order]
        for number in range(self._count):
            part = sorted_records[bounds[number] : bounds[number + 1]]
            if len(part):
                self._append(number, part)

    def sorted_pieces(self) -> Iterator[np.ndarray]:
        """All records by file, sorted by all of their fields; each file is removed once read.

        Only records of which another one in the piece has the same key are given.
        """
        for number in range(self._count):
            path = self._path(number)
            if not path.exists():
                continue
            records = path.stat().st_size // self._dtype.itemsize
            if records > self._most and self._level + 1 < _LEVELS:
                yield from self._parted(path, records)
                continue
            carried = np.empty(0, self._dtype)
            for read in self._pieces(path):
                piece = np.concatenate([carried, read])
                yield _shared(piece)
                if records > self._most:
                    carried = piece[np.unique(piece["key"], return_index=True)[1]]
            path.unlink()

    def _parted(self, path: Path, records: int) -> Iterator[np.ndarray]:
        folder = path.with_suffix("")
        folder.mkdir()
        inner = Partitions(
            folder,
            self._dtype,
            records=records,
            memory_bytes=self._most * self._dtype.itemsize * _COPIES,
        )
        inner._level = self._level + 1
        for read in self._pieces(path):
            inner.add(read)
        path.unlink()
        yield from inner.sorted_pieces()
        folder.rmdir()

    def _pieces(self, path: Path) -> Iterator[np.ndarray]:
        with path.open("rb") as file:
            while True:
                read = np.fromfile(file, self._dtype, count=self._most)
                if not len(read):
                    return
                yield read

    def _append(self, number: int, records: np.ndarray) -> None:
        with self._path(number).open("ab") as file:
            file.write(np.ascontiguousarray(records).view(np.uint8).data)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.bin"


def first_of_group(keys: np.ndarray) -> np.ndarray:
    """Where another key begins, bool [records], among keys of which equal ones stand together."""
    starts = np.ones(len(keys), bool)
    starts[1:] = keys[1:] != keys[:-1]
    return starts


def _shared(records: np.ndarray) -> np.ndarray:
    """Records whose key others have too, sorted by all fields."""
    keys = records["key"]
    order = np.argsort(keys)
    found = keys[order]
    same = found[1:] == found[:-1]
    held = np.zeros(len(found), bool)
    held[1:] |= same
    held[:-1] |= same
    # Few are left, so that the slower sort by all fields costs little.
    left = records[order[held]]
    names = left.dtype.names or ()
    return left[np.lexsort([left[name] for name in reversed(names)])]
