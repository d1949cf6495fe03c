"""Reading a run's summary: every part may be absent, and nothing that is there is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from puna.report import Change, Paragraph, Score, read_change, read_score
from puna.report.words import MISSING, number

Told = Mapping[str, Any]


def mapping(told: Told, key: str) -> Told:
    """The mapping under a key; empty where there is none."""
    value = told.get(key)
    return value if isinstance(value, Mapping) else {}


def listing(told: Told, key: str) -> Sequence[Any]:
    """The list under a key; empty where there is none."""
    value = told.get(key)
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()


def mappings(told: Told, key: str) -> list[Told]:
    """The mappings in the list under a key."""
    return [entry for entry in listing(told, key) if isinstance(entry, Mapping)]


def metrics(summary: Told, side: str) -> Told:
    """The metrics of `before` or `after`, by name."""
    return mapping(mapping(summary, side), "metrics")


def score(summary: Told, side: str, name: str) -> Score | None:
    """A metric of `before` or `after`."""
    return read_score(name, metrics(summary, side).get(name))


def pair(summary: Told, name: str) -> tuple[Score | None, Score | None, Change | None]:
    """A metric before, after, and its paired comparison."""
    change = read_change(mapping(summary, "paired").get(name))
    return score(summary, "before", name), score(summary, "after", name), change


def text(value: Any) -> str:
    """Text of a sample; nothing where there is none."""
    return "" if value is None else str(value)


def fact(value: Any) -> str:
    """Any plain value for a person to read."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {fact(inner)}" for key, inner in value.items()) or MISSING
    if isinstance(value, list | tuple):
        mixed = any(isinstance(entry, Mapping | list | tuple) for entry in value)
        return ("\n" if mixed else ", ").join(fact(entry) for entry in value) or MISSING
    return number(value)


def plain(value: Any) -> Any:
    """A value that YAML can write: mappings, lists, numbers, texts."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    known = value is None or isinstance(value, bool | int | float | str)
    return value if known else str(value)


def date(value: Any) -> str:
    """A moment in ISO form as people read it: `2026-11-22 14:03 UTC`."""
    said = text(value)
    if len(said) >= 16 and said[10:11] == "T":
        zone = " UTC" if said.endswith(("Z", "+00:00")) else ""
        return f"{said[:10]} {said[11:16]}{zone}"
    return said


def absent(what: str) -> Paragraph:
    """A sentence in place of what the run did not record."""
    return Paragraph(f"The run recorded no {what}.", "quiet")
