"""All figures of a text in one native pass over the UTF-8 bytes of an Arrow column, in Numba.

`text_twin` says the same in plain Python; a test holds the two equal on any Unicode text.

Shapes: R rows, N characters of one text, T tokens of one text, F figures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from puna.corpus import figures as of
from puna.corpus.characters import BULLET, LETTER, PUNCTUATION, SPACE, TERMINAL, WIDE
from puna.corpus.gram_kernels import (
    candidates_of,
    clear,
    duplicated_characters,
    extend,
    find,
    mark_repeated,
    place,
    powers_of_base,
    stretch,
    top_gram,
)
from puna.corpus.parsing_kernels import decode, next_break, phrases_in, sentences_in, word_end

Array = Any  # a numpy array; Numba compiles for what it is given
_OPTIONS: Any = {"cache": True, "nogil": True, "error_model": "numpy"}

_NEWLINE, _HASH, _DOT = 10, 35, 46
_ELLIPSIS, _CURLY = 0x2026, 123
_LONG = (12, 24, 36)  # lengths by which repetition is looked for first, in characters
_SHORT = (5, 8, 16)  # of texts whose tokens are short, such as Chinese


@njit(**_OPTIONS)
def _split(codes: Array, kinds: Array, prefixes: Any, ends: Array, tokens: Array) -> Any:
    """Tokens: where they end, their hashes, those of all prefixes; and counts of them."""
    n, i, at, count = kinds.shape[0], 0, 0, 0
    words, letters, alphabetic = 0, 0, 0
    hashes, powers = prefixes
    hashes[0] = np.uint64(0)
    while i < n:
        stop = word_end(codes, kinds, i, n)
        if stop == i:
            i += 1
            continue
        prefix, first = hashes[at], at
        some, every = np.uint32(0), np.uint32(0xFFFFFFFF)
        while i < stop:
            some |= kinds[i]
            every &= kinds[i]
            prefix = extend(prefix, codes[i])
            at += 1
            hashes[at] = prefix
            i += 1
        if not every & PUNCTUATION:
            words += 1
            letters += at - first
        alphabetic += (some & LETTER) != 0
        ends[count] = at
        tokens[count] = stretch(hashes, powers, first, at)
        count += 1
    return count, words, letters, alphabetic


@njit(**_OPTIONS)
def _stop_words(tokens: Array, stops: Array, seen: Array) -> Any:
    """How many of the stop words are among the tokens."""
    seen[:] = 0
    for token in tokens:
        at = find(stops, token)
        if at >= 0:
            seen[at] = 1
    return seen.sum()


@njit(**_OPTIONS)
def _marks(codes: Array, row: Array) -> Any:
    """Count single characters; how many line feeds there are."""
    newlines, hashes, ellipses, curly, dots = 0, 0, 0, 0, 0
    for code in codes:
        newlines += code == _NEWLINE
        hashes += code == _HASH
        curly += code == _CURLY
        ellipses += code == _ELLIPSIS
    for code in codes:
        if code == _DOT:
            dots += 1
        elif dots:
            ellipses += dots // 3
            dots = 0
    ellipses += dots // 3
    row[of.HASH_RATIO] = hashes
    row[of.ELLIPSIS_RATIO] = ellipses
    row[of.NEWLINES] = newlines
    row[of.CURLY_BRACKETS] = curly
    return newlines


@njit(**_OPTIONS)
def _displayed_lines(codes: Array, kinds: Array, phrases: Any, row: Array) -> None:
    n, start, lines = codes.shape[0], 0, 0
    bullets, ellipses, sentences, javascript, policy, lorem = 0, 0, 0, 0, 0, 0
    while start < n:
        stop, following = next_break(codes, kinds, start, n)
        first, last = start, stop - 1
        while first < stop and kinds[first] & SPACE:
            first += 1
        while last >= first and kinds[last] & SPACE:
            last -= 1
        lines += 1
        if first <= last:
            bullets += (kinds[first] & BULLET) != 0
            dots = last - first >= 2 and codes[last] == _DOT
            dots = dots and codes[last - 1] == _DOT and codes[last - 2] == _DOT
            ellipses += dots or codes[last] == _ELLIPSIS
            sentences += sentences_in(codes, kinds, first, last + 1)
            found = phrases_in(codes, first, last + 1, phrases)
            javascript += found & 1
            lorem += found >> 1 & 1
            policy += found > 3
        start = following
    row[of.BULLET_LINES] = bullets / max(lines, 1)
    row[of.ELLIPSIS_LINES] = ellipses / max(lines, 1)
    row[of.SENTENCES] = sentences
    row[of.JAVASCRIPT] = javascript
    row[of.LOREM_IPSUM] = lorem
    row[of.POLICY] = policy


@njit(**_OPTIONS)
def _lines(codes: Array, kinds: Array, keys: Array, newlines: Any, short: Any, row: Array) -> None:
    """Figures of the lines between line feeds, blank or not."""
    n, start = codes.shape[0], 0
    elements, lines, short_lines, punctuated = 0, 0, 0, 0
    duplicates, characters, repeated = 0, 0, 0
    mask = clear(keys, newlines + 1)
    while start <= n and n > 0:
        i, width, total, filled = start, 0, np.uint64(0), False
        while i < n and codes[i] != _NEWLINE:
            total = extend(total, codes[i])
            filled |= not kinds[i] & SPACE
            width += 2 if kinds[i] & WIDE else 1
            i += 1
        if i > start or start == 0 or i == n:  # empty ones count at the ends of the text only
            elements += 1
            known = place(keys, mask, total)[1]
            duplicates += known
            characters += (i - start) * known
            if filled:
                lines += 1
                short_lines += width <= short
                punctuated += (kinds[i - 1] & TERMINAL) != 0
                repeated += (i - start) * known
        start = i + 1
    row[of.LINES] = lines
    row[of.SHORT_LINES] = short_lines / max(lines, 1)
    row[of.PUNCTUATED_LINES] = punctuated / max(lines, 1)
    row[of.REPEATED_LINES] = repeated / max(n - newlines, 1)
    row[of.DUPLICATE_LINES] = duplicates / max(elements, 1)
    row[of.DUPLICATE_LINES + 1] = characters / max(n, 1)


@njit(**_OPTIONS)
def _paragraphs(codes: Array, kinds: Array, keys: Array, newlines: Any, row: Array) -> None:
    """Figures of what stands between two or more line feeds."""
    n, start, stop = codes.shape[0], 0, codes.shape[0]
    if newlines < 2:  # there is one
        return
    while start < n and kinds[start] & SPACE:
        start += 1
    while stop > start and kinds[stop - 1] & SPACE:
        stop -= 1
    elements, duplicates, characters, i = 0, 0, 0, start
    mask = clear(keys, newlines + 1)
    while i < stop:
        start, total = i, np.uint64(0)
        while i < stop and not (codes[i] == _NEWLINE and codes[i + 1] == _NEWLINE):
            total = extend(total, codes[i])
            i += 1
        elements += 1
        known = place(keys, mask, total)[1]
        duplicates += known
        characters += (i - start) * known
        while i < stop and codes[i] == _NEWLINE:
            i += 1
    row[of.DUPLICATE_PARAGRAPHS] = duplicates / max(elements, 1)
    row[of.DUPLICATE_PARAGRAPHS + 1] = characters / max(n, 1)


@njit(**_OPTIONS)
def _grams(ends: Array, tokens: Array, prefixes: Any, work: Any, row: Array) -> None:
    """Figures of repeated n-grams."""
    levels, slots, where, grams, table = work
    total, n = ends.shape[0], int(row[of.CHARACTERS])
    left = total
    for i in range(total):
        where[i] = i
        grams[i] = tokens[i]
    for size in range(2, 5):
        if total < size:
            break
        often, first, left = top_gram(size, left, where, grams, tokens, slots, table)
        start = ends[first - 1] if first else 0
        length = ends[first + size - 1] - start + size - 1
        row[of.TOP_GRAMS + size - 2] = often * length / n
    if total < 5:
        return
    lengths = _SHORT if ends[-1] < 3 * total else _LONG
    left = total
    for i in range(total):
        where[i] = i
        levels[i] = 0
    for length in lengths:
        left = mark_repeated(length, left, where, ends, levels, slots, prefixes, table)
    left = total
    for i in range(total):
        where[i] = i
    for size in range(5, 11):
        left = candidates_of(size, left, where, ends, levels, lengths)
        found = duplicated_characters(size, left, where, ends, prefixes, table[0])
        row[of.DUPLICATED_GRAMS + size - 5] = found / n


@njit(**_OPTIONS)
def _text(
    codes: Array, kinds: Array, stops: Any, phrases: Any, limits: Any, work: Any, row: Any
) -> None:
    """All figures of one text."""
    hashes, powers, ends, tokens, slots, levels, where, grams, table, seen = work
    n = codes.shape[0]
    row[:] = 0
    row[of.CHARACTERS] = n
    newlines = _marks(codes, row)
    _displayed_lines(codes, kinds, phrases, row)
    _lines(codes, kinds, table[0], newlines, limits[0], row)
    _paragraphs(codes, kinds, table[0], newlines, row)
    count, words, letters, alphabetic = _split(codes, kinds, (hashes, powers), ends, tokens)
    row[of.WORDS] = words
    row[of.TOKENS] = count
    row[of.MEAN_WORD_LENGTH] = letters / words if words else np.nan
    row[of.ALPHABETIC] = alphabetic / max(words if limits[2] else count, 1)
    for ratio in (of.HASH_RATIO, of.ELLIPSIS_RATIO, of.NEWLINES):
        row[ratio] = np.float64(row[ratio]) / max(count, 1)
    row[of.STOP_WORDS] = _stop_words(tokens[:count], stops, seen)
    if count:
        spare = (levels, slots, where, grams, table)
        _grams(ends[:count], tokens[:count], (hashes, powers), spare, row)


@njit(**_OPTIONS)
def _longest(offsets: Array, languages: Array, most: Any) -> Any:
    """Bytes of the longest text that is looked at."""
    longest = np.int64(0)
    for r in range(languages.shape[0]):
        if languages[r] > -2:
            longest = max(longest, min(offsets[r + 1] - offsets[r], most))
    return longest


@njit(**_OPTIONS)
def _cut(data: Array, start: Any, end: Any, most: Any) -> Any:
    """Where a text ends that may have only so many bytes: between two characters."""
    stop = end
    if stop - start > most:
        stop = start + most
        while stop > start and data[stop] & 0xC0 == 0x80:
            stop -= 1
    return stop


@njit(**_OPTIONS)
def text_figures(
    offsets: Array,
    data: Array,
    languages: Array,
    table: Any,
    stops: Array,
    phrases: Any,
    limits: Any,
    out: Array,
) -> None:
    """Compute the figures of every text of a column.

    Args:
        offsets: Of the texts in `data`, int64 [R + 1].
        data: UTF-8, uint8.
        languages: Whose stop words are counted, int64 [R]: -1 where there are none, -2 where the
            text is to be left alone.
        table: Of the characters: starts of blocks and classes.
        stops: Hashes of stop words, a table for each language, uint64 [languages, places].
        phrases: As of `phrases_in`.
        limits: Characters of a short line, bytes that are looked at of each text, and whether the
            fraction of alphabetic ones is that of words, not of tokens.
        out: float32 [R, F]; NaN where a figure is not known. A text that is not UTF-8 has NaN for
            its number of characters.
    """
    most = limits[1]
    longest = _longest(offsets, languages, most)
    places = 16
    while places < 2 * (longest + 1):
        places *= 2
    codes, kinds = np.empty(longest, np.int32), np.empty(longest, np.uint32)
    pair = (np.empty(places, np.uint64), np.empty(places, np.uint64))
    work = (
        np.empty(longest + 1, np.uint64),
        powers_of_base(),
        np.empty(longest, np.int32),
        np.empty(longest, np.uint64),
        np.empty(longest, np.int32),
        np.empty(longest, np.uint8),
        np.empty(longest, np.int32),
        np.empty(longest, np.uint64),
        pair,
        np.zeros(stops.shape[1], np.uint8),
    )
    for r in range(languages.shape[0]):
        out[r] = np.nan
        if languages[r] == -2:
            continue
        start, end = offsets[r], offsets[r + 1]
        stop = _cut(data, start, end, most)
        n = decode(data, start, stop, table, codes, kinds)
        if n < 0:
            continue
        known = languages[r] if languages[r] >= 0 else 0
        _text(codes[:n], kinds[:n], stops[known], phrases, limits, work, out[r])
        out[r, of.UNREAD_BYTES] = end - stop
        if languages[r] < 0:
            out[r, of.STOP_WORDS] = np.nan
