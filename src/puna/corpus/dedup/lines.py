"""Lines that many documents of a site share, counted over all units and removed everywhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from puna.corpus.dedup.config import LinesConfig
from puna.corpus.dedup.partitions import first_of_group
from puna.corpus.dedup.signing import kernels
from puna.corpus.dedup.words import text_buffers, word_table
from puna.corpus.schema import alive, with_drops, with_stats, with_texts
from puna.corpus.step import Apply
from puna.errors import InputError

_LINE_FEED = 10
_HASHES, _COUNTS = "lines-hashes.npy", "lines-counts.npy"
_BYTES_PER_RECORD = 64  # hash and count, their order, sorted copies
_BLANK_LINES = re.compile(r"\n{3,}")


class Lines(NamedTuple):
    """The lines of a batch's documents, as they stand in its buffers."""

    bounds: np.ndarray
    """Where each begins and the last one ends, with the line feeds: int64 [lines + 1]."""
    rows: np.ndarray
    """Of which document each is: int64 [lines]."""
    hashes: np.ndarray
    """Of site and words, uint64 [lines]; 0 of those that are not compared: they have no word, or
    their document belongs to no site."""


def count_lines_unit(batches: Iterable[pa.RecordBatch], folder: Path, config: LinesConfig) -> int:
    """Leave beside a unit's data in how many of its documents each line stands.

    Args:
        batches: The documents; those that are dropped or in error do not count.
        folder: Where the files are written; it is made where it does not exist.
        config: What a line and a site are.

    Returns:
        How many different lines there are.

    Raises:
        MissingPackageError: numba is not installed.
    """
    hashes, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for batch in batches:
        lines = lines_of(batch, config)
        held = (lines.hashes != 0) & alive(batch)[lines.rows]
        found = _once_for_each(lines.rows[held], lines.hashes[held])
        hashes, counts = _summed([hashes, found], [counts, np.ones(len(found), np.int64)])
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / _HASHES, hashes)
    np.save(folder / _COUNTS, counts)
    return len(hashes)


