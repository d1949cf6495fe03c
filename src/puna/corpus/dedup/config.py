"""What counts as a duplicate, and which of several documents stays.

These steps look at all documents at once, so they have no `open`: a unit of documents is looked at
first (`sign_unit` and its like, on any worker), the whole is decided once (`find_...`), and then
every batch is mapped by what was decided (`dropping`, `removing_lines`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from puna.errors import InputError

Keep = Literal["longest", "oldest", "best"]
MEMORY_BYTES = 256 << 20


@dataclass(frozen=True)
class ExactConfig:
    """Documents that say the same, each but one of which is dropped."""

    step: Literal["exact_duplicate"] = "exact_duplicate"
    """As recipes call it, and the reason of its drops."""
    form: Literal["normalised", "text", "words"] = "normalised"
    """What must agree: the text but for case, compatibility forms and kinds of space; the text
    byte by byte; or its words alone, without punctuation and accents."""
    keep: Keep = "oldest"
    """Which one stays; `best` is that with the highest `score`."""
    score: str | None = None
    """The figure of `stats` that `best` goes by."""
    memory_bytes: int = MEMORY_BYTES
    """What sorting may take, about; beside it there are 8 bytes for every document."""

    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_keep(self.keep, self.score)
        _check_least("memory_bytes", self.memory_bytes, 1)


@dataclass(frozen=True)
class NearConfig:
    """Documents that share most of their word n-grams: MinHash LSH with a check of each pair."""

    step: Literal["near_duplicate"] = "near_duplicate"
    """As recipes call it, and the reason of its drops."""
    ngram: int = 5
    """Words of a shingle; where a script has no spaces, a character is a word."""
    bands: int = 14
    """Groups of hashes; documents that agree in one of them are compared."""
    rows: int = 8
    """Hashes of a band."""
    threshold: float = 0.7
    """Least Jaccard similarity of the sets of shingles, from 0 to 1."""
    sketch: int = 1024
    """Shingles kept of a document for the comparison, 4 bytes each: documents of no more are
    compared exactly, longer ones with a standard error of sqrt(J (1 - J) / sketch)."""
    keep: Keep = "longest"
    """Which one of a cluster stays; `best` is that with the highest `score`."""
    score: str | None = None
    """The figure of `stats` that `best` goes by."""
    seed: int = 1
    """Of the permutations."""
    memory_bytes: int = MEMORY_BYTES
    """What sorting and comparing may take, about; beside it there are 8 bytes for every
    document."""

    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_keep(self.keep, self.score)
        for name in ("ngram", "bands", "rows", "memory_bytes"):
            _check_least(name, getattr(self, name), 1)
        _check_least("sketch", self.sketch, 16)
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold: expected 0 to 1, found {self.threshold}")


@dataclass(frozen=True)
class LinesConfig:
    """Lines that many documents of a site share: menus, notices, footers."""

    step: Literal["repeated_line"] = "repeated_line"
    """As recipes call it, and the reason why a document is dropped of which nothing is left."""
    unit: Literal["line", "paragraph"] = "line"
    """What is compared and removed as a whole; paragraphs are parted by blank lines."""
    documents: int = 5
    """In how many documents of a site a line may stand; in more, it is removed from all."""
    site: Literal["host", "source"] = "host"
    """What a site is: the host of a document's address, documents without one being left as they
    are; or all of a source, which suits no source of code."""
    memory_bytes: int = MEMORY_BYTES
    """What sorting may take, about."""

    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("documents", "memory_bytes"):
            _check_least(name, getattr(self, name), 1)


def _check_keep(keep: Keep, score: str | None) -> None:
    if (keep == "best") != (score is not None):
        raise InputError(
            f"keep: {keep} and score: {score} do not go together",
            fix="`keep: best` needs the name of a figure as `score`, and nothing else takes one",
        )


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name}: expected at least {least}, found {value}")
