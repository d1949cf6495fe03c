"""Taking turns, medians, ratios; memory of a fresh process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison."""

    what: str
    ours: float
    peer: float | None
    unit: str
    better: str  # "less" or "more"
    target: str
    met: bool | None  # None: there is no target
    spread: str  # smallest and largest ratio over the turns
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is."""
        if self.peer is None:
            return None
        return self.peer / self.ours if self.better == "less" else self.ours / self.peer


def take_turns(
    ours: Callable[[], object], peer: Callable[[], object], *, turns: int
) -> tuple[list[float], list[float]]:
    """Seconds of each turn, after one turn each to warm up; who goes first alternates."""
    ours()
    peer()
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        for side in order:
            began = time.perf_counter()
            (ours, peer)[side]()
            times[side].append(time.perf_counter() - began)
    return times


def compare(
    what: str,
    times: tuple[list[float], list[float]],
    *,
    work: float | None = None,
    unit: str = "s",
    target: float | None = None,
    note: str = "",
) -> Row:
    """A row from the seconds of both sides.

    Args:
        what: The row's name.
        times: Seconds per turn, ours and the peer's.
        work: Units of work per turn; the row then shows a rate, more being better.
        unit: Of what is shown.
        target: The ratio that the issue asks for.
        note: Shown at the end of the row.
    """
    ours, peer = (statistics.median(side) for side in times)
    ratios = sorted(p / o for o, p in zip(*times, strict=True))
    ratio = peer / ours
    shown = (ours, peer) if work is None else (work / ours, work / peer)
    return Row(
        what=what,
        ours=shown[0],
        peer=shown[1],
        unit=unit,
        better="less" if work is None else "more",
        target="" if target is None else f"at least {target:g}x",
        met=None if target is None else ratio >= target,
        spread=f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
        note=note,
    )


def in_fresh_process(code: str, *arguments: str) -> str:
    """Run Python code in a process of its own; returns the last line that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip().splitlines()[-1]
