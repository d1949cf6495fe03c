"""Keep what people write apart from what a chat template writes.

A rendered conversation is encoded with its special tokens, so a user could write `<|im_end|>` and
end the turn. Where a message spells out a special token, it is marked before rendering; the marks
tell afterwards which special tokens are the template's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_MARKS = range(0xFDD0, 0xFDF0)  # noncharacters, which Unicode keeps for such internal uses


def pattern_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """An expression that matches any of some tokens, the longest first."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def strings_in(value: Any) -> Iterator[str]:
    """Every text within messages, at any depth; keys of objects are not texts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings_in(item)


def free_mark(texts: Iterable[str]) -> str:
    """A character that occurs in none of the texts."""
    used = set().union(*texts)
    return next(chr(code) for code in _MARKS if chr(code) not in used)


def marked(value: Any, pattern: re.Pattern[str], mark: str) -> Any:
    """The messages with `mark` on both sides of every special token that they spell out."""
    if isinstance(value, str):
        return pattern.sub(lambda match: f"{mark}{match[0]}{mark}", value)
    if isinstance(value, Mapping):
        return {key: marked(item, pattern, mark) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [marked(item, pattern, mark) for item in value]
    return value


def segments(rendered: str, pattern: re.Pattern[str], mark: str) -> Iterator[tuple[str, bool]]:
    """A rendered conversation in parts: text, and whether it is a special token."""
    own = re.compile(f"(?<!{mark})({pattern.pattern})(?!{mark})")
    for index, part in enumerate(own.split(rendered)):
        if part:
            yield part.replace(mark, ""), index % 2 == 1
