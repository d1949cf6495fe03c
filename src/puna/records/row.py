"""A row as it was read, and the quarantine: what could not be used, where it was, and why."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SAMPLES = 20
_BAD_TEXT = re.compile("[\x00\ud800-\udfff]")
_FOREIGN_BYTE = range(0xDC80, 0xDD00)  # how Python's `surrogateescape` spells an undecodable byte


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    values: Mapping[str, Any]
    """By column name, as the format has them: text, numbers, lists, mappings or None."""
    locator: str
    """Where it stands: `file:line`, `file:line#number` or `file#number`; unique in a run."""


class Quarantine:
    """What was left out of a data set: every reason counted.

    Kept are the first twenty cases, and the first of each reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.samples: list[tuple[str, str]] = []

    def add(self, locator: str, reason: str, detail: str = "") -> None:
        """Count one case.

        Args:
            locator: Where it stands.
            reason: Why it was left out; one of few sentences, by which cases are counted.
            detail: What is particular to this case; kept in the sample only.
        """
        self.counts[reason] += 1
        if len(self.samples) < _SAMPLES or self.counts[reason] == 1:
            self.samples.append((locator, f"{reason}: {detail}" if detail else reason))

    @property
    def total(self) -> int:
        """How many cases there are."""
        return self.counts.total()

    def lines(self) -> list[str]:
        """For a person: each reason with its count, the most frequent first."""
        return [f"{count:,} x {reason}" for reason, count in self.counts.most_common()]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `total`, `counts` by reason, and `samples` of locator and reason."""
        return {
            "total": self.total,
            "counts": dict(self.counts.most_common()),
            "samples": [{"locator": where, "reason": why} for where, why in self.samples],
        }


def sample_rows(rows: Iterable[Row], count: int = 100) -> tuple[list[Row], Iterator[Row]]:
    """The first `count` rows, and an iterator over all of them (these included)."""
    rest = iter(rows)
    sample = list(itertools.islice(rest, count))
    return sample, itertools.chain(sample, rest)


def sound_rows(rows: Iterable[Row], quarantine: Quarantine) -> Iterator[Row]:
    """The rows whose text, at any depth, can be written as UTF-8 and holds no NUL."""
    for row in rows:
        fault = _fault(row.values)
        if fault is None:
            yield row
        else:
            quarantine.add(row.locator, *fault)


def kind_of(value: Any) -> str:
    """What a value is, in the words of those who write data and not of Python."""
    kinds: tuple[tuple[Any, str], ...] = (
        (bool, "true or false"),
        (int | float, "a number"),
        (str, "text"),
        (list | tuple, "a list"),
        (Mapping, "an object"),
    )
    named = (name for kind, name in kinds if isinstance(value, kind))
    return "nothing" if value is None else next(named, f"a {type(value).__name__}")


def _fault(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """The reason and the column of the first text that nothing further could hold."""
    for column, value in values.items():
        left: list[Any] = [column, value]
        while left:  # no recursion: a row may be nested as deeply as its parser allowed
            item = left.pop()
            if isinstance(item, str):
                match = _BAD_TEXT.search(item)
                if match is not None:
                    return _reason(match.group()), f"column {ascii(column)[:60]}"
            elif isinstance(item, Mapping):
                left.extend(itertools.chain(item.keys(), item.values()))
            elif isinstance(item, list | tuple):
                left.extend(item)
    return None


def _reason(character: str) -> str:
    if character == "\x00":
        return "holds a NUL character"
    if ord(character) in _FOREIGN_BYTE:
        return "holds bytes that are not UTF-8"
    return "holds half a surrogate pair"
