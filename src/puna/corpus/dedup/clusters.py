"""Documents that belong together, which one of them stays, and how alike they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from puna.artifact import writing_file
from puna.corpus.dedup.units import as_ids
from puna.corpus.schema import ID_BYTES, alive, with_drops
from puna.corpus.step import Apply
from puna.errors import InputError


@dataclass(frozen=True)
class Ids:
    """A set of ids, 16 bytes each."""

    table: np.ndarray
    """Sorted, as strings of 16 bytes."""

    def holds(self, ids: np.ndarray) -> np.ndarray:
        """Which of some ids, uint8 [rows, 16], are among them: bool [rows]."""
        if not len(self.table):
            return np.zeros(len(ids), bool)
        names = _as_strings(ids)
        places = np.minimum(np.searchsorted(self.table, names), len(self.table) - 1)
        return np.asarray(self.table[places] == names)


@dataclass(frozen=True)
class Clusters:
    """All documents that have a duplicate, cluster by cluster, the one that stays first."""

    reason: str
    """Why the others are dropped: the name of the step."""
    ids: np.ndarray
    """uint8 [members, 16]."""
    kept_ids: np.ndarray
    """Of the one that stays for each: uint8 [members, 16]."""
    kept: np.ndarray
    """Whether it is that one: bool [members]."""
    similarity: np.ndarray
    """Jaccard similarity to the one that stays, float32 [members]: below the threshold where
    others stand between the two."""

    def __len__(self) -> int:
        return int(self.kept.sum())

    def dropped(self) -> Ids:
        """Those that do not stay."""
        return Ids(np.sort(_as_strings(self.ids[~self.kept])))

    def members(self) -> list[np.ndarray]:
        """The rows of each cluster, the largest cluster first; in each the one that stays first."""
        starts = np.flatnonzero(self.kept)
        rows = np.split(np.arange(len(self.ids)), starts[1:]) if len(starts) else []
        return sorted(rows, key=len, reverse=True)

    def of(self, document: bytes) -> np.ndarray:
        """The rows of the cluster that a document is in; none of one that has no duplicate."""
        own = (self.ids == np.frombuffer(document, np.uint8)).all(axis=1)
        if not own.any():
            return np.zeros(0, np.int64)
        return np.flatnonzero((self.kept_ids == self.kept_ids[own][0]).all(axis=1))

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write a Parquet file with the columns id, kept_id, kept and similarity.

        Raises:
            InputError: The place is taken and `force` is not set, or the disk refused.
        """
        columns = {
            "id": _binary(self.ids),
            "kept_id": _binary(self.kept_ids),
            "kept": pa.array(self.kept),
            "similarity": pa.array(self.similarity, pa.float32()),
        }
        table = pa.table(columns).replace_schema_metadata({"reason": self.reason})
        with writing_file(path, force=force) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> Clusters:
        """What `save` wrote.

        Raises:
            InputError: It is missing, damaged, or of another kind.
        """
        try:
            table = pq.read_table(path)
            reason = (table.schema.metadata or {})[b"reason"].decode()
            columns = [table.column(name).combine_chunks() for name in ("id", "kept_id")]
            figures = [table.column(name).to_numpy() for name in ("kept", "similarity")]
        except (OSError, pa.ArrowException, KeyError) as error:
            raise InputError(f"holds no clusters: {error}", where=path) from error
        ids, kept_ids = (as_ids(column) for column in columns)
        return cls(reason, ids, kept_ids, figures[0].astype(bool), figures[1].astype(np.float32))


@dataclass(frozen=True)
class Members:
    """Documents of which each has a duplicate, as the keep rule needs them; all of one length."""

    labels: np.ndarray
    """The cluster of each, int64."""
    ids: np.ndarray
    """uint8 [members, 16]."""
    ranks: np.ndarray
    """The higher, the rather it stays: float64."""
    sizes: np.ndarray
    """Bytes, int64: the longer stays of equal rank, then the one with the least id."""


def dropping(*found: Clusters) -> Apply:
    """A function that drops all documents of a batch but those that stay.

    Args:
        found: The clusters of one step or several; the first reason that holds is given.
    """
    tables = [(one.reason, one.dropped()) for one in found]

    def apply(batch: pa.RecordBatch) -> pa.RecordBatch:
        ids, going = as_ids(batch.column("id")), alive(batch)
        for reason, dropped in tables:
            rows = np.flatnonzero(dropped.holds(ids) & going).tolist()
            batch = with_drops(batch, dict.fromkeys(rows, reason))
        return batch

    return apply


def order_members(members: Members) -> tuple[np.ndarray, np.ndarray]:
    """The keep rule: cluster by cluster, the one that stays first, the others by id.

    The order of clusters is that of the ids that stay, so that nothing depends on labels.

    Returns:
        The order, int64 [members], and where in it each one's kept one stands, int64 [members].
    """
    names = _as_strings(members.ids)
    best = np.lexsort([names, -members.sizes, -members.ranks, members.labels])
    firsts = np.ones(len(best), bool)
    firsts[1:] = members.labels[best][1:] != members.labels[best][:-1]
    kept_of = best[firsts][np.cumsum(firsts) - 1]  # by place in `best`
    others = ~firsts
    order = best[np.lexsort([names[best], others, names[kept_of]])]
    flags = np.zeros(len(best), bool)
    flags[best[firsts]] = True
    starts = np.flatnonzero(flags[order])
    return order, starts[np.cumsum(flags[order]) - 1]


def joined_ids(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Ids of several parts as one array, uint8 [rows, 16]."""
    return np.concatenate([np.zeros((0, ID_BYTES), np.uint8), *parts])


def _as_strings(ids: np.ndarray) -> np.ndarray:
    """Ids as strings of 16 bytes, which numpy sorts and searches."""
    return np.asarray(np.ascontiguousarray(ids).view(f"S{ID_BYTES}").reshape(-1))


def _binary(ids: np.ndarray) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(ids))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), len(ids), [None, buffer])
