"""Who is told how a long piece of work goes."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """What any work tells; imports no torch, so that work without a model starts at once."""

    def note(self, text: str) -> None:
        """Something that a user should know, in a sentence."""

    def progress(self, what: str, done: int, total: int) -> None:
        """So much of a stage is done."""

    def lines(self, title: str, lines: list[str]) -> None:
        """Something to read."""
