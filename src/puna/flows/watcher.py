"""Who is told how a tuning run goes."""

from __future__ import annotations

from typing import Protocol

from puna.train import Reporter


class Watcher(Reporter, Protocol):
    """The loop's reporter, and more."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Work of a stage other than training."""

    def lines(self, title: str, lines: list[str]) -> None:
        """Something to read."""
