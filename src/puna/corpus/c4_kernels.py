"""C4's line rules over the UTF-8 bytes of an Arrow column, in Numba; `c4_twin` is the slow twin.

Shapes: R rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from puna.corpus.characters import DIGIT, LINE_END, PUNCTUATION, SPACE
from puna.corpus.parsing_kernels import decode, phrases_in, sentences_in, word_end

Array = Any  # a numpy array; Numba compiles for what it is given
_OPTIONS: Any = {"cache": True, "nogil": True, "error_model": "numpy"}

LINE_ENDS, JAVASCRIPT, LOREM_IPSUM, CURLY, POLICY, CITATIONS, SPLIT_BY_SPACES = (
    1,
    2,
    4,
    8,
    16,
    32,
    64,
)
"""Which rules are on, and how words are split."""
LEFT_ALONE, NOT_UTF8, FINE, HAS_LOREM_IPSUM, HAS_CURLY = -2, -1, 0, 1, 2
"""What became of a text."""

_KEPT, _DROPPED = 0, -1
_NEWLINE, _RETURN, _DOT, _OPEN, _CLOSE, _BRACE = 10, 13, 46, 91, 93, 123
_EDIT = (101, 100, 105, 116, 93)
_NEEDED = (99, 105, 116, 97, 116, 105, 111, 110, 32, 110, 101, 101, 100, 101, 100, 93)


@njit(**_OPTIONS)
def _line_end(data: Array, start: Any, stop: Any) -> Any:
    """Where a displayed line ends, in bytes, and where the next begins."""
    i = start
    while i < stop:
        byte = data[i]
        if byte < 32 and (10 <= byte <= 13 or 28 <= byte <= 30):
            pair = byte == _RETURN and i + 1 < stop and data[i + 1] == _NEWLINE
            return i, i + 1 + pair
        if byte == 0xC2 and i + 1 < stop and data[i + 1] == 0x85:
            return i, i + 2
        if byte == 0xE2 and i + 2 < stop and data[i + 1] == 0x80 and data[i + 2] & 0xFE == 0xA8:
            return i, i + 3
        i += 1
    return stop, stop


@njit(**_OPTIONS)
def _words(codes: Array, kinds: Array, start: Any, stop: Any, by_spaces: Any) -> Any:
    """Words of a line, and the characters of the longest."""
    count, longest, i = 0, 0, start
    while i < stop:
        end = i
        if by_spaces:
            while end < stop and not kinds[end] & SPACE:
                end += 1
            count += end > i
        else:
            end = word_end(codes, kinds, i, stop)
            for k in range(i, end):
                if not kinds[k] & PUNCTUATION:
                    count += 1
                    break
        longest = max(longest, end - i)
        i = max(end, i + 1)
    return count, longest


@njit(**_OPTIONS)
def _says(codes: Array, at: Any, stop: Any, letters: Any) -> Any:
    if at + len(letters) > stop:
        return False
    same = True
    for k in range(len(letters)):
        same &= codes[at + k] == letters[k]
    return same


@njit(**_OPTIONS)
def _without_citations(codes: Array, kinds: Array, start: Any, stop: Any) -> Any:
    """Take out [1], [], [edit] and [citation needed], in place; where the line ends then."""
    i, at = start, start
    while i < stop:
        if codes[i] == _OPEN:
            end = i + 1
            while end < stop and kinds[end] & DIGIT:
                end += 1
            if end < stop and codes[end] == _CLOSE:
                i = end + 1
                continue
            if _says(codes, i + 1, stop, _EDIT):
                i += 1 + len(_EDIT)
                continue
            if _says(codes, i + 1, stop, _NEEDED):
                i += 1 + len(_NEEDED)
                continue
        codes[at], kinds[at] = codes[i], kinds[i]
        at += 1
        i += 1
    return at


@njit(**_OPTIONS)
def _judge(
    codes: Array, kinds: Array, n: Any, phrases: Any, fewest: Any, most: Any, rules: Any
) -> Any:
    """What becomes of a line, or of its text; and from where to where it goes on."""
    start, stop = 0, n
    while start < stop and kinds[start] & SPACE:
        start += 1
    while stop > start and kinds[stop - 1] & SPACE:
        stop -= 1
    words, longest = _words(codes, kinds, start, stop, rules & SPLIT_BY_SPACES)
    if most >= 0 and longest > most:
        return _DROPPED, start, stop
    if rules & CITATIONS:
        stop = _without_citations(codes, kinds, start, stop)
    if rules & LINE_ENDS:
        if stop == start or not kinds[stop - 1] & LINE_END:
            return _DROPPED, start, stop
        dots = stop - start >= 3 and codes[stop - 1] == _DOT
        if dots and codes[stop - 2] == _DOT and codes[stop - 3] == _DOT:
            return _DROPPED, start, stop
    if words < fewest:
        return _DROPPED, start, stop
    found = phrases_in(codes, start, stop, phrases)
    if found & 2 and rules & LOREM_IPSUM:
        return HAS_LOREM_IPSUM, start, stop
    if found & 1 and rules & JAVASCRIPT:
        return _DROPPED, start, stop
    if rules & CURLY:
        for i in range(start, stop):
            if codes[i] == _BRACE:
                return HAS_CURLY, start, stop
    if found > 3 and rules & POLICY:
        return _DROPPED, start, stop
    return _KEPT, start, stop


@njit(**_OPTIONS)
def _encode(code: Any, out: Array, at: Any) -> Any:
    """Write one character as UTF-8; the place after it."""
    if code < 0x80:
        out[at] = code
        return at + 1
    size = 2 + (code >= 0x800) + (code >= 0x10000)
    out[at] = (0xF00 >> size) & 0xFF | code >> 6 * (size - 1)
    for k in range(1, size):
        out[at + k] = 0x80 | code >> 6 * (size - 1 - k) & 0x3F
    return at + size


@njit(**_OPTIONS)
def _clean(data: Array, table: Any, phrases: Any, limits: Array, rules: Any, work: Any) -> Any:
    """One text: what became of it, sentences, lines kept, lines, and where its output ends."""
    codes, kinds, out, begin = work
    sentences, kept, lines, start = 0, 0, 0, 0
    at = solid = begin
    while start < data.shape[0]:
        end, following = _line_end(data, start, data.shape[0])
        n = decode(data, start, end, table, codes, kinds)
        if n < 0:
            return NOT_UTF8, 0, 0, 0, begin
        lines += 1
        start = following
        verdict, first, stop = _judge(codes, kinds, n, phrases, limits[0], limits[1], rules)
        if verdict > 0:
            return verdict, sentences, kept, lines, begin
        if verdict == _DROPPED:
            continue
        sentences += sentences_in(codes, kinds, first, stop)
        kept += 1
        if at > begin:
            out[at] = _NEWLINE
            at += 1
        for i in range(first, stop):
            if at == begin and kinds[i] & SPACE:
                continue
            at = _encode(np.int64(codes[i]), out, at)
            if not kinds[i] & SPACE:
                solid = at
    return FINE, sentences, kept, lines, solid


@njit(**_OPTIONS)
def clean_texts(
    offsets: Array,
    data: Array,
    table: Any,
    phrases: Any,
    limits: Array,
    rules: Any,
    counts: Array,
    out: Any,
) -> None:
    """Keep of every text the lines that C4 keeps.

    Args:
        offsets: Of the texts in `data`, int64 [R + 1].
        data: UTF-8, uint8.
        table: Of the characters: starts of blocks and classes.
        phrases: As of `phrases_in`.
        limits: Fewest words of a line and most characters of a word, int64 [R, 2]; -1 for none.
        rules: Which are on.
        counts: int64 [R, 4]: what became of the text (left alone where it says so before),
            sentences, lines kept, lines.
        out: The new texts, uint8, as large as the old ones; and where each ends, int64 [R + 1].
    """
    cleaned, ends = out
    longest = np.int64(0)
    for r in range(counts.shape[0]):
        start = offsets[r]
        while counts[r, 0] != LEFT_ALONE and start < offsets[r + 1]:
            end, following = _line_end(data, start, offsets[r + 1])
            longest = max(longest, end - start)
            start = following
    codes, kinds = np.empty(longest, np.int32), np.empty(longest, np.uint32)
    ends[0] = 0
    for r in range(counts.shape[0]):
        ends[r + 1] = ends[r]
        if counts[r, 0] == LEFT_ALONE:
            continue
        text = data[offsets[r] : offsets[r + 1]]
        work = (codes, kinds, cleaned, ends[r])
        state, sentences, kept, lines, end = _clean(text, table, phrases, limits[r], rules, work)
        counts[r, 0], counts[r, 1], counts[r, 2], counts[r, 3] = state, sentences, kept, lines
        ends[r + 1] = end
