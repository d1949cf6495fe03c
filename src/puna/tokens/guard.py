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


def free_marks(texts: Iterable[str]) -> tuple[str, str]:
    """Two characters that occur in none of the texts: one to open, one to close."""
    used = set().union(*texts)
    free = (chr(code) for code in _MARKS if chr(code) not in used)
    return next(free), next(free)


def marked(value: Any, pattern: re.Pattern[str], marks: tuple[str, str]) -> Any:
    """The messages with marks around every special token that they spell out."""
    if isinstance(value, str):
        return pattern.sub(lambda match: match[0].join(marks), value)
    if isinstance(value, Mapping):
        return {key: marked(item, pattern, marks) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [marked(item, pattern, marks) for item in value]
    return value


def segments(
    rendered: str, pattern: re.Pattern[str], marks: tuple[str, str]
) -> Iterator[tuple[str, bool]]:
    """A rendered conversation in parts: text, and whether it is a special token.

    A token with but one mark left (a template may cut texts) is still not the template's own.
    """
    start, end = marks
    special = f"(?:{pattern.pattern})"
    own = re.compile(f"{start}{special}{end}|(?<!{start})({special})(?!{end})")
    position = 0
    for match in own.finditer(rendered):
        if match[1] is None:
            continue
        yield rendered[position : match.start()].replace(start, "").replace(end, ""), False
        yield match[1], True
        position = match.end()
    yield rendered[position:].replace(start, "").replace(end, ""), False
