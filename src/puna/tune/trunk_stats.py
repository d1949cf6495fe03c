"""What the trunk cache did, in numbers for a manifest and a sentence for people."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from puna.artifact import format_bytes


@dataclass(frozen=True)
class TrunkStats:
    """What one cache did since it was opened. A sequence is counted each time it is read."""

    sequences: int
    """Distinct sequences of the run."""
    found: int
    """Of these, the ones that an earlier run had stored."""
    hits: int
    """Sequences read back from the disk."""
    live: int
    """Sequences computed for a batch, since they are not stored."""
    computed: int
    """Sequences computed to be stored, those of damaged chunks again included."""
    damaged: int
    """Stored chunks that were cut short, changed or gone, and did not come to be used."""
    evicted: int
    """Chunks of other runs that were removed to make room."""
    beyond: int
    """Distinct sequences that are not stored, for the budget or since the cache is off."""
    bytes_on_disk: int
    """Of the chunks that this run uses."""
    seconds_filling: float
    """Spent to compute and write what was missing."""
    seconds_saved_estimate: float
    """What the trunk would have taken for all that was read back, at the speed measured when it
    was stored, less the time of reading. The time of filling is not taken off."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    def sentence(self) -> str:
        """One line for people."""
        size = format_bytes(self.bytes_on_disk)
        parts = [f"trunk cache: {self.sequences} sequences, {size} on disk"]
        parts.append(
            f"{self.found} found, {self.computed} computed in {self.seconds_filling:.1f} s"
        )
        read = f"{self.hits} reads saved about {self.seconds_saved_estimate:.1f} s"
        if self.live:
            read += f", {self.live} could not be saved"
        parts.append(read)
        if self.beyond:
            parts.append(f"{self.beyond} not stored")
        if self.damaged:
            parts.append(f"{self.damaged} damaged or missing chunks replaced")
        if self.evicted:
            parts.append(f"{self.evicted} old chunks removed")
        return "; ".join(parts)


@dataclass
class Counts:
    """The running counts behind `TrunkStats`."""

    found: int = 0
    hits: int = 0
    hit_tokens: int = 0
    live: int = 0
    computed: int = 0
    damaged: int = 0
    evicted: int = 0
    beyond: int = 0
    seconds_filling: float = 0.0
    seconds_reading: float = 0.0

    def told(self, *, sequences: int, bytes_on_disk: int, seconds_per_token: float) -> TrunkStats:
        """The counts so far, with what is known only now."""
        return TrunkStats(
            sequences=sequences,
            found=self.found,
            hits=self.hits,
            live=self.live,
            computed=self.computed,
            damaged=self.damaged,
            evicted=self.evicted,
            beyond=self.beyond,
            bytes_on_disk=bytes_on_disk,
            seconds_filling=self.seconds_filling,
            seconds_saved_estimate=self.hit_tokens * seconds_per_token - self.seconds_reading,
        )
