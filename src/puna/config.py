"""Typed configuration: a YAML recipe and dotted overrides become frozen dataclasses.

Nothing is guessed and nothing is dropped: an unknown key names the nearest known one, a wrong
type names what was expected and what was found, and both name the file and the line. Scalars
follow YAML 1.2 (`1e-4` is a number, `no` is a word), not the 1.1 rules that PyYAML has by default.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

import msgspec
import yaml

from puna.errors import InputError

T = TypeVar("T")
Key = str | int
KeyPath = tuple[Key, ...]

_MAX_VALUES = 100_000  # of one recipe, aliases written out: a bound on what a bad file can ask for
_MAX_DEPTH = 64


@dataclass(frozen=True)
class _Places:
    """Where each value was written, so that an error can point at it."""

    root: str
    of: dict[KeyPath, str] = field(default_factory=dict)

    def find(self, path: KeyPath) -> str:
        while path:
            if path in self.of:
                return self.of[path]
            path = path[:-1]
        return self.of.get((), self.root)


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
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 at byte {error.start}", where=path) from error
    places = _Places(str(path))
    data = _Reader(str(path), places).read(text)
    data = {} if data is None else data
    for override in overrides:
        data = _apply(data, override, places)
    return cast(T, _build(cls, data, (), places))


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "configuration") -> T:
    """Build a configuration from plain data, such as parsed JSON.

    Args:
        cls: A dataclass.
        data: Values by field name.
        where: The origin of `data`, for errors.

    Raises:
        InputError: An unknown or missing key, or a value of the wrong type.
    """
    return cast(T, _build(cls, data, (), _Places(where)))


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


# --- typing -------------------------------------------------------------------------------------


def _build(tp: Any, value: Any, path: KeyPath, places: _Places) -> Any:
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


def _build_dataclass(cls: type, value: Any, path: KeyPath, places: _Places) -> Any:
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
                f"missing key {_dotted((*path, name))!r}, a {_name(hints[name])}",
                where=places.find(path),
                fix="add it; it has no default",
            )
    fields = {key: _build(hints[key], value[key], (*path, key), places) for key in value}
    try:
        return cls(**fields)
    except InputError as error:  # a check of the dataclass itself: say where the values stand
        what = f"{_dotted(path)}: {error.what}" if path else error.what
        raise InputError(what, where=places.find(path), fix=error.fix) from error
    except (ValueError, TypeError) as error:
        what = f"{_dotted(path)}: {error}" if path else str(error)
        raise InputError(what, where=places.find(path)) from error


def _build_union(tp: Any, value: Any, path: KeyPath, places: _Places) -> Any:
    members = typing.get_args(tp)
    if value is None and type(None) in members:
        return None
    others = [member for member in members if member is not type(None)]
    if len(others) == 1 and value is not None:
        return _build(others[0], value, path, places)
    exact = [member for member in others if member is type(value)]
    complaints = []
    for member in exact + [member for member in others if member not in exact]:
        try:
            return _build(member, value, path, places)
        except InputError as error:
            complaints.append(error)
    shaped = [m for m in others if dataclasses.is_dataclass(m)]
    if isinstance(value, Mapping) and len(shaped) == 1:  # only one could have been meant
        return _build(shaped[0], value, path, places)
    raise _mismatch(tp, value, path, places) from complaints[0]


def _build_literal(tp: Any, value: Any, path: KeyPath, places: _Places) -> Any:
    choices = typing.get_args(tp)
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    listed = ", ".join(repr(choice) for choice in choices)
    raise InputError(
        f"{_dotted(path)}: expected one of {listed}, found {value!r}",
        where=places.find(path),
        fix=f"did you mean {near[0]!r}?" if near else None,
    )


def _build_sequence(tp: Any, value: Any, path: KeyPath, places: _Places) -> Any:
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
            f"{_dotted(path)}: expected {len(wanted)} items, found {len(value)}",
            where=places.find(path),
        )
    items = [_build(wanted[i], value[i], (*path, i), places) for i in range(len(value))]
    return items if container is list else tuple(items)


def _build_mapping(tp: Any, value: Any, path: KeyPath, places: _Places) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _mismatch(tp, value, path, places)
    of_key, of_value = typing.get_args(tp)
    return {
        _leaf(of_key, key, (*path, key), places): _build(of_value, item, (*path, key), places)
        for key, item in value.items()
    }


def _leaf(tp: Any, value: Any, path: KeyPath, places: _Places) -> Any:
    try:
        return msgspec.convert(value, tp, strict=True)
    except msgspec.ValidationError as error:
        raise _mismatch(tp, value, path, places) from error


def _mismatch(tp: Any, value: Any, path: KeyPath, places: _Places) -> InputError:
    found = "nothing (null)" if value is None else f"{type(value).__name__} {_short(value)}"
    key = f"{_dotted(path)}: " if path else ""
    fix = None
    if tp in (str, Path) and isinstance(value, bool | int | float):
        fix = f"put quotes around it: '{value}'"
    return InputError(f"{key}expected {_name(tp)}, found {found}", where=places.find(path), fix=fix)


def _unknown(path: KeyPath, known: list[str], places: _Places) -> InputError:
    near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    listed = ", ".join(known) or "none"
    if near:
        fix = f"did you mean {_dotted((*path[:-1], near[0]))!r}? Known keys here: {listed}"
    else:
        fix = f"known keys here: {listed}"
    return InputError(f"unknown key {_dotted(path)!r}", where=places.find(path), fix=fix)


def _name(tp: Any) -> str:
    """The name of a type as a person who writes a recipe would say it."""
    if dataclasses.is_dataclass(tp) and isinstance(tp, type):
        return f"mapping ({', '.join(f.name for f in dataclasses.fields(tp))})"
    if typing.get_origin(tp) in (Union, types.UnionType):
        return " or ".join("null" if m is type(None) else _name(m) for m in typing.get_args(tp))
    return tp.__name__ if isinstance(tp, type) and not typing.get_args(tp) else str(tp)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _dotted(path: KeyPath) -> str:
    return ".".join(str(key) for key in path)


# --- YAML ---------------------------------------------------------------------------------------


_FLOAT = (
    r"[-+]?([0-9][0-9_]*(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_SCALARS = (  # YAML 1.2: tag, pattern, first characters ("" stands for an empty scalar)
    ("bool", r"(true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    ("int", r"[-+]?(0|[1-9][0-9_]*)$|0x[0-9a-fA-F]+$", [*"-+0123456789"]),
    ("float", _FLOAT, [*"-+.0123456789"]),
    ("null", r"(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
)
_CONTAINERS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def _safe_loader(text: str) -> yaml.SafeLoader:
    """PyYAML's safe loader, with the scalars of YAML 1.2 for this one instance."""
    resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, starts in _SCALARS:
        for start in starts:
            rule = (f"tag:yaml.org,2002:{tag}", re.compile(pattern))
            resolvers.setdefault(start, []).append(rule)
    loader = yaml.SafeLoader(text)
    loader.yaml_implicit_resolvers = resolvers
    return loader


