"""The slow twin of `signature_kernels`: the same numbers in plain Python, from `str` alone.

It looks up no table and decodes no bytes, so that it says what the native code ought to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from puna.corpus.dedup.words import ALONE, SEPARATOR, WORD, class_of, folded

MASK = (1 << 64) - 1
WORD_SEED = 0xCBF29CE484222325
WORD_PRIME = 0x100000001B3
NGRAM_BASE = 0x9E3779B97F4A7C15
UNSEEN = 0xFFFFFFFF
"""What a signature holds where a document has no word."""


class WordAt(NamedTuple):
    """A word of a text."""

    start: int
    """Where its first character stands."""
    stop: int
    """One past its last character."""
    hash: int
    """64 bits."""


def mixed(value: int) -> int:
    """The finaliser of splitmix64: every bit of the 64 depends on every other."""
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK
    return value ^ value >> 31


def words_of(text: str) -> list[WordAt]:
    """The words of a text in their order, by the rule of `puna.corpus.dedup.words`."""
    found: list[WordAt] = []
    hashed, start, stop = WORD_SEED, -1, -1
    for place, character in enumerate(text):
        for piece in folded(character):
            kind = class_of(piece)
            if kind == WORD:
                hashed = ((hashed ^ ord(piece)) * WORD_PRIME) & MASK
                start, stop = (place if start < 0 else start), place + 1
                continue
            if start >= 0:
                found.append(WordAt(start, stop, mixed(hashed)))
            hashed, start = WORD_SEED, -1
            if kind == ALONE:
                alone = ((WORD_SEED ^ ord(piece)) * WORD_PRIME) & MASK
                found.append(WordAt(place, place + 1, mixed(alone)))
            assert kind in (ALONE, SEPARATOR)
    if start >= 0:
        found.append(WordAt(start, stop, mixed(hashed)))
    return found


def shingles_of(words: Sequence[int], ngram: int) -> list[int]:
    """64-bit hashes of all n-grams; of fewer words than that, one hash of what there is."""
    if not words:
        return []
    size = min(ngram, len(words))
    return [_combined(words[at : at + size]) for at in range(len(words) - size + 1)]


def signature_of(shingles: Sequence[int], factors: Sequence[tuple[int, int]]) -> list[int]:
    """The least 32-bit value of all shingles under each permutation a x + b."""
    values = {shingle >> 32 for shingle in shingles}
    return [min(((a * x + b) & UNSEEN for x in values), default=UNSEEN) for a, b in factors]


def sketch_of(shingles: Sequence[int], most: int) -> list[int]:
    """The `most` smallest of the different shingles, 32 bits each, sorted."""
    return sorted({shingle >> 32 for shingle in shingles})[:most]


def similarity_of(left: Sequence[int], right: Sequence[int], most: int) -> float:
    """Jaccard similarity of what two sketches were taken of; exact where both are whole."""
    limit = min([UNSEEN, *(one[-1] for one in (left, right) if len(one) >= most)])
    a, b = ({value for value in one if value <= limit} for one in (left, right))
    return len(a & b) / len(a | b) if a | b else 0.0


def sequence_of(words: Sequence[int], seed: int) -> int:
    """64 bits of a sequence of words and a seed; 0 for no words."""
    hashed = seed
    for word in words:
        hashed = (hashed * NGRAM_BASE + word) & MASK
    return mixed(hashed ^ len(words)) if words else 0


def _combined(words: Sequence[int]) -> int:
    hashed = 0
    for word in words:
        hashed = (hashed * NGRAM_BASE + word) & MASK
    return mixed(hashed)
