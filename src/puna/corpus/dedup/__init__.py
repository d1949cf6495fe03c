"""Duplicates: documents that say the same or nearly so, and lines that a site repeats.

Each goes in three moves. Every unit of documents is looked at by itself, on any worker, and leaves
arrays on disk (`exact_unit`, `sign_unit`, `count_lines_unit`); one process decides over all of
them in bounded memory (`find_exact_duplicates`, `find_near_duplicates`, `find_repeated_lines`);
then every batch is mapped by what was decided (`dropping`, `removing_lines`).
"""

from __future__ import annotations

from puna.corpus.dedup.clusters import Clusters, dropping
from puna.corpus.dedup.config import ExactConfig, LinesConfig, NearConfig
from puna.corpus.dedup.exact import find_exact_duplicates
from puna.corpus.dedup.lines import count_lines_unit, find_repeated_lines, removing_lines
from puna.corpus.dedup.near import find_near_duplicates
from puna.corpus.dedup.signing import signatures
from puna.corpus.dedup.units import exact_unit, sign_unit

__all__ = [
    "Clusters",
    "ExactConfig",
    "LinesConfig",
    "NearConfig",
    "count_lines_unit",
    "dropping",
    "exact_unit",
    "find_exact_duplicates",
    "find_near_duplicates",
    "find_repeated_lines",
    "removing_lines",
    "sign_unit",
    "signatures",
]
