"""A resolved recipe for a terminal: every value, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from puna.config import to_dict


def recipe_lines(recipe: Any, origins: Mapping[str, str]) -> Iterator[str]:
    """One line for each value: its dotted key, the value, and its origin.

    Args:
        recipe: A configuration.
        origins: Where each value comes from, by dotted key.
    """
    values = dict(_flat(to_dict(recipe), ""))
    width = max(map(len, values))
    for key, value in values.items():
        origin = origins.get(key, "default")
        yield f"{key:<{width}}  {value!r}  # {origin}"


def _flat(values: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
