"""The part of a curating recipe that decides what becomes of a document; plain data, no torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from puna.corpus.c4 import C4
from puna.corpus.clean import CleanConfig
from puna.corpus.decontaminate import DecontaminateConfig
from puna.corpus.dedup import ExactConfig, LinesConfig, NearConfig
from puna.corpus.extract import ExtractConfig
from puna.corpus.fineweb import FineWeb
from puna.corpus.gopher import GopherQuality, GopherRepetition
from puna.corpus.language import LanguageConfig
from puna.corpus.model_score import ScoreConfig
from puna.corpus.pii import PiiConfig
from puna.corpus.read import ReadConfig
from puna.corpus.statistics import Statistics
from puna.corpus.step import Apply
from puna.errors import InputError

AnyStep = (
    ExtractConfig
    | CleanConfig
    | LanguageConfig
    | Statistics
    | GopherRepetition
    | GopherQuality
    | C4
    | FineWeb
    | ScoreConfig
    | PiiConfig
    | DecontaminateConfig
)
_NAME = re.compile(r"\w[\w-]{0,63}")


@dataclass(frozen=True)
class DedupConfig:
    """What is there more than once; null in place of one: it is not looked for."""

    lines: LinesConfig | None = None
    """Lines that many documents of a site share are removed."""
    exact: ExactConfig | None = field(default_factory=ExactConfig)
    """One stays of documents that say the same."""
    near: NearConfig | None = field(default_factory=NearConfig)
    """One stays of documents that say nearly the same."""


@dataclass(frozen=True)
class CurateSteps:
    """Sources, the steps that their documents go through, and what is done about duplicates."""

    sources: dict[str, ReadConfig]
    """By their names, which documents keep."""
    steps: tuple[AnyStep, ...] = ()
    """In the order in which documents go through them."""
    dedup: DedupConfig = field(default_factory=DedupConfig)
    """What is done about duplicates, after all steps."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError(
                "there are no sources", fix="sources: {docs: {files: 'docs/**/*.html'}}"
            )
        for name in self.sources:
            if not _NAME.fullmatch(name):
                raise InputError(
                    f"the source {name!r} cannot be the name of a folder",
                    fix="letters, digits, _ and -, at most 64 of them",
                )

    def opened(self) -> list[tuple[str, Apply]]:
        """All steps, opened, by the names that they are counted by."""
        return [(name, step.open()) for name, step in named(self.steps)]


def named(steps: Sequence[AnyStep]) -> list[tuple[str, AnyStep]]:
    """Steps by their names; one that is there again is `statistics_2`, as it is after C4's rules.

    The name is what the step is counted and shown by; reasons have that of its kind.
    """
    seen: Counter[str] = Counter()
    found = []
    for step in steps:
        seen[step.step] += 1
        times = seen[step.step]
        found.append((step.step if times == 1 else f"{step.step}_{times}", step))
    return found
