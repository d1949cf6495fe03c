"""Signatures, band keys and sketches of the documents of a batch, by the native kernels."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from puna.corpus.dedup.config import NearConfig
from puna.corpus.dedup.signature_twin import MASK, mixed
from puna.corpus.dedup.words import text_buffers, word_table
from puna.errors import require

# Of one byte of UTF-8 come at most so many words: a ligature of 3 bytes may stand for 18 letters.
MOST_WORDS_PER_BYTE = 6


class Signed(NamedTuple):
    """What native code found in a batch."""

    signatures: np.ndarray
    """uint32 [rows, bands * rows]."""
    sketches: np.ndarray
    """uint32: the smallest shingles of every document, sorted, one document after the other."""
    starts: np.ndarray
    """int64 [rows + 1]: where each one begins; those without a word have none."""


def kernels() -> ModuleType:
    """The native code; compiled at its first use on a machine, and cached.

    Raises:
        MissingPackageError: numba is not installed.
    """
    require("numba", extra="corpus", purpose="comparing documents")
    from puna.corpus.dedup import signature_kernels

    return signature_kernels


def permutations(count: int, seed: int) -> np.ndarray:
    """Factors a (odd) and b of x -> a x + b modulo 2**32: uint32 [2, count]."""
    base = mixed(seed & MASK)
    drawn = [mixed((base + number) & MASK) for number in range(count)]
    pairs = [((value >> 32) | 1, value & 0xFFFFFFFF) for value in drawn]
    return np.ascontiguousarray(np.array(pairs, dtype=np.uint32).reshape(count, 2).T)


def signatures(batch: pa.RecordBatch, config: NearConfig | None = None) -> np.ndarray:
    """MinHash signatures of all rows, by the words and n-grams of their texts.

    Args:
        batch: The documents.
        config: Says how many, of which n-grams, and with which seed.

    Returns:
        uint32 [rows, bands * rows]; all ones where a text has no word.

    Raises:
        MissingPackageError: numba is not installed.
    """
    return sign_texts(*text_buffers(batch), config or NearConfig()).signatures


def sign_texts(offsets: np.ndarray, data: np.ndarray, config: NearConfig) -> Signed:
    """Signatures and sketches of texts as they lie in Arrow buffers.

    Args:
        offsets: int64 [rows + 1], into the bytes.
        data: UTF-8 bytes.
        config: How many, of which n-grams, and with which seed.

    Raises:
        MissingPackageError: numba is not installed.
    """
    rows, count = len(offsets) - 1, config.bands * config.rows
    room = np.minimum(np.diff(offsets) * MOST_WORDS_PER_BYTE, config.sketch).sum()
    sketches, starts = np.empty(int(room), np.uint32), np.zeros(rows + 1, np.int64)
    found = np.empty((rows, count), np.uint32)
    factors = permutations(count, config.seed)
    kernels().sign(
        data,
        offsets,
        tuple(word_table()),
        config.ngram,
        factors,
        config.sketch,
        (found, sketches, starts),
    )
    return Signed(found, sketches[: starts[-1]].copy(), starts)


def band_keys(found: np.ndarray, bands: int) -> np.ndarray:
    """One key per band, of its number and its hashes.

    Args:
        found: Signatures, uint32 [rows, bands * n].
        bands: How many groups they are cut into.

    Returns:
        uint64 [rows, bands].
    """
    grouped = found.reshape(len(found), bands, found.shape[1] // bands).astype(np.uint64)
    keys = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), grouped.shape[:2])
    for place in range(grouped.shape[2]):
        keys = _mixed(keys ^ grouped[:, :, place])
    return np.ascontiguousarray(keys)


def _mixed(values: np.ndarray) -> np.ndarray:
    """`signature_twin.mixed` of many numbers."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
