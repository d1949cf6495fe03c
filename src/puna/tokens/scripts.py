"""Kinds of characters, where a vocabulary is learnt: what may stand together in one piece.

Chinese, Japanese, Thai, Lao, Burmese and Khmer put no spaces between words, so that what stands
between two spaces is a clause or a page.
"""

from __future__ import annotations

import unicodedata
from enum import IntEnum

from puna.tokens.vocabulary import SPACE

UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u2e80-\u2fdf"  # radicals of Chinese characters
    "\u3005-\u3007"  # marks of iteration, the character for zero
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Hiragana, Katakana
    "\u3100-\u312f"  # Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Chinese characters
    "\U00020000-\U0003ffff"
)
"""The scripts that are written without spaces, as the inside of a regular expression's [...]."""

_RANGES = tuple(
    (UNSPACED[start], UNSPACED[start + 2]) for start in range(0, len(UNSPACED), 3)
)  # "a-b" again and again


class Kind(IntEnum):
    """What a character is, where pieces are concerned."""

    SPACE = 0  # U+2581, a space as SentencePiece writes it
    LETTER = 1  # a letter or a mark on one
    UNSPACED = 2  # anything of a script that is written without spaces
    DIGIT = 3
    BLANK = 4  # white space but for U+2581
    OTHER = 5  # punctuation, symbols


JOINED = frozenset(
    {
        (Kind.SPACE, Kind.SPACE),
        (Kind.SPACE, Kind.LETTER),
        (Kind.SPACE, Kind.OTHER),
        (Kind.LETTER, Kind.LETTER),
        (Kind.UNSPACED, Kind.UNSPACED),
        (Kind.BLANK, Kind.BLANK),
        (Kind.OTHER, Kind.OTHER),
    }
)
"""Kinds that may follow one another within a piece. Whether two characters may depends on nothing
but the two. So a vocabulary that was learnt within such words has no piece that reaches over their
edges, and text need not be cut at them to be encoded as it was learnt."""


def kind_of(char: str) -> Kind:
    """The kind of one character."""
    if char == SPACE:
        return Kind.SPACE
    if any(first <= char <= last for first, last in _RANGES):
        return Kind.UNSPACED
    if char.isspace():
        return Kind.BLANK
    match unicodedata.category(char)[0]:
        case "L" | "M":
            return Kind.LETTER
        case "N":
            return Kind.DIGIT
    return Kind.OTHER


def words_pattern(*, split_digits: bool) -> str:
    """An expression whose matches are the words of a text with U+2581 for spaces; see `JOINED`.

    Args:
        split_digits: Every digit is a word; otherwise as many as follow one another are.
    """
    digits = rf"[\p{{N}}&&[^{UNSPACED}]]" + ("" if split_digits else "+")
    return (
        rf"{SPACE}*[\p{{L}}\p{{M}}&&[^{UNSPACED}]]+"
        rf"|[{UNSPACED}]+"
        rf"|{SPACE}*[^\s\p{{L}}\p{{M}}\p{{N}}{SPACE}{UNSPACED}]+"
        rf"|{SPACE}+|{digits}|\s+"
    )
