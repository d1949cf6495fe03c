"""The step `clean`: text as it was meant, with code and mathematics left as they are.

Mojibake is repaired, characters are composed (NFC, never NFKC: `x²` stays `x²`), and what nobody
sees goes: control and zero-width characters, blanks at line ends, long runs of blank lines.
Indentation, ligatures, full-width forms and quotation marks stay.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from puna.corpus.schema import alive, with_drops, with_errors, with_texts
from puna.corpus.step import Apply
from puna.errors import InputError, require

Fix = Callable[[str], str]

# Scripts whose letters join, or that have no spaces: there, zero-width characters mean something.
_JOINING = (
    "\u0600-\u08ff\u0900-\u0dff\u0f00-\u0fff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefe"
)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u0f00-\u0fff"
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff]")
_EMOJI = "\u00a9\u00ae\u2190-\u2bff\u3030\u303d\u3297\u3299\ufe0f\U0001f000-\U0001faff"

_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u180e\u200b-\u200d\u2060-\u2064\u202a-\u202e"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff]"
)
# What stands on both sides of a zero-width character that means something: two characters.
_MEANT = MappingProxyType(
    {
        "\u200b": re.compile(f"[{_UNSPACED}]{{2}}"),  # space, for breaking lines
        "\u200c": re.compile(f"[{_JOINING}].?", re.DOTALL),  # non-joiner
        "\u200d": re.compile(  # joiner
            f"[{_JOINING}].?|[{_EMOJI}\U000e007f][{_EMOJI}]", re.DOTALL
        ),
    }
)
_MARKS = re.compile("[\u200e\u200f\u061c]")  # direction, where a line runs both ways
_TAG = re.compile("[\U000e0000-\U000e007f]")
_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f)|[\U000e0000-\U000e007f]")
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_ODD_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
_BLANKS = " \t\u3000"
_ROUNDS = 8  # far more than any text was seen to take; each but the last shortens it

_DIRTY = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x{a0}\x{ad}\x{61c}\x{1680}\x{180e}\x{2000}-\x{200f}\x{2028}-\x{202f}"
    r"\x{205f}-\x{206f}\x{feff}\x{fff9}-\x{fffb}\x{fdd0}-\x{fdef}\x{fffe}\x{ffff}"
    r"\x{e0000}-\x{e007f}]"
    r"|[ \t\x{3000}]\n|^\n|[\n \t\x{3000}]$"
)  # for RE2; with runs of line ends, all that cleaning changes but for mojibake and composition
_NOT_ASCII = r"[^\x00-\x7f]"

# The parts of a verbose expression: an escape, a class, a comment, white space, anything else.
_VERBOSE = re.compile(r"\\.|\[(?:\\.|[^\]\\])+\]|#[^\n]*|\s+|.", re.DOTALL)
_IN_RE2 = MappingProxyType(  # whose own classes are of ASCII only
    {
        r"\w": r"[\pL\pM\pN_]",
        r"\s": r"[\s\x{b}\x{1c}-\x{1f}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}"
        r"\x{205f}\x{3000}]",
    }
)


@dataclass(frozen=True)
class CleanConfig:
    """Repair text and take out what nobody sees; cleaning twice is cleaning once."""

    VERSION: ClassVar[int] = 1

    step: Literal["clean"] = "clean"
    """As recipes call it."""
    repair: bool = True
    """Whether mojibake is repaired, in the lines where ftfy's own check sees some."""
    compose: bool = True
    """Whether characters are composed (NFC)."""
    plain_spaces: bool = True
    """Whether no-break and typographic spaces become a plain one."""
    max_blank_lines: int = 2
    """Blank lines that may follow one another."""

    def __post_init__(self) -> None:
        if self.max_blank_lines < 0:
            raise InputError(f"max_blank_lines is {self.max_blank_lines}; it cannot be below 0")

    def open(self) -> Apply:
        """What does the work; texts of which nothing is left are dropped as `clean.empty`.

        Raises:
            MissingPackageError: ftfy is not installed, and `repair` is asked for.
        """
        cleaner = open_cleaner(self)
        return lambda batch: _apply(cleaner, batch)


