"""Keep what people write apart from what a chat template writes.

A rendered conversation is encoded with its special tokens, so a user could write `<|im_end|>` and
end the turn. Where a message spells out a special token, it is marked before rendering; the marks
tell afterwards which special tokens are the template's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from puna.errors import InputError

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
    """Two characters that occur in none of the texts: one to open, one to close.

    Raises:
        InputError: The texts hold all of those that there are.
    """
    used = set().union(*texts)
    free = [chr(code) for code in _MARKS if chr(code) not in used]
    if len(free) < 2:
        raise InputError(
            "a message spells out a special token and holds every character that could mark it",
            fix="take the noncharacters U+FDD0 to U+FDEF out of the message",
        )
    return free[0], free[1]


def marked(value: Any, pattern: re.Pattern[str], marks: tuple[str, str]) -> Any:
    """The messages with marks around every special token that they spell out."""
    if isinstance(value, str):
        return pattern.sub(lambda match: match[0].join(marks), value)
    if isinstance(value, Mapping):
        return {key: marked(item, pattern, marks) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [marked(item, pattern, marks) for item in value]
    return value


@dataclass(frozen=True)
class Guard:
    """Tells the template's own special tokens from those that some messages spell out.

    Attributes:
        special: Matches any special token.
        own: Matches the template's own in a rendered text, as group 1; and, as a whole, those
            that stand between marks.
        marks: What encloses a special token of a message; None where no message has one.
    """

    special: re.Pattern[str]
    own: re.Pattern[str]
    marks: tuple[str, str] | None

    @classmethod
    def of(cls, value: Any, special: re.Pattern[str]) -> Guard:
        """The guard for the texts within `value`: messages, tools."""
        texts = list(strings_in(value))
        if not any(map(special.search, texts)):
            return cls(special, re.compile(f"({special.pattern})"), None)
        start, end = free_marks(texts)
        either = f"(?:{special.pattern})"
        own = f"{start}{either}{end}|(?<!{start})({either})(?!{end})"
        # A token with but one mark left (a template may cut texts) is still not the template's.
        return cls(special, re.compile(own), (start, end))

    def mark(self, value: Any) -> Any:
        """Messages as the template is given them: with marks where there is need of them."""
        return value if self.marks is None else marked(value, self.special, self.marks)

    def spans(self, rendered: str) -> Iterator[tuple[int, int]]:
        """Where the template's own special tokens lie in a rendered text."""
        for match in self.own.finditer(rendered):
            if match[1] is not None:
                yield match.span()

    def ends_in_text(self, rendered: str) -> bool:
        """Whether it ends in something else than a special token of the template."""
        last = max((stop for _, stop in self.spans(rendered)), default=0)
        return last < len(rendered)

    def stretches(self, rendered: str, *, cut: bool) -> Iterator[tuple[int, str, bool]]:
        """A rendered text in stretches: where each begins, its text, whether it is only text.

        Special tokens are looked for in a stretch unless it is only text; the marks are gone.

        Args:
            rendered: Text with marks.
            cut: What comes before the first special token is a stretch of its own.
        """
        done = start = 0
        for stop, following in [*self.spans(rendered), (len(rendered), len(rendered))]:
            text = rendered[start:stop]
            plain = self._unmarked(text)
            if text and (plain != text or (cut and start == 0)):
                if done < start:
                    yield done, rendered[done:start], False
                yield start, plain, True
                done = stop
            start = following
        if done < len(rendered):
            yield done, rendered[done:], False

    def _unmarked(self, text: str) -> str:
        for mark in self.marks or ():
            text = text.replace(mark, "")
        return text
