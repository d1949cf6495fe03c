"""Documents that say nearly the same: MinHash LSH, a check of every pair, components, one stays.

Band keys are sorted range by range, so that memory is bounded whatever the input; documents that
share a key are candidates. Locality-sensitive hashing: Indyk and Motwani 1998; the banding as in
Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from puna.corpus.dedup.clusters import Clusters
from puna.corpus.dedup.components import Components, Units, make_clusters
from puna.corpus.dedup.config import NearConfig
from puna.corpus.dedup.partitions import Partitions, first_of_group
from puna.corpus.dedup.units import digest_of

_RECORD = np.dtype([("key", np.uint64), ("name", np.uint64), ("row", np.int64)])
_REACH = 8
"""Each document of a band is compared with so many before it, and with the first."""
_LEAST_PAIRS = 64
"""Compared at a time, however little memory is granted."""


def find_near_duplicates(
    folders: Sequence[Path], config: NearConfig, work: Path, exact: Clusters | None = None
) -> Clusters:
    """Find documents whose sets of shingles have at least the similarity asked for.

    Documents that others connect are in one cluster, also where the two are less alike. The result
    does not depend on the order of the folders, nor on how documents lie in them, unless one band
    has more documents than memory holds.

    Args:
        folders: What `sign_unit` wrote.
        config: As there.
        work: An existing folder, where sorting makes a folder of its own and removes it.
        exact: Clusters whose dropped documents are left out here. Where units were signed before
            exact duplicates were dropped, these must be given: the two may keep different copies
            of one text, and none would be left.

    Raises:
        InputError: Files are missing, damaged, or made with another configuration.
        MissingPackageError: numba is not installed.
    """
    units = Units(folders, "near", digest_of(config))
    components, sketches = Components(units.rows), Sketches(units, config)
    with tempfile.TemporaryDirectory(dir=work, prefix="near-") as place:
        for pairs in candidates(units, config, Path(place), exact):
            pairs = pairs[:, components.apart(pairs)]
            found = sketches.similarities(pairs)
            components.join(pairs[:, found >= np.float32(config.threshold)])
    clusters, numbers = make_clusters(config.step, units, components)
    return replace(clusters, similarity=sketches.similarities_in_chunks(numbers))


def candidates(
    units: Units, config: NearConfig, folder: Path, exact: Clusters | None = None
) -> Iterator[np.ndarray]:
    """Pairs of documents that share a band's key: int64 [2, pairs], as many as memory may hold.

    Most pairs come once, the smaller number first; those that share several bands may come again.
    """
    records = units.rows * config.bands
    bands, codes = folder / "bands", folder / "pairs"
    bands.mkdir()
    codes.mkdir()
    memory = config.memory_bytes // 2
    partitions = Partitions(bands, _RECORD, records=records, memory_bytes=memory)
    left_out = exact.dropped() if exact else None
    for first, ids, keys in units.blocks("keys", partitions.block_records // config.bands):
        rows = np.arange(len(ids)) if left_out is None else np.flatnonzero(~left_out.holds(ids))
        partitions.add(_records(first + rows, ids[rows], keys[rows]))
    found = PairFiles(codes, units.rows, records=records, memory_bytes=memory)
    for piece in partitions.sorted_pieces():
        found.add(_pairs(piece))
    for pairs in found.read():
        for start in range(0, pairs.shape[1], _pairs_at_a_time(config)):
            yield pairs[:, start : start + _pairs_at_a_time(config)]


class PairFiles:
    """Pairs of numbers in files by the range of the smaller one, to be sorted one at a time."""

    def __init__(self, folder: Path, rows: int, *, records: int, memory_bytes: int) -> None:
        """Begin, with no files yet; of about as many records as there are there will be pairs."""
        self._folder, self._rows = folder, max(rows, 1)
        self._most = max(memory_bytes // (8 * 5), 2)
        self._count = max(-(-records // self._most), 1)

    def add(self, pairs: np.ndarray) -> None:
        """Put pairs, int64 [2, pairs], into the files that they belong to."""
        codes = np.unique(pairs.min(axis=0) * self._rows + pairs.max(axis=0))
        width = -(-self._rows // self._count) * self._rows
        edges = np.searchsorted(codes, np.arange(self._count + 1, dtype=np.int64) * width)
        for number in range(self._count):
            part = codes[edges[number] : edges[number + 1]]
            if len(part):
                with (self._folder / f"{number:05d}.bin").open("ab") as file:
                    file.write(part.data)

    def read(self) -> Iterator[np.ndarray]:
        """All pairs by file, int64 [2, pairs]; equal ones that memory holds at once come once."""
        for path in sorted(self._folder.iterdir()):
            with path.open("rb") as file:
                while True:
                    codes = np.fromfile(file, np.int64, count=self._most)
                    if not len(codes):
                        break
                    yield np.stack(np.divmod(np.unique(codes), self._rows))
            path.unlink()


class Sketches:
    """The sketches of all units, of which those that are compared are brought into memory."""

    def __init__(self, units: Units, config: NearConfig) -> None:
        """Take the units that `sign_unit` made with this configuration."""
        from puna.corpus.dedup import edge_kernels

        self._units, self._kernels = units, edge_kernels
        self._most = config.sketch
        self._chunk = _pairs_at_a_time(config)

    def similarities(self, pairs: np.ndarray) -> np.ndarray:
        """Jaccard similarity of pairs of documents, by their numbers: float32 [pairs]."""
        numbers, places = np.unique(pairs, return_inverse=True)
        values, starts = self._gather(numbers)
        found = np.empty(pairs.shape[1], np.float32)
        local = np.ascontiguousarray(places.reshape(pairs.shape), dtype=np.int64)
        self._kernels.similarities(values, starts, local, self._most, found)
        return found

    def similarities_in_chunks(self, pairs: np.ndarray) -> np.ndarray:
        """The same of any number of pairs."""
        found = np.empty(pairs.shape[1], np.float32)
        for start in range(0, pairs.shape[1], self._chunk):
            part = slice(start, start + self._chunk)
            found[part] = self.similarities(pairs[:, part])
        return found

    def _gather(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts, lengths = [np.zeros(0, np.uint32)], [np.zeros(1, np.int64)]
        for unit, rows in self._units.parts(numbers):
            starts, sketches = unit.array("starts"), unit.array("sketches")
            begins, ends = starts[rows], starts[rows + 1]
            spans = zip(begins.tolist(), ends.tolist(), strict=True)
            parts += [sketches[begin:end] for begin, end in spans]
            lengths.append(ends - begins)
        return np.concatenate(parts), np.cumsum(np.concatenate(lengths))


def _pairs_at_a_time(config: NearConfig) -> int:
    """How many pairs may have their sketches in half of the memory, if no two share one."""
    return max(config.memory_bytes // 2 // (2 * 4 * config.sketch), _LEAST_PAIRS)


def _records(numbers: np.ndarray, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """A record for each band of each document, by their numbers, int64 [documents]."""
    records = np.empty(keys.shape, _RECORD)
    records["key"] = keys
    records["name"] = ids[:, :8].copy().view(">u8").astype(np.uint64)
    records["row"] = numbers[:, None]
    return records.reshape(-1)


def _pairs(records: np.ndarray) -> np.ndarray:
    """Each document of a band with those before it, by their ids: int64 [2, pairs]."""
    keys, rows = records["key"], records["row"]
    parts = []
    for shift in range(1, min(_REACH, len(keys) - 1) + 1):
        later = np.flatnonzero(keys[shift:] == keys[:-shift]) + shift
        parts.append(np.stack([rows[later - shift], rows[later]]))
    firsts = np.flatnonzero(first_of_group(keys))
    of_each = np.repeat(firsts, np.diff(np.append(firsts, len(keys))))
    far = np.flatnonzero(np.arange(len(keys)) - of_each > _REACH)
    parts.append(np.stack([rows[of_each[far]], rows[far]]))
    return np.concatenate(parts, axis=1)