@dataclass(frozen=True)
class Cleaner:
    """A configuration that has been opened."""

    once: Callable[[str, bool], str]
    """A text cleaned one round further; the second argument: whether to look for mojibake."""
    dirty: str
    """For RE2: what there is to clean but for mojibake and what is not composed."""
    bad: str | None
    """For RE2: what ftfy finds bad; None where nothing is to be repaired."""
    compose: bool
    """Whether texts have to be composed."""

    def clean(self, text: str) -> str:
        """The text cleaned, until a further round changes nothing."""
        for _ in range(_ROUNDS):
            cleaner = self.once(text, self.bad is not None)
            if cleaner == text:
                break
            text = cleaner
        return text

    def doubtful(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Of Arrow texts, those that one round may change, and those with mojibake: bool [rows]."""
        bad = _matches(texts, self.bad) if self.bad else np.zeros(len(texts), dtype=bool)
        doubtful = bad | _matches(texts, self.dirty)
        if self.compose:
            for row in np.flatnonzero(~doubtful & _matches(texts, _NOT_ASCII)):
                doubtful[row] = not unicodedata.is_normalized("NFC", texts[row].as_py())
        return doubtful, bad


def open_cleaner(config: CleanConfig) -> Cleaner:
    """What cleans single texts.

    Raises:
        MissingPackageError: ftfy is not installed, and `repair` is asked for.
    """
    repair, bad = _mojibake() if config.repair else (None, None)
    too_many = config.max_blank_lines + 2
    blank_lines = re.compile(rf"\n{{{too_many},}}")

    def once(text: str, look_for_mojibake: bool) -> str:
        if repair is not None and look_for_mojibake:
            text = repair(text)
        text = _without_unseen(_LINE_ENDS.sub("\n", text))
        if config.plain_spaces:
            text = _ODD_SPACES.sub(" ", text)
        if config.compose:
            text = _composed(text)
        # Not by an expression: one for blanks at line ends takes quadratic time on a run of blanks.
        text = "\n".join(line.rstrip(_BLANKS) for line in text.split("\n"))
        return blank_lines.sub("\n" * (too_many - 1), text).strip("\n")

    return Cleaner(once, rf"{_DIRTY}|\n{{{too_many}}}", bad, config.compose)


def _composed(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def _without_unseen(text: str) -> str:
    text = _UNSEEN.sub(_if_meant, text)
    if text.isascii():
        return text
    if _TAG.search(text):
        text = _TAGS.sub(lambda match: match.group(1) or "", text)
    return text if _RIGHT_TO_LEFT.search(text) else _MARKS.sub("", text)


def _if_meant(match: re.Match[str]) -> str:
    """A character that nobody sees, where it means something: by what stands beside it."""
    meant = _MEANT.get(match.group())
    around = match.string[max(0, match.start() - 1) : match.start()]
    if meant is None or not around:
        return ""
    around += match.string[match.end() : match.end() + 1]
    return match.group() if meant.fullmatch(around) else ""


def _mojibake() -> tuple[Fix, str]:
    """What repairs the lines of a text that ftfy finds bad, and an expression for such texts."""
    ftfy = require("ftfy", extra="corpus", purpose="repairing text")
    badness = require("ftfy.badness", extra="corpus", purpose="repairing text")
    is_bad: Callable[[str], bool] = badness.is_bad

    def repair(text: str) -> str:
        if text.isascii() or not is_bad(text):
            return text
        lines = text.split("\n")
        return "\n".join(ftfy.fix_encoding(line) if is_bad(line) else line for line in lines)

    return repair, for_re2(badness.BADNESS_RE.pattern)


def for_re2(pattern: str) -> str:
    r"""A verbose expression of Python as one for RE2, which is some hundred times faster here.

    Where RE2 does not take it, that of all texts which are not ASCII: slow, and as right.

    Args:
        pattern: Without look-arounds, with no character class but `\w` and `\s`.
    """
    parts = (_IN_RE2.get(part, part) for part in _VERBOSE.findall(pattern))
    written = "".join(part for part in parts if not part.isspace() and not part.startswith("#"))
    try:
        pc.match_substring_regex(pa.array([""]), pattern=written)
    except pa.ArrowInvalid:
        return _NOT_ASCII
    return written


def _apply(cleaner: Cleaner, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Clean all rows in rounds, until none changes."""
    living = alive(batch)
    changed: dict[int, str] = {}
    errors: dict[int, str] = {}
    rows, texts = np.arange(batch.num_rows), batch.column("text")
    for _ in range(_ROUNDS):
        doubtful, bad = cleaner.doubtful(texts)
        further: dict[int, str] = {}
        for place in map(int, np.flatnonzero(doubtful & living[rows])):
            row, text = int(rows[place]), texts[place].as_py()
            try:
                new = cleaner.once(text, bool(bad[place]))
            except Exception as error:  # one row that a library fails on must not fail the others
                errors[row] = f"clean: {type(error).__name__}: {error}"
                continue
            if new != text:
                further[row] = new
        changed |= further
        if not further:
            break
        rows = np.array(list(further), dtype=np.int64)
        texts = pa.array(list(further.values()), type=pa.large_string())
    if changed:
        new_texts = batch.column("text").to_pylist()
        for row, new in changed.items():
            new_texts[row] = new
        batch = with_texts(batch, new_texts, changed)
    return with_errors(with_drops(batch, _empty_rows(batch, living)), errors)


def _empty_rows(batch: pa.RecordBatch, living: np.ndarray) -> dict[int, str]:
    empty = np.asarray(pc.equal(pc.binary_length(batch.column("text")), 0))
    return {int(row): "clean.empty" for row in np.flatnonzero(living & empty)}


def _matches(texts: pa.Array, pattern: str) -> np.ndarray:
    return np.asarray(pc.match_substring_regex(texts, pattern=pattern))
