"""What is left after each step, counted by documents and bytes; sums of units are sums of these."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from puna.corpus.schema import alive

READ = "read"  # the step before all others


@dataclass
class Size:
    """Documents, and the bytes of their text in UTF-8."""

    documents: int = 0
    bytes: int = 0

    def add(self, other: Size) -> None:
        """Add up."""
        self.documents += other.documents
        self.bytes += other.bytes

    def to_dict(self) -> dict[str, int]:
        """Plain data."""
        return {"documents": self.documents, "bytes": self.bytes}


@dataclass
class Counts:
    """Of some units, or of all."""

    after: dict[str, Size] = field(default_factory=dict)
    """What is left, by step, in their order."""
    seconds: dict[str, float] = field(default_factory=dict)
    """That each step took, over all workers."""
    reasons: dict[str, Size] = field(default_factory=dict)
    """What was dropped."""
    languages: dict[str, Size] = field(default_factory=dict)
    """Of what is kept."""
    personal: dict[str, int] = field(default_factory=dict)
    """Personal data that was found, by kind."""

    def see(self, step: str, batch: pa.RecordBatch, seconds: float) -> None:
        """Count what a step has left of a batch."""
        _sized(self.after, step).add(size_of(batch, alive(batch)))
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds

    def see_end(self, batch: pa.RecordBatch) -> None:
        """Count why rows were dropped, and of what language those are that are left."""
        sizes = _byte_lengths(batch)
        left = alive(batch)
        drops, languages = batch.column("drop").to_pylist(), batch.column("language").to_pylist()
        errors = batch.column("error").to_pylist()
        for row, reason in enumerate(drops):
            one = Size(1, int(sizes[row]))
            if left[row]:
                _sized(self.languages, languages[row] or "unknown").add(one)
            elif errors[row] is None:
                _sized(self.reasons, reason).add(one)

    def see_personal(self, batch: pa.RecordBatch) -> None:
        """Count the personal data that a step has found."""
        stats = batch.column("stats")
        for number in range(stats.type.num_fields):
            name = stats.type.field(number).name
            if name.startswith("pii_"):
                found = np.nansum(np.asarray(stats.field(number).fill_null(0.0)))
                kind = name.removeprefix("pii_")
                self.personal[kind] = self.personal.get(kind, 0) + int(found)

    def add(self, other: Counts) -> None:
        """Add up."""
        for mine, theirs in (
            (self.after, other.after),
            (self.reasons, other.reasons),
            (self.languages, other.languages),
        ):
            for name, size in theirs.items():
                _sized(mine, name).add(size)
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for kind, count in other.personal.items():
            self.personal[kind] = self.personal.get(kind, 0) + count

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        sized = {
            name: {key: size.to_dict() for key, size in getattr(self, name).items()}
            for name in ("after", "reasons", "languages")
        }
        return {**sized, "seconds": dict(self.seconds), "personal": dict(self.personal)}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Counts:
        """From what `to_dict` gave."""
        sized = {
            name: {key: Size(**size) for key, size in told[name].items()}
            for name in ("after", "reasons", "languages")
        }
        return cls(**sized, seconds=dict(told["seconds"]), personal=dict(told["personal"]))


def timed(
    counts: Counts, name: str, apply: Callable[[pa.RecordBatch], pa.RecordBatch]
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A step that is counted."""

    def counted(batch: pa.RecordBatch) -> pa.RecordBatch:
        began = time.perf_counter()
        after = apply(batch)
        counts.see(name, after, time.perf_counter() - began)
        return after

    return counted


def size_of(batch: pa.RecordBatch, rows: np.ndarray) -> Size:
    """How much some rows of a batch are.

    Args:
        batch: The documents.
        rows: Which of them: bool [rows].
    """
    return Size(int(rows.sum()), int(_byte_lengths(batch)[rows].sum()))


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of several."""
    found = Counts()
    for one in counts:
        found.add(one)
    return found


def _byte_lengths(batch: pa.RecordBatch) -> np.ndarray:
    return np.asarray(pc.binary_length(batch.column("text")), dtype=np.int64)


def _sized(sizes: dict[str, Size], name: str) -> Size:
    return sizes.setdefault(name, Size())
