"""The time that a run has taken, and what of its limit is left."""

from __future__ import annotations

import time

from puna.scale.world import World
from puna.train.ranks import gather


class Clock:
    """Read between steps; a reading is the same on every rank, so that all stop at once.

    Args:
        world: The ranks.
        limit: Seconds that the run may take; None: no limit.
        before: Seconds that work before the loop took in this process; they count.
    """

    def __init__(self, world: World, limit: float | None, before: float) -> None:
        self._world, self._limit = world, limit
        self._began = time.monotonic()
        self._earlier = 0.0
        self._read, self._read_before = 0.0, before
        self.before = before

    def go_on(self, seconds: float, before: float) -> None:
        """Add what earlier processes of the run took, in the loop and before it."""
        self._earlier += seconds
        self.before += before

    def now(self) -> float:
        """Seconds in the loop, over all processes, as this rank sees them."""
        return self._earlier + time.monotonic() - self._began

    def read(self) -> None:
        """Look at the first rank's clock; without a limit nobody needs to."""
        if self._limit is not None:
            self._read, self._read_before = gather(self._world, [self.now(), self.before])[0]

    @property
    def is_over(self) -> bool:
        """Whether the limit was reached at the last reading."""
        return self._limit is not None and self._read + self._read_before >= self._limit

    @property
    def share(self) -> float:
        """Of the time that the loop has, how much was over at the last reading: 0 to 1."""
        if self._limit is None:
            return 0.0
        own = self._limit - self._read_before
        return min(self._read / own, 1.0) if own > 0 else 1.0
