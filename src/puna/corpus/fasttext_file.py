"""The file of a quantized fastText classifier, read into plain arrays.

The layout is that of fastText 0.9.2 (`fasttext.cc`, `dictionary.cc`, `quantmatrix.cc`), of version
12: little-endian, no padding. Only what the published classifier of languages, lid.176.ftz, uses is
read: an input matrix that is product-quantized with its norms, words without n-grams of words, and
a hierarchical softmax over a dense output matrix (Joulin et al. 2016, arXiv 1612.03651).

Shapes: M rows of the input, D dimensions, B buckets of n-grams, L labels.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from puna.errors import InputError

_MAGIC, _VERSION = 793712314, 12
_HIERARCHICAL, _SUPERVISED = 1, 3
_WORD, _CENTROIDS = 0, 256
_LABEL = b"__label__"


@dataclass(frozen=True)
class FastTextFile:
    """A classifier."""

    words: Mapping[bytes, int]
    """Row of each word that is known as a whole."""
    labels: tuple[str, ...]
    rows: np.ndarray
    """float32 [M, D]: what words and n-grams of characters count for."""
    buckets: np.ndarray
    """int32 [B]: row of each hash of an n-gram; -1: it was pruned."""
    output: np.ndarray
    """float32 [L - 1, D]: of the inner nodes of the tree over the labels."""
    right: np.ndarray
    """float32 [L, L - 1]: 1 where the way to a label goes to the right at a node."""
    left: np.ndarray
    """The same of the left."""
    shortest: int
    """Characters of the shortest n-grams."""
    longest: int


def read_fasttext(path: Path) -> FastTextFile:
    """Read a classifier.

    Raises:
        InputError: It is damaged, or of another kind than the one that is published for languages.
    """
    try:
        return _read(_Bytes(path.read_bytes()), path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    except (struct.error, ValueError, IndexError) as error:
        raise InputError(f"is no whole fastText model: {error}", where=path) from error


class _Bytes:
    """The file, read from its beginning on."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple[int, ...]:
        found = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return found

    def array(self, dtype: str, count: int) -> np.ndarray:
        found = np.frombuffer(self.data, dtype, count, self.at)
        self.at += found.nbytes
        return found

    def word(self) -> bytes:
        end = self.data.index(b"\0", self.at)
        found = self.data[self.at : end]
        self.at = end + 1
        return found


def _read(file: _Bytes, path: Path) -> FastTextFile:
    if file.take("ii") != (_MAGIC, _VERSION):
        raise InputError(f"is no fastText model of version {_VERSION}", where=path)
    dim, _, _, _, _, word_ngrams, loss, model, bucket, shortest, longest, _ = file.take("12i")
    file.take("d")
    size, count, labels, _, pruned = file.take("iiiqq")
    entries: list[tuple[bytes, int, int]] = []
    for _ in range(size):
        word = file.word()
        times, kind = file.take("qb")
        entries.append((word, times, kind))
    pairs = file.array("<i4", 2 * max(pruned, 0)).reshape(-1, 2)
    quantized, with_norms = file.take("??")
    if (word_ngrams, loss, model) != (1, _HIERARCHICAL, _SUPERVISED) or not (
        quantized and with_norms and pruned > 0
    ):
        raise InputError("is a fastText model of another kind than lid.176.ftz", where=path)
    rows = _rows(file, dim)
    (output_quantized,) = file.take("?")
    height, width = file.take("qq")
    if output_quantized or (height, width) != (labels, dim):
        raise InputError("is a fastText model of another kind than lid.176.ftz", where=path)
    output = file.array("<f4", height * width).reshape(height, width)[: labels - 1]
    buckets = np.full(bucket, -1, np.int32)
    buckets[pairs[:, 0]] = count + pairs[:, 1]
    told = [(name, times) for name, times, kind in entries if kind != _WORD]
    left, right = _ways([times for _, times in told])
    return FastTextFile(
        words={name: row for row, (name, _, kind) in enumerate(entries) if kind == _WORD},
        labels=tuple(name.removeprefix(_LABEL).decode() for name, _ in told),
        rows=rows,
        buckets=buckets,
        output=np.ascontiguousarray(output),
        right=right,
        left=left,
        shortest=shortest,
        longest=longest,
    )


def _rows(file: _Bytes, dim: int) -> np.ndarray:
    """The input matrix: each row is a norm times a direction put together of centroids."""
    rows, _, code_bytes = file.take("qqi")
    codes = file.array("u1", code_bytes).reshape(rows, -1)
    directions = _centroids(file)
    norm_codes = file.array("u1", rows)
    (norms,) = _centroids(file)
    parts = [part[codes[:, place]] for place, part in enumerate(directions)]
    found: np.ndarray = np.concatenate(parts, axis=1) * norms[norm_codes]
    assert found.shape == (rows, dim)
    return np.ascontiguousarray(found, dtype=np.float32)


def _centroids(file: _Bytes) -> list[np.ndarray]:
    """Of each part of a vector, float32 [256, dimensions of the part]."""
    dim, parts, width, last = file.take("4i")
    values = file.array("<f4", dim * _CENTROIDS)
    whole = (parts - 1) * _CENTROIDS * width
    found = list(values[:whole].reshape(parts - 1, _CENTROIDS, width))
    return [*found, values[whole:].reshape(_CENTROIDS, last)]


def _ways(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The tree that fastText builds over labels by their counts, as the way to each of them."""
    size = len(counts)
    weights = [*counts, *[10**15] * (size - 1)]
    parent, is_right = [-1] * (2 * size - 1), [False] * (2 * size - 1)
    leaf, node = size - 1, size
    for inner in range(size, 2 * size - 1):
        pair = []
        for _ in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                pair.append(leaf)
                leaf -= 1
            else:
                pair.append(node)
                node += 1
        weights[inner] = weights[pair[0]] + weights[pair[1]]
        parent[pair[0]] = parent[pair[1]] = inner
        is_right[pair[1]] = True
    left, right = (np.zeros((size, size - 1), np.float32) for _ in range(2))
    for label in range(size):
        at = label
        while parent[at] >= 0:
            (right if is_right[at] else left)[label, parent[at] - size] = 1
            at = parent[at]
    return left, right
