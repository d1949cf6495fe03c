"""What a curating recipe says: sources, steps, duplicates, and how it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from puna.config import to_dict
from puna.corpus.read import ReadConfig
from puna.errors import InputError
from puna.flows.curate_steps import AnyStep, CurateSteps, DedupConfig
from puna.meter import MeterConfig

EXCERPT_CHARACTERS = 1000
# Keys that no bit of a result depends on.
UNHASHED = ("workers", "task_seconds", "meter", "title")


@dataclass(frozen=True)
class CurateRecipe:
    """From raw text to documents worth training on."""

    sources: dict[str, ReadConfig]
    """By their names, which documents keep."""
    steps: tuple[AnyStep, ...] = ()
    """In the order in which documents go through them."""
    dedup: DedupConfig = field(default_factory=DedupConfig)
    """What is done about duplicates, after all steps."""
    keep_dropped: Literal["text", "excerpt", "none"] = "excerpt"
    """What stays of a document that is dropped: its text, the first thousand characters, or its
    figures and the reason alone."""
    unit_bytes: int = 8 << 20
    """What is read as one unit, about; the unit is what is lost when a run is killed."""
    part_bytes: int = 128 << 20
    """Of text in a file of the corpus, about."""
    workers: int | None = None
    """Processes; null: one for each core."""
    task_seconds: float | None = None
    """A unit that takes longer is given up and told; null: no bound."""
    title: str = ""
    """Of the report."""
    meter: MeterConfig = field(default_factory=MeterConfig)
    """How energy and carbon are found."""

    def __post_init__(self) -> None:
        for name in ("unit_bytes", "part_bytes", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")
        self.unit_steps()

    def unit_steps(self) -> CurateSteps:
        """What a worker is told."""
        return CurateSteps(self.sources, self.steps, self.dedup)

    @property
    def excerpt(self) -> int | None:
        """Characters that are kept of a dropped document; None: all."""
        return {"text": None, "excerpt": EXCERPT_CHARACTERS, "none": 0}[self.keep_dropped]

    def hashed(self) -> dict[str, Any]:
        """The part of it that decides the bits of the result, as plain data."""
        return {key: value for key, value in to_dict(self).items() if key not in UNHASHED}
