"""YAML recipes and `dotted.key=value` overrides become plain data, each value with its place."""

from __future__ import annotations

import re
from typing import Any

import yaml

from puna.config.places import Key, KeyPath, Places, dotted, short
from puna.errors import InputError

_MAX_VALUES = 100_000  # of one recipe, aliases written out: a bound on what a bad file can ask for
_MAX_DEPTH = 64

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


class Reader:
    """Builds plain data from YAML nodes, noting the line of every value."""

    def __init__(self, origin: str, places: Places):
        self.origin, self.places, self.count = origin, places, 0

    def read(self, text: str) -> Any:
        """The value that a text is; None for an empty one.

        Raises:
            InputError: It is not YAML, or more than a recipe may be.
        """
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
            raise InputError(f"{dotted(path)}: {error}", where=where) from error

    def _mapping(
        self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: KeyPath
    ) -> dict[Key, Any]:
        result: dict[Key, Any] = {}
        for key_node, value_node in node.value:
            where = f"{self.origin}:{key_node.start_mark.line + 1}"
            key = loader.construct_object(key_node)
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise InputError(f"a key must be a word, found {short(key)}", where=where)
            if key in result:
                first = self.places.find((*path, key))
                raise InputError(
                    f"key {dotted((*path, key))!r} is given twice, first at {first}",
                    where=where,
                    fix="keep one of them",
                )
            result[key] = self._value(loader, value_node, (*path, key))
            self.places.of[(*path, key)] = where
        return result


def apply(data: Any, override: str, places: Places) -> Any:
    """Set one `dotted.key=value` in plain data."""
    where = f"override {override!r}"
    dotted, equals, text = override.partition("=")
    if not equals or not all(dotted.split(".")):
        raise InputError("is not of the form dotted.key=value", where=where)
    origin = Places(where)
    value = Reader(where, origin).read(text)
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
        raise InputError(f"{dotted(path)} has items 0 to {len(spot) - 1}, not {word}", where=where)
    raise InputError(f"{dotted(path)} is {short(spot)}: no key {word!r} can be set", where=where)
