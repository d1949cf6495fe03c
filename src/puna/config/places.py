"""Where each value of a configuration was written, so that an error can point at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Key = str | int
KeyPath = tuple[Key, ...]


@dataclass(frozen=True)
class Places:
    """The origin of every value: `file:line`, or the override that set it."""

    root: str
    """What is named where nothing nearer is known."""
    of: dict[KeyPath, str] = field(default_factory=dict)
    """By the keys from the root."""

    def find(self, path: KeyPath) -> str:
        """The origin of a value, or of the nearest one that holds it."""
        while path:
            if path in self.of:
                return self.of[path]
            path = path[:-1]
        return self.of.get((), self.root)


def dotted(path: KeyPath) -> str:
    """Keys as a person writes them: `train.optim.learning_rate`."""
    return ".".join(str(key) for key in path)


def short(value: Any) -> str:
    """A value for an error, not longer than a line has room."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
