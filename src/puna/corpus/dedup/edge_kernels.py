"""Similarities of sketches, and components by union-find, in native code."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # a numpy array; Numba compiles for what it is given
_OPTIONS: Any = {"cache": True, "nogil": True}


@njit(**_OPTIONS)
def _similarity(values: Array, left: Any, right: Any, most: Any) -> Any:
    """Of two spans of `values`, each sorted; see `signature_twin.similarity_of`."""
    i, left_stop = left
    j, right_stop = right
    limit = np.uint32(0xFFFFFFFF)
    if left_stop - i >= most:
        limit = min(limit, values[left_stop - 1])
    if right_stop - j >= most:
        limit = min(limit, values[right_stop - 1])
    both, either = 0, 0
    while i < left_stop and j < right_stop:
        a, b = values[i], values[j]
        if min(a, b) > limit:
            break
        either += 1
        both += a == b
        i += a <= b
        j += b <= a
    while i < left_stop and values[i] <= limit:
        either, i = either + 1, i + 1
    while j < right_stop and values[j] <= limit:
        either, j = either + 1, j + 1
    return both / either if either else 0.0


@njit(**_OPTIONS)
def similarities(values: Array, starts: Array, pairs: Array, most: int, out: Array) -> None:
    """Jaccard similarity of pairs of sketches.

    Args:
        values: The sketches, one after the other, uint32.
        starts: Where each begins, int64 [sketches + 1].
        pairs: Numbers of sketches, int64 [2, pairs].
        most: The size of a sketch that may not be all.
        out: float32 [pairs].
    """
    for pair in range(pairs.shape[1]):
        left, right = pairs[0, pair], pairs[1, pair]
        spans = (starts[left], starts[left + 1]), (starts[right], starts[right + 1])
        out[pair] = _similarity(values, spans[0], spans[1], most)


@njit(**_OPTIONS)
def _root(parents: Array, node: Any) -> Any:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(**_OPTIONS)
def join(parents: Array, pairs: Array) -> None:
    """Put both ends of every pair, int64 [2, pairs], into one component."""
    for pair in range(pairs.shape[1]):
        left, right = _root(parents, pairs[0, pair]), _root(parents, pairs[1, pair])
        parents[max(left, right)] = min(left, right)


@njit(**_OPTIONS)
def apart(parents: Array, pairs: Array, out: Array) -> None:
    """Whether both ends of a pair are in different components so far: bool [pairs]."""
    for pair in range(pairs.shape[1]):
        out[pair] = _root(parents, pairs[0, pair]) != _root(parents, pairs[1, pair])


@njit(**_OPTIONS)
def roots(parents: Array) -> None:
    """Make every node's parent the root of its component, in place."""
    for node in range(parents.shape[0]):
        parents[node] = _root(parents, node)
