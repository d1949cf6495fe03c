"""Fertility: how many tokens a vocabulary takes for a word and for a byte, by language.

Source: Acs 2019, Exploring BERT's vocabulary (the name); Rust et al. 2021 (arXiv 2012.15613).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from puna.artifact import format_bytes
from puna.errors import InputError
from puna.tokens.scripts import UNSPACED

UNSTATED = "unstated"
"""The language of a text that comes without one."""

_TOTAL = "all"
_UNSPACED = re.compile(f"[{UNSPACED}]")
_FULL_WIDTH = "\u3000-\u3004\u3008-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
_APART = re.compile(f"[{UNSPACED}{_FULL_WIDTH}]")


@dataclass(frozen=True)
class Fertility:
    """Counts of the texts of one language, before special tokens."""

    language: str
    documents: int
    bytes: int  # UTF-8
    words: int  # see `count_words`
    tokens: int

    def __post_init__(self) -> None:
        for name in ("documents", "bytes", "words", "tokens"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise InputError(f"{name} must be a whole number from 0, not {value!r}")

    @property
    def per_word(self) -> float:
        """Tokens per word; 0 where there is no word."""
        return self.tokens / self.words if self.words else 0.0

    @property
    def per_byte(self) -> float:
        """Tokens per byte of UTF-8; 0 where there is none."""
        return self.tokens / self.bytes if self.bytes else 0.0

    def plus(self, other: Fertility) -> Fertility:
        """Both together, under this one's language."""
        return Fertility(
            self.language,
            self.documents + other.documents,
            self.bytes + other.bytes,
            self.words + other.words,
            self.tokens + other.tokens,
        )


class FertilityCounter:
    """Adds up texts and their tokens by language."""

    def __init__(self, counts: Iterable[Fertility] = ()):
        self._counts: dict[str, Fertility] = {}
        for item in counts:
            self._add(item)

    @classmethod
    def from_dict(cls, value: Mapping[str, Mapping[str, Any]]) -> FertilityCounter:
        """The counter that `to_dict` gave.

        Raises:
            InputError: Something is missing, or is no count.
        """
        names = ("documents", "bytes", "words", "tokens")
        for language, counts in value.items():
            missing = [name for name in names if name not in counts]
            if missing:
                raise InputError(f"the fertility of {language!r} lacks {missing[0]!r}")
        return cls(
            Fertility(language, *(counts[name] for name in names))
            for language, counts in value.items()
        )

    def add(self, language: str | None, text: str, tokens: int) -> None:
        """Count one document.

        Args:
            language: Its language, by any name; None: unstated.
            text: Its text.
            tokens: How many tokens it became, without those that begin and end a text.
        """
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        self._add(Fertility(language or UNSTATED, 1, size, count_words(text), tokens))

    def merge(self, other: FertilityCounter) -> None:
        """Add what another counter has."""
        for item in other.counts:
            self._add(item)

    @property
    def counts(self) -> tuple[Fertility, ...]:
        """By language, the one with most bytes first."""
        found = self._counts.values()
        return tuple(sorted(found, key=lambda item: (-item.bytes, item.language)))

    @property
    def total(self) -> Fertility:
        """All languages together."""
        whole = Fertility(_TOTAL, 0, 0, 0, 0)
        for item in self._counts.values():
            whole = whole.plus(item)
        return whole

    def lines(self) -> list[str]:
        """A table for a terminal; one line of all together where there are several languages."""
        rows = [*self.counts]
        if len(rows) > 1:
            rows.append(self.total)
        head = ("language", "documents", "text", "tokens", "tokens/word", "tokens/byte")
        table = [head, *(_cells(item) for item in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return [
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in table
        ]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Counts and figures by language, for JSON."""
        found = {}
        for item in self.counts:
            counts = {key: value for key, value in asdict(item).items() if key != "language"}
            figures = {"tokens_per_word": item.per_word, "tokens_per_byte": item.per_byte}
            found[item.language] = counts | figures
        return found

    def _add(self, item: Fertility) -> None:
        known = self._counts.get(item.language)
        self._counts[item.language] = item if known is None else known.plus(item)


def count_words(text: str) -> int:
    """The words of a text: what stands between white space.

    In scripts that are written without spaces between words (Chinese, Japanese, Thai, Lao, Burmese,
    Khmer) every character is one, and the full-width punctuation between them is none; so fertility
    per word compares vocabularies on one language, and not languages with one another.
    """
    if text.isascii():
        return len(text.split())
    alone = len(_UNSPACED.findall(text))
    if not alone:
        return len(text.split())
    return alone + len(_APART.sub(" ", text).split())


def _cells(item: Fertility) -> tuple[str, ...]:
    return (
        item.language,
        f"{item.documents:,}",
        format_bytes(item.bytes),
        f"{item.tokens:,}",
        f"{item.per_word:.2f}",
        f"{item.per_byte:.3f}",
    )
