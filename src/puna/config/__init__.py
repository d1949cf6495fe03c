"""Typed configuration: a YAML recipe and dotted overrides become frozen dataclasses.

Nothing is guessed and nothing is dropped: an unknown key names the nearest known one, a wrong
type names what was expected and what was found, and both name the file and the line. Scalars
follow YAML 1.2 (`1e-4` is a number, `no` is a word), not the 1.1 rules that PyYAML has by default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from puna.config.build import build
from puna.config.places import KeyPath, Places, dotted
from puna.config.recipe import Reader, apply
from puna.errors import InputError

T = TypeVar("T")


def load_recipe(path: Path, cls: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a YAML recipe into a configuration.

    Args:
        path: The YAML file; an empty one means that every field keeps its default.
        cls: A dataclass, nested as deep as needed.
        overrides: `dotted.key=value` each, applied in order; values are YAML, so `a.b=[1, 2]`
            and `a.b=null` work, and list items are reached by their number, from 0.

    Raises:
        InputError: The file cannot be read, is not YAML, names a key twice, has an unknown or
            a missing key, or a value of the wrong type.
    """
    return load_recipe_with_origins(path, cls, overrides)[0]


def load_recipe_with_origins(
    path: Path, cls: type[T], overrides: Sequence[str] = ()
) -> tuple[T, dict[str, str]]:
    """The same, and where each value of the configuration comes from.

    Returns:
        The configuration, and by dotted key `file:line`, `override '...'` or `default`.

    Raises:
        InputError: See `load_recipe`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 at byte {error.start}", where=path) from error
    places = Places(str(path))
    data = Reader(str(path), places).read(text)
    data = {} if data is None else data
    for override in overrides:
        data = apply(data, override, places)
    config = cast(T, build(cls, data, (), places))
    return config, {dotted(path): places.of.get(path, "default") for path in _leaves(config)}


def _leaves(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The keys of all values of a configuration that hold no others."""
    if dataclasses.is_dataclass(value):
        items = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init]
    elif isinstance(value, Mapping) and value:
        items = list(value.items())
    else:
        yield path
        return
    for key, item in items:
        yield from _leaves(item, (*path, key))


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "configuration") -> T:
    """Build a configuration from plain data, such as parsed JSON.

    Args:
        cls: A dataclass.
        data: Values by field name.
        where: The origin of `data`, for errors.

    Raises:
        InputError: An unknown or missing key, or a value of the wrong type.
    """
    return cast(T, build(cls, data, (), Places(where)))


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a configuration into plain data that `from_dict` reads back: lists, dicts, scalars."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"expected a dataclass instance, found {type(config).__name__}")
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
