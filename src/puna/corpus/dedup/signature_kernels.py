"""Words, shingles, MinHash signatures and sketches in one native pass over Arrow buffers.

Texts come as UTF-8 bytes with offsets, and are never copied or made into strings. Words follow the
rule of `puna.corpus.dedup.words`, through its table; `signature_twin` says the same in Python, and
tests hold both equal on any text.

MinHash: Broder 1997, with permutations a x + b modulo 2**32 of hashes that are mixed before. The
bottom-k sketch for the check: Cohen and Kaplan 2007; standard error sqrt(J (1 - J) / k).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = Any  # a numpy array; Numba compiles for what it is given
_OPTIONS: Any = {"cache": True, "nogil": True}

_SEPARATOR, _WORD, _ALONE, _IGNORED, _EXPANDED = 0, 1, 2, 3, 4
_SHIFT = 24
_CODE = 0xFFFFFF
# Signed and unsigned integers of 64 bits make a float in Numba: every constant has its type.
_SEED = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_ZERO = np.uint64(0)

_BLOCK = 4096  # words that are worked on at a time: they stay in the first cache
_SLACK = 64  # more than the words that one character may become
_POOL = 4  # how many times the size of a sketch is gathered before it is cut


@njit(**_OPTIONS)
def _mixed(value: Any) -> Any:
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return value ^ (value >> _S31)


@njit(**_OPTIONS)
def _decoded(data: Array, at: Any, stop: Any) -> Any:
    """The code point at a byte beyond ASCII, and where the next one begins; never past `stop`."""
    first = np.int64(data[at])
    size = 2 if first < 0xE0 else (3 if first < 0xF0 else 4)
    if at + size > stop or first < 0xC0:
        return np.int64(0xFFFD), at + 1
    code = first & (0x7F >> size)
    for i in range(at + 1, at + size):
        code = (code << 6) | (np.int64(data[i]) & 0x3F)
    return min(code, np.int64(0x10FFFF)), at + size


@njit(**_OPTIONS)
def _step(code: Any, words: Array, count: Any, hashed: Any, within: Any) -> Any:
    """Take one folded character in: the words so far, the hash of the open one, if one is open."""
    kind = code >> _SHIFT
    if kind == _IGNORED:
        return count, hashed, within
    own = np.uint64(code & _CODE)
    if kind == _WORD:
        return count, (hashed ^ own) * _PRIME, True
    if within:
        words[count] = _mixed(hashed)
        count += 1
    if kind == _ALONE:
        words[count] = _mixed((_SEED ^ own) * _PRIME)
        count += 1
    return count, _SEED, False


@njit(**_OPTIONS)
def _fill(data: Array, at: Any, stop: Any, table: Any, words: Array, state: Array) -> Any:
    """Read words into a block until it is full or the text at its end.

    The state, uint64 [4], is kept in an array so that all calls have the same types: words left
    over of the block before, hash of an open word, whether one is open, whether shingles were made.

    Returns:
        Where the next block begins, and how many words there are in this one.
    """
    codes, starts, pieces = table
    count, hashed, within = np.int64(state[0]), state[1], state[2] != _ZERO
    while at < stop and count < _BLOCK:
        first = data[at]
        if first < 128:
            code = codes[first]
            at += 1
        else:
            point, at = _decoded(data, at, stop)
            code = codes[point]
        if (code >> _SHIFT) == _WORD:
            hashed = (hashed ^ np.uint64(code & _CODE)) * _PRIME
            within = True
        elif (code >> _SHIFT) == _EXPANDED:
            number = code & _CODE
            for piece in range(starts[number], starts[number + 1]):
                count, hashed, within = _step(pieces[piece], words, count, hashed, within)
        else:
            count, hashed, within = _step(code, words, count, hashed, within)
    if at >= stop and within:
        words[count] = _mixed(hashed)
        count += 1
    state[1], state[2] = hashed, np.uint64(within)
    return at, count


@njit(**_OPTIONS)
def _power(exponent: Any) -> Any:
    result = np.uint64(1)
    for _ in range(exponent):
        result *= _BASE
    return result


@njit(**_OPTIONS)
def _shingle(words: Array, count: Any, ngram: Any, top: Any, out: Array) -> Any:
    """Hashes of all n-grams of a block of words; returns how many."""
    rolling = _ZERO
    for i in range(count):
        rolling = rolling * _BASE + words[i]
        if i >= ngram:
            rolling -= words[i - ngram] * top
        if i >= ngram - 1:
            out[i - ngram + 1] = _mixed(rolling)
    return max(count - ngram + 1, 0)


@njit(**_OPTIONS)
def _begin(state: Array, made: Any) -> None:
    """The state at the beginning of a text; `made` forbids a shingle of fewer words."""
    state[0], state[1], state[2], state[3] = _ZERO, _SEED, _ZERO, np.uint64(made)


@njit(**_OPTIONS)
def _next(data: Array, at: Any, stop: Any, table: Any, ngram: Any, room: Any, state: Array) -> Any:
    """The shingles of the next block of a text.

    Args:
        data: UTF-8 bytes of all texts.
        at: Where the block begins.
        stop: Where the text ends.
        table: Of `word_table`.
        ngram: Words of a shingle.
        room: For a block of words, whose first places hold what was left over, and of shingles.
        state: As in `_fill`.

    Returns:
        Where the next block begins, and how many shingles there are.
    """
    words, out = room
    at, count = _fill(data, at, stop, table, words, state)
    made = _shingle(words, count, ngram, _power(ngram), out)
    if at >= stop and made == 0 and count > 0 and state[3] == _ZERO:
        made = _shingle(words, count, count, _power(count), out)
    left = min(ngram - 1, count)
    for i in range(left):
        words[i] = words[count - left + i]
    state[0] = np.uint64(left)
    if made > 0:
        state[3] = np.uint64(1)
    return at, made


@njit(**_OPTIONS)
def _lower(signature: Array, shingles: Array, count: Any, factors: Array) -> None:
    """Lower a signature to the least values of these shingles, four of them at a time."""
    a, b = factors[0], factors[1]
    i = 0
    while i + 4 <= count:
        x0 = np.uint32(shingles[i] >> _S32)
        x1 = np.uint32(shingles[i + 1] >> _S32)
        x2 = np.uint32(shingles[i + 2] >> _S32)
        x3 = np.uint32(shingles[i + 3] >> _S32)
        for p in range(signature.shape[0]):
            v0, v1 = np.uint32(a[p] * x0 + b[p]), np.uint32(a[p] * x1 + b[p])
            v2, v3 = np.uint32(a[p] * x2 + b[p]), np.uint32(a[p] * x3 + b[p])
            signature[p] = min(v0, v1, v2, v3, signature[p])
        i += 4
    while i < count:
        x0 = np.uint32(shingles[i] >> _S32)
        for p in range(signature.shape[0]):
            signature[p] = min(np.uint32(a[p] * x0 + b[p]), signature[p])
        i += 1


@njit(**_OPTIONS)
def _settle(pool: Array, held: Any, most: Any, spare: Array, counts: Array) -> Any:
    """Sort a pool of random numbers, leave out repeats, keep the `most` smallest.

    By buckets of about one number each, since the numbers lie evenly up to the largest.
    """
    largest = np.uint32(0)
    for i in range(held):
        largest = max(largest, pool[i])
    scale = held / (np.float64(largest) + 1.0)
    for i in range(held + 1):
        counts[i] = 0
    for i in range(held):
        counts[np.int64(pool[i] * scale) + 1] += 1
    for i in range(held):
        counts[i + 1] += counts[i]
    for i in range(held):
        bucket = np.int64(pool[i] * scale)
        spare[counts[bucket]] = pool[i]
        counts[bucket] += 1
    kept = 0
    for i in range(held):
        value = spare[i]
        j = i
        while j > 0 and spare[j - 1] > value:
            spare[j] = spare[j - 1]
            j -= 1
        spare[j] = value
    for i in range(held):
        if kept == most:
            break
        if kept == 0 or pool[kept - 1] != spare[i]:
            pool[kept] = spare[i]
            kept += 1
    return kept


@njit(**_OPTIONS)
def _gather(
    pool: Array, held: Any, limit: Any, shingles: Array, count: Any, most: Any, room: Any
) -> Any:
    """Add shingles to the pool of a sketch, but for those that are too large to be in it."""
    spare, counts = room
    for i in range(count):
        value = np.uint32(shingles[i] >> _S32)
        if value > limit:
            continue
        pool[held] = value
        held += 1
        if held == pool.shape[0]:
            held = _settle(pool, held, most, spare, counts)
            if held == most:
                limit = pool[held - 1]
    return held, limit


@njit(**_OPTIONS)
def _new_state() -> Any:
    return np.zeros(4, np.uint64)


@njit(**_OPTIONS)
def sign(
    data: Array,
    offsets: Array,
    table: Any,
    ngram: int,
    factors: Array,
    most: int,
    out: Any,
) -> None:
    """Signatures and sketches of all texts of a batch.

    Args:
        data: UTF-8 bytes [B].
        offsets: int64 [rows + 1].
        table: codes, starts and pieces of `word_table`.
        ngram: Words of a shingle.
        factors: a and b of the permutations, uint32 [2, P], a being odd.
        most: Values of a sketch.
        out: Signatures uint32 [rows, P]; sketches uint32, with room for all; where they begin,
            int64 [rows + 1].
    """
    signatures, sketches, begins = out
    size = _BLOCK + _SLACK + ngram
    words, shingles, state = np.empty(size, np.uint64), np.empty(size, np.uint64), _new_state()
    pool, spare = np.empty(_POOL * most, np.uint32), np.empty(_POOL * most, np.uint32)
    counts = np.empty(_POOL * most + 2, np.int64)
    begins[0] = 0
    for row in range(offsets.shape[0] - 1):
        at, stop = offsets[row], offsets[row + 1]
        held, limit = np.int64(0), np.uint32(0xFFFFFFFF)
        for p in range(signatures.shape[1]):
            signatures[row, p] = limit
        _begin(state, np.int64(0))
        while at < stop:
            at, made = _next(data, at, stop, table, ngram, (words, shingles), state)
            _lower(signatures[row], shingles, made, factors)
            held, limit = _gather(pool, held, limit, shingles, made, most, (spare, counts))
        held = _settle(pool, held, most, spare, counts)
        for i in range(held):
            sketches[begins[row] + i] = pool[i]
        begins[row + 1] = begins[row] + held


@njit(**_OPTIONS)
def all_shingles(data: Array, offsets: Array, table: Any, ngram: int, out: Array) -> Any:
    """Write the 64-bit n-grams of one text to `out`, which has room for all; returns how many.

    Of a text with fewer words there is none. Arguments are as in `find_known`.
    """
    size = _BLOCK + _SLACK + ngram
    words, shingles, state = np.empty(size, np.uint64), np.empty(size, np.uint64), _new_state()
    at, stop = offsets[0], offsets[1]
    total = 0
    _begin(state, np.int64(1))
    while at < stop:
        at, made = _next(data, at, stop, table, ngram, (words, shingles), state)
        for i in range(made):
            out[total + i] = shingles[i]
        total += made
    return total


@njit(**_OPTIONS)
def _known(value: Any, known: Array, bits: Array) -> Any:
    """Where a hash stands among the sorted known ones; -1 where it does not."""
    place = value >> np.uint64(32)
    place &= np.uint64(bits.shape[0] * 8 - 1)
    if not (bits[place >> np.uint64(3)] >> np.uint8(place & np.uint64(7))) & 1:
        return np.int64(-1)
    low, high = np.int64(0), np.int64(known.shape[0])
    while low < high:
        middle = (low + high) // 2
        if known[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low if low < known.shape[0] and known[low] == value else np.int64(-1)


@njit(**_OPTIONS)
def find_known(
    data: Array, offsets: Array, table: Any, ngram: int, known: Array, bits: Array, out: Any
) -> Any:
    """Which n-grams of the texts are among known ones.

    Args:
        data: UTF-8 bytes [B].
        offsets: int64 [rows + 1].
        table: codes, starts and pieces of `word_table`.
        ngram: Words of an n-gram.
        known: uint64, sorted.
        bits: A bitmap of the known, a power of two bytes: bit (hash >> 32) modulo its size.
        out: Room for the rows and for the places in `known` of what is found, int64 each.

    Returns:
        How many were found; more than there is room for are counted, but not written.
    """
    rows, places = out
    size = _BLOCK + _SLACK + ngram
    words, shingles, state = np.empty(size, np.uint64), np.empty(size, np.uint64), _new_state()
    found = 0
    for row in range(offsets.shape[0] - 1):
        at, stop = offsets[row], offsets[row + 1]
        _begin(state, np.int64(1))  # of too few words nothing is asked
        while at < stop:
            at, made = _next(data, at, stop, table, ngram, (words, shingles), state)
            for i in range(made):
                place = _known(shingles[i], known, bits)
                if place >= 0:
                    if found < rows.shape[0]:
                        rows[found], places[found] = row, place
                    found += 1
    return found


@njit(**_OPTIONS)
def hash_sequences(data: Array, offsets: Array, table: Any, seeds: Array, out: Array) -> None:
    """64 bits of the sequence of words of each text, uint64 [rows]; 0 where it has none.

    Args:
        data: UTF-8 bytes [B].
        offsets: int64 [rows + 1]; texts may be pieces of longer ones, such as lines.
        table: codes, starts and pieces of `word_table`.
        seeds: What each hash begins with, uint64 [rows].
        out: uint64 [rows].
    """
    words, state = np.empty(_BLOCK + _SLACK, np.uint64), _new_state()
    for row in range(offsets.shape[0] - 1):
        at, stop = offsets[row], offsets[row + 1]
        rolling, total = seeds[row], _ZERO
        _begin(state, np.int64(0))
        while at < stop:
            at, count = _fill(data, at, stop, table, words, state)
            for i in range(count):
                rolling = rolling * _BASE + words[i]
            total += np.uint64(count)
        out[row] = _mixed(rolling ^ total) if total else _ZERO
