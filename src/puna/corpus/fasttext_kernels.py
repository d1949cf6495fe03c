"""What words count for in a fastText classifier, natively: `dictionary.cc`, `computeSubwords`.

Shapes: W words, M rows, D dimensions, B buckets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # a numpy array; Numba compiles for what it is given
_OPTIONS: Any = {"cache": True, "nogil": True, "error_model": "numpy"}
_BASIS, _PRIME = np.uint32(2166136261), np.uint32(16777619)  # of FNV-1a
_CONTINUES, _MASK = 0x80, 0xC0  # bytes of UTF-8 after the first one of a character
_SIGN, _HIGH = 0x80, np.uint32(0xFFFFFF00)


@njit(**_OPTIONS)
def add_ngrams(
    data: Array,
    ends: Array,
    buckets: Array,
    rows: Array,
    lengths: tuple[int, int],
    sums: Array,
    counts: Array,
) -> None:
    """Add what the n-grams of characters of words count for.

    Args:
        data: uint8 [bytes]: all words, each between < and >, in UTF-8.
        ends: int64 [W]: where each ends.
        buckets: int32 [B]: row of a hash; -1: none.
        rows: float32 [M, D].
        lengths: Characters of the shortest and the longest n-grams.
        sums: float32 [W, D], which is added to.
        counts: int64 [W]: rows that were added; added to.
    """
    shortest, longest = lengths
    start = 0
    for word in range(ends.shape[0]):
        stop = ends[word]
        for begin in range(start, stop):
            if data[begin] & _MASK == _CONTINUES:
                continue
            at, characters, hashed = begin, 0, _BASIS
            while at < stop and characters < longest:
                hashed = _with_byte(hashed, data[at])
                at += 1
                while at < stop and data[at] & _MASK == _CONTINUES:
                    hashed = _with_byte(hashed, data[at])
                    at += 1
                characters += 1
                alone = characters == 1 and (begin == start or at == stop)
                if characters < shortest or alone:
                    continue
                row = buckets[hashed % buckets.shape[0]]
                if row >= 0:
                    sums[word] += rows[row]
                    counts[word] += 1
        start = stop


@njit(**_OPTIONS)
def _with_byte(hashed: Any, byte: Any) -> Any:
    """FNV-1a as fastText has it: bytes from 128 on are negative, and widened with their sign."""
    wide = np.uint32(byte)
    if byte & _SIGN:
        wide |= _HIGH
    return np.uint32(np.uint32(hashed ^ wide) * _PRIME)