def find_repeated_lines(folders: Sequence[Path], config: LinesConfig) -> np.ndarray:
    """Find the lines that stand in more documents of a site than may be.

    Args:
        folders: What `count_lines_unit` wrote.
        config: Says how many documents are too many.

    Returns:
        Hashes of site and words, uint64, sorted.

    Raises:
        InputError: Files are missing or damaged.
    """
    units = [_mapped(folder) for folder in folders]
    total = sum(len(hashes) for hashes, _ in units)
    ranges = max(-(-total * _BYTES_PER_RECORD // config.memory_bytes), 1)
    edges = np.linspace(0, 2.0**64, ranges + 1)[1:-1].astype(np.uint64)
    bounds = [[0, *np.searchsorted(hashes, edges), len(hashes)] for hashes, _ in units]
    repeated = [np.zeros(0, np.uint64)]
    for place in range(ranges):
        spans = [slice(bound[place], bound[place + 1]) for bound in bounds]
        hashes, counts = _summed(
            [unit[0][span] for unit, span in zip(units, spans, strict=True)],
            [unit[1][span] for unit, span in zip(units, spans, strict=True)],
        )
        repeated.append(hashes[counts > config.documents])
    return np.concatenate(repeated)


def removing_lines(repeated: np.ndarray, config: LinesConfig) -> Apply:
    """A function that removes repeated lines of a batch's documents.

    The figure `repeated_lines` says how many; a document of which nothing is left is dropped.

    Args:
        repeated: What `find_repeated_lines` found.
        config: As there.

    Raises:
        MissingPackageError: numba is not installed.
    """
    kernels()

    def apply(batch: pa.RecordBatch) -> pa.RecordBatch:
        lines = lines_of(batch, config)
        removed = _among(lines.hashes, repeated) & alive(batch)[lines.rows]
        counts = np.bincount(lines.rows[removed], minlength=batch.num_rows)
        changed = np.flatnonzero(counts).tolist()
        batch = with_stats(batch, {"repeated_lines": counts})
        if not changed:
            return batch
        texts = batch.column("text").to_pylist()
        for row in changed:
            texts[row] = _without(batch, lines, removed, row)
        batch = with_texts(batch, texts, changed)
        emptied = [row for row in changed if not texts[row]]
        return with_drops(batch, dict.fromkeys(emptied, config.step))

    return apply


def lines_of(batch: pa.RecordBatch, config: LinesConfig) -> Lines:
    """The lines or paragraphs of all documents of a batch.

    Raises:
        MissingPackageError: numba is not installed.
    """
    offsets, data = text_buffers(batch)
    first, last = offsets[0], offsets[-1]
    ends = np.flatnonzero(data[first:last] == _LINE_FEED) + first + 1
    if config.unit == "paragraph":
        ends = ends[(ends - 2 >= first) & (data[ends - 2] == _LINE_FEED)]
    bounds = np.unique(np.concatenate([offsets, ends]))
    bounds.flags.writeable = False  # as `text_buffers` has it: another one would compile
    rows = np.searchsorted(offsets, bounds[:-1], side="right") - 1
    sites, seeds = _sites(batch, config)
    hashes = np.empty(len(rows), np.uint64)
    kernels().hash_sequences(data, bounds, tuple(word_table()), seeds[rows], hashes)
    return Lines(bounds, rows, np.where(sites[rows], hashes, np.uint64(0)))


def site_of(url: str | None) -> str | None:
    """The host of an address, without `www.`; None where it has none."""
    try:
        host = urlsplit(url).hostname if url else None
    except ValueError:
        return None
    return host.removeprefix("www.") if host else None


def _sites(batch: pa.RecordBatch, config: LinesConfig) -> tuple[np.ndarray, np.ndarray]:
    """Whether each document has a site, bool [rows], and 64 bits of it, uint64 [rows]."""
    if config.site == "source":
        names: list[str | None] = batch.column("source").to_pylist()
    else:
        names = [site_of(url) for url in batch.column("url").to_pylist()]
    known = {name: _hash64(name) for name in set(names) if name is not None}
    seeds = np.array([known.get(name or "", 0) for name in names], dtype=np.uint64)
    return np.array([name is not None for name in names], dtype=bool), seeds


def _hash64(text: str) -> int:
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _without(batch: pa.RecordBatch, lines: Lines, removed: np.ndarray, row: int) -> str:
    """A document's text without the lines that are removed, and without the gaps they leave."""
    _, data = text_buffers(batch)
    own = range(*np.searchsorted(lines.rows, [row, row + 1]).tolist())
    kept = [data[lines.bounds[i] : lines.bounds[i + 1]].tobytes() for i in own if not removed[i]]
    return _BLANK_LINES.sub("\n\n", b"".join(kept).decode()).strip("\n")


def _once_for_each(rows: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """The hashes of every document without repeats."""
    order = np.lexsort([hashes, rows])
    rows, hashes = rows[order], hashes[order]
    return np.asarray(hashes[first_of_group(rows) | first_of_group(hashes)])


def _summed(hashes: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Counts of equal hashes together, sorted by hash."""
    joined = np.concatenate([np.zeros(0, np.uint64), *hashes])
    found, places = np.unique(joined, return_inverse=True)
    weights = np.concatenate([np.zeros(0, np.int64), *counts])
    sums = np.bincount(places, weights=weights, minlength=len(found))
    return found, sums.astype(np.int64)


def _among(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    if not len(table):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return np.asarray(table[places] == values)


def _mapped(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        hashes, counts = (np.load(folder / name, mmap_mode="r") for name in (_HASHES, _COUNTS))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"is no unit whose lines were counted: {error}",
            where=folder,
            fix="look at the unit again",
        ) from error
    return np.asarray(hashes), np.asarray(counts)
