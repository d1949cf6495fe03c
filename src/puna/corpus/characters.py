r"""What each character of Unicode is to the statistics of a text: a table for native code.

A word is what the table makes of a text. Splitter `puna`: runs of letters, marks, numbers and
underscores, with an apostrophe between letters and a point or comma between digits (as UAX #29
has it); each Han or Kana character is a word of its own, with the marks that follow it; so is a
run of one and the same punctuation mark or symbol. Format characters lengthen a word and begin
none; control characters, private use and what is unassigned belong to no word. Scripts written
without spaces other than Han and Kana (Thai, Lao, Khmer, Myanmar) give one word for each run.

Splitter `datatrove`: the words of the regular expression `\w+|[^\w\s]`.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

Splitter = Literal["puna", "datatrove"]

SPACE = 1 << 0  # str.isspace
WORD = 1 << 1  # runs of these are words
ALONE = 1 << 2  # a word by itself
RUN = 1 << 3  # a word together with the same character after it
EXTEND = 1 << 4  # lengthens a word
MARK = 1 << 5  # belongs to the character before it
MID_LETTER = 1 << 6  # joins letters
MID_NUMBER = 1 << 7  # joins digits
LETTER = 1 << 8  # str.isalpha
DIGIT = 1 << 9  # str.isdecimal
PUNCTUATION = 1 << 10  # a word of nothing but these counts as no word
TERMINAL = 1 << 11  # ends a sentence
CLOSING = 1 << 12  # may stand between the end of a sentence and the space after it
BREAK = 1 << 13  # str.splitlines breaks here
BULLET = 1 << 14  # begins an item of a list
LINE_END = 1 << 15  # C4 keeps lines that end with it
WIDE = 1 << 16  # as wide as two letters

BLOCK = 256
_CODES = 0x110000
_ASSIGNED = (range(0x40000), range(0xE0000, 0xE1000))
_UNASSIGNED = 0x3FFFF  # what every other code point is like: not assigned, or for private use

_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_ALONE = (
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3031, 0x3035),  # Kana repeat marks
    (0x3038, 0x303C),  # Hangzhou numerals, iteration marks
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han
    (0xFF66, 0xFF9F),  # halfwidth Katakana
    (0x1AFF0, 0x1B16F),  # Kana
    (0x20000, 0x3FFFF),  # Han
)
# Marks that end sentences, in all scripts, as datatrove and FineWeb have them (they are those with
# the Unicode property Sentence_Terminal, and a few more).
_TERMINAL = """
21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E
1735-1736 17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E
1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7
A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F
FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6
111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7
11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8
11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F 1DA88
"""
# What datatrove takes for punctuation when it counts words, beside those above.
_DATATROVE_PUNCTUATION = """
0-8 B-1F 21-2F 3A-40 5B-60 7B-9F AB B4 BB 2013-2014 2019 201C-201E 2026 2236 2501 25BA
3001-3002 3008-300D 3010-3011 FF01 FF05 FF08-FF09 FF0C FF0E FF11 FF1A-FF1B FF1F FF5E
"""


class CharacterTable(NamedTuple):
    """The bits of every code point `c`: `classes[starts[c // 256] + c % 256]`."""

    starts: np.ndarray
    """int32 [0x1100]"""
    classes: np.ndarray
    """uint32 [different blocks * 256]"""

    def of(self, text: str) -> list[int]:
        """The bits of each character of a text."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        found: list[int] = self.classes[self.starts[codes // BLOCK] + codes % BLOCK].tolist()
        return found


@functools.cache
def character_table(splitter: Splitter) -> CharacterTable:
    """The table of this Python's Unicode version; made once in a process, in some 0.15 s."""
    codes = np.concatenate([np.arange(part.start, part.stop) for part in _ASSIGNED])
    of_codes = _puna(codes) if splitter == "puna" else _datatrove(codes)
    bits = np.full(_CODES, of_codes[codes == _UNASSIGNED], dtype=np.uint32)
    bits[codes] = of_codes
    places: dict[bytes, int] = {}  # of the blocks that differ
    which = [places.setdefault(block.tobytes(), len(places)) for block in bits.reshape(-1, BLOCK)]
    classes = np.frombuffer(b"".join(places), dtype=np.uint32)
    return CharacterTable(np.array(which, dtype=np.int32) * BLOCK, classes)


def _common(codes: np.ndarray, letters: list[str], categories: np.ndarray) -> np.ndarray:
    """The bits that both splitters give."""
    closing = np.isin(categories, ["Pe", "Pf"]) | _among(codes, "\"'")
    bits: np.ndarray = (
        SPACE * _each(str.isspace, letters)
        | LETTER * _each(str.isalpha, letters)
        | DIGIT * _each(str.isdecimal, letters)
        | TERMINAL * _within(codes, _ranges(_TERMINAL))
        | CLOSING * closing
        | BREAK * _among(codes, _BREAKS)
    )
    return bits


def _datatrove(codes: np.ndarray) -> np.ndarray:
    letters = list(map(chr, codes.tolist()))
    bits = _common(codes, letters, _categories(letters))
    is_word = _each(str.isalnum, letters) | (codes == ord("_"))
    is_space = (bits & SPACE) != 0
    punctuation = _within(codes, _ranges(_TERMINAL) + _ranges(_DATATROVE_PUNCTUATION))
    bits |= (
        WORD * is_word
        | ALONE * ~(is_word | is_space)
        | PUNCTUATION * punctuation
        | LINE_END * _among(codes, ".?!\"'")
        | BULLET * _among(codes, "•-")
    )
    return bits


def _puna(codes: np.ndarray) -> np.ndarray:
    letters = list(map(chr, codes.tolist()))
    categories = _categories(letters)
    bits = _common(codes, letters, categories)
    major = categories.astype("<U1")
    counted = np.isin(major, ["L", "N"])
    alone = _within(codes, _ALONE) & counted
    word = (counted & ~alone) | (major == "M") | (categories == "Pc")
    terminal = (bits & TERMINAL) != 0
    bits |= (
        ALONE * alone
        | WORD * word
        | MARK * (major == "M")
        | RUN * (np.isin(major, ["P", "S"]) & ~word)
        | EXTEND * ((categories == "Cf") & ~_among(codes, "\u200b"))
        | PUNCTUATION * np.isin(major, ["P", "S", "C", "Z"])
        | WIDE * (alone | _within(codes, ((0xFF01, 0xFF60),)))
        | LINE_END * (terminal | _among(codes, "\"'”’」』»"))
        | MID_LETTER * _among(codes, "'’")
        | MID_NUMBER * _among(codes, ".,")
        | BULLET * _among(codes, "•‣◦●○▪■·*-")
    )
    return bits


def _categories(letters: list[str]) -> np.ndarray:
    return np.array(list(map(unicodedata.category, letters)))


def _each(is_it: Callable[[str], bool], letters: list[str]) -> np.ndarray:
    return np.fromiter(map(is_it, letters), dtype=bool, count=len(letters))


def _among(codes: np.ndarray, letters: str) -> np.ndarray:
    return np.isin(codes, [ord(letter) for letter in letters])


def _within(codes: np.ndarray, ranges: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Which codes lie in one of some ranges; `codes` are in order."""
    found = np.zeros(codes.shape, dtype=bool)
    for first, last in ranges:
        found[np.searchsorted(codes, first) : np.searchsorted(codes, last + 1)] = True
    return found


def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    """Ranges of code points, read from hexadecimal numbers."""
    parts = [part.partition("-") for part in text.split()]
    return tuple((int(first, 16), int(last or first, 16)) for first, _, last in parts)
