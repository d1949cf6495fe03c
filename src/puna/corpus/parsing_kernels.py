"""What a text is made of: characters, tokens, sentences, lines and phrases, in Numba.

The parts that `text_kernels` and `c4_kernels` share; `text_twin` says the same in plain Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from puna.corpus.characters import (
    ALONE,
    BREAK,
    CLOSING,
    DIGIT,
    EXTEND,
    LETTER,
    MARK,
    MID_LETTER,
    MID_NUMBER,
    RUN,
    SPACE,
    TERMINAL,
    WORD,
)

Array = Any  # a numpy array; Numba compiles for what it is given
_OPTIONS: Any = {"cache": True, "nogil": True, "error_model": "numpy"}

_NEWLINE, _RETURN, _KELVIN = 10, 13, 0x212A
_FULL_WIDTH = 0x3000  # marks from here on end a sentence without a space after them


@njit(**_OPTIONS)
def decode(data: Array, start: Any, stop: Any, table: Any, codes: Array, kinds: Array) -> Any:
    """Code points and their bits; how many there are, or -1 where the bytes are not UTF-8."""
    starts, classes = table
    n, i = 0, start
    while i < stop:
        code = np.int64(data[i])
        size: Any = 1
        if code >= 0x80:
            if code < 0xC2 or code > 0xF4:
                return -1
            size = 2 + (code >= 0xE0) + (code >= 0xF0)
            code &= 0xFF >> (size + 1)
            if i + size > stop:
                return -1
            for k in range(1, size):
                follower = np.int64(data[i + k])
                if follower & 0xC0 != 0x80:
                    return -1
                code = code << 6 | follower & 0x3F
            if code > 0x10FFFF:
                return -1
        i += size
        codes[n] = code
        kinds[n] = classes[starts[code >> 8] + (code & 255)]
        n += 1
    return n


@njit(**_OPTIONS)
def word_end(codes: Array, kinds: Array, i: Any, stop: Any) -> Any:
    """Where the token that begins at `i` ends; `i` itself where none does."""
    kind = kinds[i]
    j = i + 1
    if kind & WORD:
        while j < stop:
            kind = kinds[j]
            if kind & (WORD | EXTEND):
                j += 1
            elif kind & (MID_LETTER | MID_NUMBER) and j + 1 < stop and kinds[j + 1] & WORD:
                wanted = LETTER if kind & MID_LETTER else DIGIT
                if not (kinds[j - 1] & kinds[j + 1] & wanted):
                    break
                j += 2
            else:
                break
        return j
    if kind & (ALONE | RUN):
        while j < stop and (kinds[j] & (MARK | EXTEND) or (kind & RUN and codes[j] == codes[i])):
            j += 1
        return j
    return i


@njit(**_OPTIONS)
def sentences_in(codes: Array, kinds: Array, start: Any, stop: Any) -> Any:
    """Sentences of one line: what marks that end one, then quotes, then a space or nothing, end."""
    count, inside, i = 0, False, start
    while i < stop:
        if not inside:
            while i < stop and kinds[i] & SPACE:
                i += 1
            inside = i < stop and not kinds[i] & TERMINAL
        while i < stop and not kinds[i] & TERMINAL:
            i += 1
        if i == stop:
            break
        wide = False
        while i < stop and kinds[i] & TERMINAL:
            wide |= codes[i] >= _FULL_WIDTH
            i += 1
        while i < stop and kinds[i] & CLOSING:
            i += 1
        if wide or i == stop or kinds[i] & SPACE:
            count += inside
            inside = False
        else:
            inside = True
    return count + inside


@njit(**_OPTIONS)
def _folded(code: Any) -> Any:
    """Lower case, of what becomes an ASCII letter by it."""
    if 65 <= code <= 90:
        return code + 32
    return 107 if code == _KELVIN else code


@njit(**_OPTIONS)
def phrases_in(codes: Array, start: Any, stop: Any, phrases: Any) -> Any:
    """Which phrases stand in a line, whatever their case: a bit for each.

    Args:
        codes: Code points.
        start: Of the line.
        stop: Of the line.
        phrases: In lower case, uint8 [phrases, letters], zero after the end; the place of a rare
            letter in each, int64 [phrases]; and which phrases have a letter there, whatever its
            case, uint8 [128].
    """
    letters, places, rare = phrases
    found = 0
    for i in range(start, stop):
        code = codes[i]
        if code >= 128:
            if code != _KELVIN:
                continue
            code = _folded(code)
        if rare[code] == 0:
            continue
        for number in range(places.shape[0]):
            at = i - places[number]
            if rare[code] >> number & 1 and at >= start:
                k = 0
                while letters[number, k] and at + k < stop:
                    if _folded(codes[at + k]) != letters[number, k]:
                        break
                    k += 1
                if letters[number, k] == 0:
                    found |= 1 << number
    return found


@njit(**_OPTIONS)
def next_break(codes: Array, kinds: Array, start: Any, stop: Any) -> Any:
    """Where a displayed line ends, and where the next begins."""
    i = start
    while i < stop and not kinds[i] & BREAK:
        i += 1
    if i + 1 < stop and codes[i] == _RETURN and codes[i + 1] == _NEWLINE:
        return i, i + 2
    return i, min(i + 1, stop)
