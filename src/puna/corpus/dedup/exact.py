"""Documents that say the same: one of each stays."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from puna.corpus.dedup.clusters import Clusters
from puna.corpus.dedup.components import Components, Units, make_clusters
from puna.corpus.dedup.config import ExactConfig
from puna.corpus.dedup.partitions import Partitions, first_of_group
from puna.corpus.dedup.units import digest_of

_RECORD = np.dtype([("key", np.uint64), ("rest", np.uint64), ("row", np.int64)])


def find_exact_duplicates(folders: Sequence[Path], config: ExactConfig, work: Path) -> Clusters:
    """Find documents whose texts are the same in the form that is compared.

    The result does not depend on the order of the folders, nor on how documents lie in them.

    Args:
        folders: What `exact_unit` wrote.
        config: As there.
        work: An existing folder, where sorting makes a folder of its own and removes it.

    Raises:
        InputError: Files are missing, damaged, or made with another configuration.
        MissingPackageError: numba is not installed.
    """
    units = Units(folders, "exact", digest_of(config))
    components = Components(units.rows)
    with tempfile.TemporaryDirectory(dir=work, prefix="exact-") as place:
        partitions = Partitions(
            Path(place), _RECORD, records=units.rows, memory_bytes=config.memory_bytes
        )
        for first, _, keys in units.blocks("keys", partitions.block_records):
            records = np.empty(len(keys), _RECORD)
            records["key"], records["rest"] = keys[:, 0], keys[:, 1]
            records["row"] = first + np.arange(len(keys))
            wordless = (keys == 0).all(axis=1)  # which says nothing about how alike they are
            partitions.add(records[~wordless])
        for piece in partitions.sorted_pieces():
            follows = ~(first_of_group(piece["key"]) | first_of_group(piece["rest"]))
            later = np.flatnonzero(follows)
            components.join(np.stack([piece["row"][later - 1], piece["row"][later]]))
    return make_clusters(config.step, units, components)[0]
