"""What counts as a word when texts are compared, and a table of it for native code.

Case, accents, compatibility forms (full width, ligatures), punctuation, symbols and kinds of space
make no difference: two texts that differ in nothing else have the same words. A word is a run of
letters, marks and digits; in scripts that are written without spaces, every character is one.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import NamedTuple

import numpy as np
import pyarrow as pa

SEPARATOR, WORD, ALONE, IGNORED, EXPANDED = range(5)
CLASS_SHIFT = 24
"""An entry of the table is a class, shifted by this, and below it a code point."""

_CODES = 0x110000
_ALONE_RANGES = (
    (0x0E00, 0x0E7F),  # Thai
    (0x0E80, 0x0EFF),  # Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # CJK radicals
    (0x3005, 0x3007),  # iteration mark, zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3041, 0x30FA),  # Hiragana, Katakana
    (0x30FC, 0x312F),  # prolonged sound mark, Bopomofo
    (0x31A0, 0x31BF),  # Bopomofo
    (0x31F0, 0x31FF),  # Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han
    (0x1AFF0, 0x1B16F),  # Kana
    (0x20000, 0x323AF),  # Han
)
# Neither folding nor composition changes these, so that they need no look at each one.
_PLAIN_RANGES = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x20000, 0x2F7FF))
# Beyond this lie tags and variation selectors, which are ignored, and private use.
_LAST_ASSIGNED_PLANE = 0x323AF
_TAGS = (0xE0000, 0xE0FFF)
_MARK_ABOVE_OR_BELOW = 200
"""Combining classes from here on place a mark above or below its letter: accents."""


class WordTable(NamedTuple):
    """What every code point is when texts are compared."""

    codes: np.ndarray
    """int32 [0x110000]: class << 24 | code point after folding; of class EXPANDED, its number."""
    starts: np.ndarray
    """int32 [expansions + 1]: where each expansion begins in `pieces`."""
    pieces: np.ndarray
    """int32: class << 24 | code point, of characters that become several."""


def folded(character: str) -> str:
    """A character without what makes no difference: case, accents, compatibility forms."""
    composed = unicodedata.normalize("NFKC", character).casefold()
    composed = unicodedata.normalize("NFKC", composed)
    return "".join(_without_accents(one) for one in composed)


def class_of(character: str) -> int:
    """SEPARATOR, WORD (part of one) or ALONE (a word by itself), of a folded character."""
    code, category = ord(character), unicodedata.category(character)
    if category[0] in "PSZC":
        return SEPARATOR
    if any(first <= code <= last for first, last in _ALONE_RANGES):
        return ALONE
    return WORD


@functools.cache
def word_table() -> WordTable:
    """The table of this Python's Unicode version; made once in a process, in some 0.2 s."""
    codes = np.full(_CODES, SEPARATOR << CLASS_SHIFT, dtype=np.int32)
    for first, last in _PLAIN_RANGES:
        own = np.arange(first, last + 1, dtype=np.int32)
        assigned = [unicodedata.category(chr(code)) != "Cn" for code in range(first, last + 1)]
        kind = class_of(chr(first)) << CLASS_SHIFT
        codes[first : last + 1] = np.where(assigned, kind | own, SEPARATOR << CLASS_SHIFT)
    starts, pieces = [0], list[int]()
    for code in _unplain():
        found = _entries(chr(code))
        if len(found) == 1:
            codes[code] = found[0]
        elif not found:
            codes[code] = IGNORED << CLASS_SHIFT
        else:
            codes[code] = EXPANDED << CLASS_SHIFT | (len(starts) - 1)
            pieces += found
            starts.append(len(pieces))
    return WordTable(codes, np.array(starts, np.int32), np.array(pieces, np.int32))


def text_buffers(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """The texts of a batch as they lie in memory, without a copy if they are large strings.

    Returns:
        Offsets, int64 [rows + 1], into the UTF-8 bytes, uint8.
    """
    texts = batch.column("text")
    if texts.type != pa.large_string():  # as other programs write a column of texts
        texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    count, first = len(texts), texts.offset
    if count == 0 or offsets is None:
        offsets, first = bytes(8 * (count + 1)), 0
    found = np.frombuffer(offsets, np.int64)[first : first + count + 1]
    content = np.frombuffer(data or b"", np.uint8)
    # Some of Arrow's memory may be written and some may not: one compilation shall do for both.
    found.flags.writeable = content.flags.writeable = False
    return found, content


def _unplain() -> list[int]:
    """Code points that are looked at one by one."""
    plain = np.zeros(_CODES, bool)
    for first, last in _PLAIN_RANGES:
        plain[first : last + 1] = True
    plain[_LAST_ASSIGNED_PLANE + 1 :] = True
    plain[_TAGS[0] : _TAGS[1] + 1] = False
    plain[0xD800:0xF900] = True  # surrogates and private use: no part of a word
    return np.flatnonzero(~plain).tolist()


def _entries(character: str) -> list[int]:
    pieces = folded(character)
    found = [class_of(piece) << CLASS_SHIFT | ord(piece) for piece in pieces]
    kinds = {entry >> CLASS_SHIFT for entry in found}
    return [SEPARATOR << CLASS_SHIFT] if kinds == {SEPARATOR} else found


def _without_accents(character: str) -> str:
    """The base letter of an accented one; nothing for a mark or a character that is not seen."""
    parts = unicodedata.normalize("NFD", character)
    if len(parts) > 1 and all(map(_is_accent, parts[1:])):
        character = parts[0]
    return "" if _is_accent(character) or _is_unseen(character) else character


def _is_accent(character: str) -> bool:
    return unicodedata.combining(character) >= _MARK_ABOVE_OR_BELOW


def _is_unseen(character: str) -> bool:
    """Format characters and variation selectors."""
    code = ord(character)
    selector = 0xFE00 <= code <= 0xFE0F or 0xE0000 <= code <= 0xE0FFF or code == 0x034F
    return selector or unicodedata.category(character) == "Cf"
