"""Plain data become frozen dataclasses; what does not fit is refused, with its place."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal, Union

import msgspec

from puna.config.places import KeyPath, Places, dotted, short
from puna.errors import InputError


def build(tp: Any, value: Any, path: KeyPath, places: Places) -> Any:
    """Check `value` against the type `tp` and convert it; the recursion over containers."""
    origin = typing.get_origin(tp)
    if dataclasses.is_dataclass(tp) and isinstance(tp, type):
        return _build_dataclass(tp, value, path, places)
    if origin in (Union, types.UnionType):
        return _build_union(tp, value, path, places)
    if origin is Literal:
        return _build_literal(tp, value, path, places)
    if origin in (list, tuple) or tp in (list, tuple):
        return _build_sequence(tp, value, path, places)
    if origin in (dict, Mapping):
        return _build_mapping(tp, value, path, places)
    if tp is Any:
        return value
    if tp is Path:
        return Path(_leaf(str, value, path, places))
    return _leaf(tp, value, path, places)


def _build_dataclass(cls: type, value: Any, path: KeyPath, places: Places) -> Any:
    if not isinstance(value, Mapping):
        raise _mismatch(cls, value, path, places)
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in value:
        if key not in known:
            raise _unknown((*path, key), list(known), places)
    for name, fld in known.items():
        required = fld.default is MISSING and fld.default_factory is MISSING
        if required and name not in value:
            raise InputError(
                f"missing key {dotted((*path, name))!r}, a {_name(hints[name])}",
                where=places.find(path),
                fix="add it; it has no default",
            )
    fields = {key: build(hints[key], value[key], (*path, key), places) for key in value}
    try:
        return cls(**fields)
    except InputError as error:  # a check of the dataclass itself: say where the values stand
        what = f"{dotted(path)}: {error.what}" if path else error.what
        raise InputError(what, where=places.find(path), fix=error.fix) from error
    except (ValueError, TypeError) as error:
        what = f"{dotted(path)}: {error}" if path else str(error)
        raise InputError(what, where=places.find(path)) from error


def _build_union(tp: Any, value: Any, path: KeyPath, places: Places) -> Any:
    members = typing.get_args(tp)
    if value is None and type(None) in members:
        return None
    others = [member for member in members if member is not type(None)]
    if len(others) == 1 and value is not None:
        return build(others[0], value, path, places)
    chosen = _tagged(others, value, path, places)
    if chosen is not None:
        return build(chosen, value, path, places)
    exact = [member for member in others if member is type(value)]
    complaints = []
    for member in exact + [member for member in others if member not in exact]:
        try:
            return build(member, value, path, places)
        except InputError as error:
            complaints.append(error)
    shaped = [m for m in others if dataclasses.is_dataclass(m)]
    if isinstance(value, Mapping) and len(shaped) == 1:  # only one could have been meant
        return build(shaped[0], value, path, places)
    raise _mismatch(tp, value, path, places) from complaints[0]


def _tagged(members: list[Any], value: Any, path: KeyPath, places: Places) -> Any:
    """The dataclass among several that the value names; None where they carry no names.

    A name is a field that each of them has, of a `Literal` type: `method: lora`.

    Raises:
        InputError: They carry names, and the value has none or an unknown one.
    """
    shaped = [member for member in members if dataclasses.is_dataclass(member)]
    if len(shaped) < 2 or not isinstance(value, Mapping):
        return None
    hints = [typing.get_type_hints(member) for member in shaped]
    for key in hints[0]:
        types_of_key = [hint.get(key) for hint in hints]
        if not all(typing.get_origin(tp) is Literal for tp in types_of_key):
            continue
        names = {
            name: member
            for member, tp in zip(shaped, types_of_key, strict=True)
            for name in typing.get_args(tp)
        }
        if key not in value:
            raise InputError(
                f"missing key {dotted((*path, key))!r}",
                where=places.find(path),
                fix=f"one of {', '.join(map(repr, names))}",
            )
        name = _build_literal(Literal[tuple(names)], value[key], (*path, key), places)
        return names[name]
    return None


def _build_literal(tp: Any, value: Any, path: KeyPath, places: Places) -> Any:
    choices = typing.get_args(tp)
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    listed = ", ".join(repr(choice) for choice in choices)
    raise InputError(
        f"{dotted(path)}: expected one of {listed}, found {value!r}",
        where=places.find(path),
        fix=f"did you mean {near[0]!r}?" if near else None,
    )


def _build_sequence(tp: Any, value: Any, path: KeyPath, places: Places) -> Any:
    container = typing.get_origin(tp) or tp
    if not isinstance(value, list | tuple):
        raise _mismatch(tp, value, path, places)
    members = typing.get_args(tp) or (Any, ...)
    if container is list or (len(members) == 2 and members[1] is Ellipsis):
        wanted = [members[0]] * len(value)
    else:
        wanted = list(members)
    if len(wanted) != len(value):
        raise InputError(
            f"{dotted(path)}: expected {len(wanted)} items, found {len(value)}",
            where=places.find(path),
        )
    items = [build(wanted[i], value[i], (*path, i), places) for i in range(len(value))]
    return items if container is list else tuple(items)


def _build_mapping(tp: Any, value: Any, path: KeyPath, places: Places) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _mismatch(tp, value, path, places)
    of_key, of_value = typing.get_args(tp)
    return {
        _leaf(of_key, key, (*path, key), places): build(of_value, item, (*path, key), places)
        for key, item in value.items()
    }


def _leaf(tp: Any, value: Any, path: KeyPath, places: Places) -> Any:
    try:
        return msgspec.convert(value, tp, strict=True)
    except msgspec.ValidationError as error:
        raise _mismatch(tp, value, path, places) from error


def _mismatch(tp: Any, value: Any, path: KeyPath, places: Places) -> InputError:
    found = "nothing (null)" if value is None else f"{type(value).__name__} {short(value)}"
    key = f"{dotted(path)}: " if path else ""
    fix = None
    if tp in (str, Path) and isinstance(value, bool | int | float):
        fix = f"put quotes around it: '{value}'"
    return InputError(f"{key}expected {_name(tp)}, found {found}", where=places.find(path), fix=fix)


def _unknown(path: KeyPath, known: list[str], places: Places) -> InputError:
    near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    listed = ", ".join(known) or "none"
    if near:
        fix = f"did you mean {dotted((*path[:-1], near[0]))!r}? Known keys here: {listed}"
    else:
        fix = f"known keys here: {listed}"
    return InputError(f"unknown key {dotted(path)!r}", where=places.find(path), fix=fix)


def _name(tp: Any) -> str:
    """The name of a type as a person who writes a recipe would say it."""
    if dataclasses.is_dataclass(tp) and isinstance(tp, type):
        return f"mapping ({', '.join(f.name for f in dataclasses.fields(tp))})"
    if typing.get_origin(tp) in (Union, types.UnionType):
        return " or ".join("null" if m is type(None) else _name(m) for m in typing.get_args(tp))
    return tp.__name__ if isinstance(tp, type) and not typing.get_args(tp) else str(tp)
