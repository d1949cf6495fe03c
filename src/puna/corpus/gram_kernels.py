"""Repetition inside one text by 64-bit hashes, in Numba: sets, commonest n-grams, duplicates.

The hash of a run of characters is a polynomial in them, modulo 2^64, so that the hash of any
stretch follows from those of two prefixes. Hashes stand for what they are of: two stretches that
differ have the same one by chance once in 2^63, which only text built for it exceeds.

A table is a pair of arrays that are used up to a power of two; a key of 0 marks an empty place.
Shapes: T tokens, C characters in tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # a numpy array; Numba compiles for what it is given
_OPTIONS: Any = {"cache": True, "nogil": True, "error_model": "numpy"}

_BASE = np.uint64(0x9E3779B97F4A7C1B)
_SPREAD = np.uint64(0xBF58476D1CE4E5B9)
_STIR = np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)
_NONE = np.uint64(0)
_ONE = np.uint64(1)
_LAST = np.uint64(0xFFFFFFFF)
POWERS = 4096  # that are kept in a table; longer stretches are seldom


@njit(**_OPTIONS)
def extend(total: Any, code: Any) -> Any:
    """The hash of a run of characters and one more."""
    x = (np.uint64(code) + _ONE) * _SPREAD
    return total * _BASE + (x ^ (x >> _HALF))


@njit(**_OPTIONS)
def powers_of_base() -> Array:
    """What the hash of a prefix is multiplied by, for stretches of 0 to 4095 characters."""
    powers = np.empty(POWERS, np.uint64)
    power = _ONE
    for i in range(POWERS):
        powers[i] = power
        power = power * _BASE
    return powers


@njit(**_OPTIONS)
def _power(powers: Array, length: Any) -> Any:
    if length < POWERS:
        return powers[length]
    result, base = _ONE, _BASE
    while length:
        if length & 1:
            result = result * base
        base = base * base
        length >>= 1
    return result


@njit(**_OPTIONS)
def stretch(hashes: Array, powers: Array, start: Any, stop: Any) -> Any:
    """The hash of the characters from `start` to `stop`, from those of prefixes."""
    return hashes[stop] - hashes[start] * _power(powers, stop - start)


@njit(**_OPTIONS)
def clear(keys: Array, entries: Any) -> Any:
    """Make room for so many entries; the mask of the places in use."""
    size = 16
    while size < 2 * entries:
        size *= 2
    keys[:size] = _NONE
    return size - 1


@njit(**_OPTIONS)
def place(keys: Array, mask: Any, key: Any) -> Any:
    """The place of a key, which is put there if it is new, and whether it was there."""
    if key == _NONE:
        key = _ONE
    at = np.int64(((key ^ (key >> _HALF)) * _STIR) >> _HALF) & mask
    while keys[at] != _NONE:
        if keys[at] == key:
            return at, True
        at = (at + 1) & mask
    keys[at] = key
    return at, False


@njit(**_OPTIONS)
def add_word(keys: Array, codes: Array) -> None:
    """Put the hash of a word, given as code points, into a table that is full of places."""
    total = _NONE
    for code in codes:
        total = extend(total, code)
    place(keys, keys.shape[0] - 1, total)


@njit(**_OPTIONS)
def find(keys: Array, key: Any) -> Any:
    """The place of a key in a table that is full of places; -1 where it is not there."""
    mask = keys.shape[0] - 1
    if key == _NONE:
        key = _ONE
    at = np.int64(((key ^ (key >> _HALF)) * _STIR) >> _HALF) & mask
    while keys[at] != _NONE:
        if keys[at] == key:
            return at
        at = (at + 1) & mask
    return -1


@njit(**_OPTIONS)
def top_gram(
    n: Any, count: Any, where: Array, grams: Array, tokens: Array, slots: Array, table: Any
) -> Any:
    """The commonest n-gram: how often it occurs and where first; the first of several.

    Called for n = 2, 3, ... in turn: an n-gram can be repeated only where its first and last n - 1
    tokens are, so that after the pairs few need to be counted.

    Args:
        n: Tokens in a row.
        count: How many places `where` holds.
        where: Where the (n - 1)-grams are that may be repeated, int32 [T]; becomes n-grams'.
        grams: Hashes of these (n - 1)-grams, uint64 [T]; becomes those of n-grams.
        tokens: Hashes of the tokens, uint64 [T].
        slots: Work, int32 [T].
        table: Keys and values.

    Returns:
        How often, where first, and how many places `where` holds now.
    """
    keys, values = table
    left = 0
    for k in range(count - 1):
        i = where[k]
        if where[k + 1] == i + 1:
            where[left] = i
            left += 1
    mask = clear(keys, left)
    best = (_ONE << _HALF) | _LAST
    for k in range(left):
        i = where[k]
        key = grams[i]
        key = (key ^ (key >> _HALF)) * _STIR + tokens[i + n - 1]
        grams[i] = key
        at, known = place(keys, mask, key)
        if known:
            values[at] += _ONE << _HALF
        else:  # the count above, below it how far from the end it was first
            values[at] = (_ONE << _HALF) | (_LAST - np.uint64(i))
        slots[k] = at
        best = max(best, values[at])
    again = 0
    for k in range(left):
        if values[slots[k]] >> _HALF > _ONE:
            where[again] = where[k]
            again += 1
    return np.int64(best >> _HALF), np.int64(_LAST - (best & _LAST)), again


@njit(**_OPTIONS)
def mark_repeated(
    length: Any,
    count: Any,
    where: Array,
    ends: Array,
    levels: Array,
    slots: Array,
    prefixes: Any,
    table: Any,
) -> Any:
    """Find the tokens from whose start `length` characters occur again from another's start.

    Args:
        length: In characters in tokens.
        count: How many places `where` holds.
        where: The tokens that are looked at, int32 [T]; becomes those that were found.
        ends: Where each token ends, int32 [T].
        levels: Of every token, uint8 [T]; raised by one where it was found.
        slots: Work, int32 [T].
        prefixes: Hashes of prefixes and powers of the base.
        table: Keys and values.

    Returns:
        How many places `where` holds now.
    """
    hashes, powers = prefixes
    keys, values = table
    total, power, looked = ends[-1], powers[length], 0
    mask = clear(keys, count)
    for k in range(count):
        i = where[k]
        start = ends[i - 1] if i else 0
        if start + length > total:
            break
        looked += 1
        at, known = place(keys, mask, hashes[start + length] - hashes[start] * power)
        values[at] = _ONE if known else _NONE
        slots[k] = at
    left = 0
    for k in range(looked):
        if values[slots[k]] == _ONE:
            levels[where[k]] += 1
            where[left] = where[k]
            left += 1
    return left


@njit(**_OPTIONS)
def candidates_of(
    n: Any, count: Any, where: Array, ends: Array, levels: Array, lengths: Any
) -> Any:
    """Leave in `where` the tokens at which an n-gram may be repeated; how many there are.

    One of L characters cannot be repeated unless its first L' <= L are, and `levels` says for
    three lengths whether they are. Where no n-gram can be repeated, no longer one can.
    """
    left = 0
    for k in range(count):
        i = where[k]
        if i + n > ends.shape[0]:
            break
        length = ends[i + n - 1] - (ends[i - 1] if i else 0)
        needed = (length >= lengths[0]) + (length >= lengths[1]) + (length >= lengths[2])
        if levels[i] >= needed:
            where[left] = i
            left += 1
    return left


@njit(**_OPTIONS)
def duplicated_characters(
    n: Any, count: Any, where: Array, ends: Array, prefixes: Any, keys: Array
) -> Any:
    """Characters in n-grams that were there before; past one of those the next is looked for.

    N-grams are compared by their characters alone, as datatrove does, so that `a bc` is `ab c`.

    Args:
        n: Tokens in a row.
        count: How many places `where` holds.
        where: The tokens at which an n-gram may be repeated, int32.
        ends: Where each token ends, int32 [T].
        prefixes: Hashes of prefixes and powers of the base.
        keys: Of a table.
    """
    hashes, powers = prefixes
    if count < 2:
        return 0
    mask = clear(keys, count)
    found, following = 0, 0
    for k in range(count):
        i = where[k]
        if i < following:
            continue
        start, stop = ends[i - 1] if i else 0, ends[i + n - 1]
        if place(keys, mask, stretch(hashes, powers, start, stop))[1]:
            found += stop - start
            following = i + n
    return found
