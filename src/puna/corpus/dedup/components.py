"""All units as one numbering of documents, the components among them, and the clusters of these.

A document's number is that of its row, counted through the units in the order that they are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from puna.corpus.dedup.clusters import Clusters, Members, joined_ids, order_members
from puna.corpus.dedup.signing import kernels
from puna.corpus.dedup.units import UnitFiles


class Units:
    """The files of many units, whose documents are numbered through.

    Attributes:
        rows: How many documents there are.
    """

    def __init__(self, folders: Sequence[Path], kind: str, digest: str) -> None:
        """Open all; see `UnitFiles`.

        Raises:
            InputError: Files are missing, damaged, or made with another configuration.
        """
        self._units = [UnitFiles(folder, kind, digest) for folder in folders]
        self._first = np.cumsum([0, *(unit.rows for unit in self._units)])
        self.rows = int(self._first[-1])

    def blocks(self, name: str, rows: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """An array of all units with the ids, a block of at most so many rows at a time.

        Yields:
            The number of the first row, the ids, uint8 [rows, 16], and the array.
        """
        for unit, first in zip(self._units, self._first, strict=False):
            ids, values = unit.array("ids"), unit.array(name)
            for start in range(0, unit.rows, max(rows, 1)):
                stop = min(start + max(rows, 1), unit.rows)
                yield int(first) + start, np.array(ids[start:stop]), np.array(values[start:stop])

    def parts(self, numbers: np.ndarray) -> Iterator[tuple[UnitFiles, np.ndarray]]:
        """The units that sorted numbers of documents lie in, each with its own rows."""
        bounds = np.searchsorted(numbers, self._first)
        for place, unit in enumerate(self._units):
            own = numbers[bounds[place] : bounds[place + 1]]
            if len(own):
                yield unit, own - self._first[place]

    def members(self, numbers: np.ndarray, labels: np.ndarray) -> Members:
        """What the keep rule needs of some documents, by their sorted numbers."""
        parts = list(self.parts(numbers))
        found = {
            name: [np.asarray(unit.array(name)[rows]) for unit, rows in parts]
            for name in ("ids", "ranks", "sizes")
        }
        return Members(
            labels,
            joined_ids(found["ids"]),
            np.concatenate([np.zeros(0), *found["ranks"]]),
            np.concatenate([np.zeros(0, np.int64), *found["sizes"]]),
        )


class Components:
    """Union-find over all documents, in one process: 8 bytes for each."""

    def __init__(self, rows: int) -> None:
        """Begin with every document by itself."""
        kernels()  # says so if numba is missing
        from puna.corpus.dedup import edge_kernels

        self._parents = np.arange(rows, dtype=np.int64)
        self._kernels = edge_kernels

    def join(self, pairs: np.ndarray) -> None:
        """Put both ends of every pair, int64 [2, pairs], into one component."""
        self._kernels.join(self._parents, np.ascontiguousarray(pairs))

    def apart(self, pairs: np.ndarray) -> np.ndarray:
        """Which pairs have their ends in different components so far: bool [pairs]."""
        found = np.empty(pairs.shape[1], bool)
        self._kernels.apart(self._parents, np.ascontiguousarray(pairs), found)
        return found

    def members(self) -> tuple[np.ndarray, np.ndarray]:
        """Documents that are not alone: their numbers, sorted, and the component of each."""
        self._kernels.roots(self._parents)
        roots = self._parents
        joined = np.flatnonzero(roots != np.arange(len(roots)))
        numbers = np.union1d(joined, roots[joined])
        return numbers, roots[numbers]


def make_clusters(reason: str, units: Units, components: Components) -> tuple[Clusters, np.ndarray]:
    """Clusters of the components by the keep rule, with similarities of 1.

    Returns:
        The clusters, and for each member its number and that of the one that stays for it, int64
        [2, members].
    """
    numbers, labels = components.members()
    members = units.members(numbers, labels)
    order, kept_at = order_members(members)
    kept = order[kept_at]
    clusters = Clusters(
        reason,
        members.ids[order],
        members.ids[kept],
        order == kept,
        np.ones(len(order), np.float32),
    )
    return clusters, np.stack([numbers[order], numbers[kept]])