class _Reader:
    """Builds plain data from YAML nodes, noting the line of every value."""

    def __init__(self, origin: str, places: _Places):
        self.origin, self.places, self.count = origin, places, 0

    def read(self, text: str) -> Any:
        try:
            loader = _safe_loader(text)
        except yaml.YAMLError as error:  # a character that YAML forbids
            raise InputError(f"is not YAML: {error}", where=self.origin) from error
        try:
            node = loader.get_single_node()
            return None if node is None else self._value(loader, node, ())
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
            raise InputError(
                f"is not YAML: {error.problem}", where=f"{self.origin}{line}"
            ) from error
        except RecursionError as error:
            raise InputError("is not usable YAML: nested too deeply", where=self.origin) from error
        finally:
            loader.dispose()

    def _value(self, loader: yaml.SafeLoader, node: yaml.Node, path: KeyPath) -> Any:
        where = f"{self.origin}:{node.start_mark.line + 1}"
        self.places.of[path] = where
        self.count += 1
        if self.count > _MAX_VALUES or len(path) > _MAX_DEPTH:
            raise InputError(
                f"has more than {_MAX_VALUES} values or nests deeper than {_MAX_DEPTH} levels",
                where=where,
                fix="an alias that holds itself, or aliases of aliases, may be the cause",
            )
        if isinstance(node, yaml.CollectionNode) and node.tag not in _CONTAINERS:
            raise InputError(f"the tag {node.tag!r} is not allowed", where=where)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, item, (*path, i)) for i, item in enumerate(node.value)]
        try:
            return loader.construct_object(node)
        except (ValueError, KeyError) as error:  # an integer too long, `!!int word`, `!!bool word`
            raise InputError(f"{_dotted(path)}: {error}", where=where) from error

    def _mapping(
        self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: KeyPath
    ) -> dict[Key, Any]:
        result: dict[Key, Any] = {}
        for key_node, value_node in node.value:
            where = f"{self.origin}:{key_node.start_mark.line + 1}"
            key = loader.construct_object(key_node)
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise InputError(f"a key must be a word, found {_short(key)}", where=where)
            if key in result:
                first = self.places.find((*path, key))
                raise InputError(
                    f"key {_dotted((*path, key))!r} is given twice, first at {first}",
                    where=where,
                    fix="keep one of them",
                )
            result[key] = self._value(loader, value_node, (*path, key))
            self.places.of[(*path, key)] = where
        return result


def _apply(data: Any, override: str, places: _Places) -> Any:
    """Set one `dotted.key=value` in plain data."""
    where = f"override {override!r}"
    dotted, equals, text = override.partition("=")
    if not equals or not all(dotted.split(".")):
        raise InputError("is not of the form dotted.key=value", where=where)
    origin = _Places(where)
    value = _Reader(where, origin).read(text)
    keys = dotted.split(".")
    path: KeyPath = ()
    spot = data
    for position, word in enumerate(keys):
        key = _step(spot, word, path, where)
        path = (*path, key)
        if position == len(keys) - 1:
            spot[key] = value
        elif isinstance(spot, dict) and spot.get(key) is None:
            spot[key] = {}
            places.of[path] = where
        spot = spot[key]
    for stale in [p for p in places.of if p[: len(path)] == path]:
        del places.of[stale]
    places.of[path] = where
    return data


def _step(spot: Any, word: str, path: KeyPath, where: str) -> Key:
    """The key or list position that one word of an override names."""
    if isinstance(spot, dict):
        return word
    if isinstance(spot, list):
        if word.isdecimal() and int(word) < len(spot):
            return int(word)
        raise InputError(f"{_dotted(path)} has items 0 to {len(spot) - 1}, not {word}", where=where)
    raise InputError(f"{_dotted(path)} is {_short(spot)}: no key {word!r} can be set", where=where)
