"""What the shapes of data have in common: an item, its turns, and where its columns are."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Shape = Literal["prompt", "alpaca", "sharegpt", "messages", "text", "parallel"]
SHAPES: tuple[Shape, ...] = ("prompt", "alpaca", "sharegpt", "messages", "text", "parallel")
Message = Mapping[str, str]
Messages = tuple[Message, ...]

_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Item:
    """One example: a conversation to learn the answers of, or a text."""

    id: str
    """32 hexadecimal digits, a hash of the locator."""
    root_id: str | None
    """What this row was derived from, where the data say it; splits never part such rows."""
    locator: str
    """Where the row stands: file and line."""
    shape: Shape
    """The shape that it was read in."""
    fields: Mapping[str, str]
    """The text of the row by column, under the shape's names too."""
    messages: Messages
    """Turns {"role", "content"} that end with an answer; empty for a text."""
    text: str | None
    """The text of a row of shape `text`; None for the others."""
    source: str
    """The side that is asked, normalised: rows that agree in it belong into one split."""


@dataclass(frozen=True)
class Columns:
    """Columns whose names are not the shape's own; `a.b` reaches into a mapping, `a.0` a list."""

    source: str | None = None
    """Column of the text that is translated (with `target`: the shape is parallel)."""
    target: str | None = None
    """Column of its translation."""
    prompt: str | None = None
    """Column of what is asked (with `completion`: the shape is prompt)."""
    completion: str | None = None
    """Column of the answer."""
    text: str | None = None
    """Column of a text to be learnt whole (the shape is text)."""
    messages: str | None = None
    """Column of the turns (the shape is messages or sharegpt, by what the turns look like)."""

    def named(self) -> dict[str, str]:
        """The columns that are given, by what they are."""
        return {name: column for name, column in vars(self).items() if column is not None}


def lookup(values: Mapping[str, Any], column: str) -> Any:
    """The value of a column, `a.b` of a mapping in one; None where there is none."""
    if column in values:
        return values[column]
    value: Any = values
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list | tuple) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def normalised(text: str) -> str:
    """A text without what makes no difference: compatibility forms, case, kinds of space."""
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def item_id(locator: str) -> str:
    """The 32 hexadecimal digits that stand for a locator."""
    return hashlib.blake2b(locator.encode(), digest_size=16).hexdigest()
