"""JSON: objects line by line, or in one value (an array, columns, or one object per file)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.errors import InputError
from puna.records.formats.content import text_lines, whole, without_mark
from puna.records.row import Quarantine, Row, kind_of

_SPACE = re.compile(r"[ \t\n\r]*")
_MAX_DIGITS = 4300  # Python's own bound on turning decimal digits into an integer
_CONVERSATIONS = ("messages", "conversations", "conversation")


class _Decoder:
    """The standard library's decoder, which here notes what it would pass over in silence."""

    def __init__(self) -> None:
        self._faults: list[tuple[str, str]] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_int=self._integer)

    def decode(self, text: str, start: int) -> tuple[Any, int, tuple[str, str] | None]:
        """The value at `start`, where it ends, and the first fault in it (reason, detail)."""
        self._faults.clear()
        value, end = self._decoder.raw_decode(text, start)
        return value, end, self._faults[0] if self._faults else None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            names = Counter(name for name, _ in pairs)
            twice = next(name for name, count in names.items() if count > 1)
            self._faults.append(("has a key twice", ascii(twice)[:60]))
        return value

    def _integer(self, digits: str) -> int:
        if len(digits) <= _MAX_DIGITS:
            return int(digits)
        self._faults.append(("has an integer of thousands of digits", f"{len(digits)} digits"))
        return 0


def read_jsonl(path: Path, quarantine: Quarantine) -> Iterator[Row]:
    """One row per line that holds an object; blank lines are skipped, bad ones quarantined."""
    yield from _from_lines(text_lines(path, quarantine), path, quarantine)


def read_json(path: Path, quarantine: Quarantine) -> Iterator[Row]:
    """The rows of a JSON file.

    An array of objects; an object of equally long arrays of scalars (columns); an object with one
    array of objects under a name of its own; any other object is one row. JSON lines are often
    saved under this name: a file whose first object ends in its line and is followed by more is
    read line by line.

    Raises:
        InputError: The file is not UTF-8 or not JSON (with line and column), or no object or array.
    """
    data = without_mark(whole(path), path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"holds bytes that are not UTF-8, the first at byte {error.start}",
            where=f"{path}:{line}",
            fix="save it as UTF-8",
        ) from error
    start = _after_space(text, 0)
    if text[start : start + 1] == "[":
        yield from _from_array(text, start, path, quarantine)
    elif start < len(text):
        yield from _from_value(text, start, path, quarantine)


def _from_lines(
    lines: Iterator[tuple[int, str]], path: Path, quarantine: Quarantine
) -> Iterator[Row]:
    decoder = _Decoder()
    for number, line in lines:
        start, locator = _after_space(line, 0), f"{path}:{number}"
        if start == len(line):
            continue
        try:
            value, end, fault = decoder.decode(line, start)
        except json.JSONDecodeError as error:
            quarantine.add(locator, "is not JSON", f"{error.msg} at column {error.colno}")
            continue
        except RecursionError:
            quarantine.add(locator, "is JSON nested too deeply")
            continue
        end = _after_space(line, end)
        if end < len(line):
            quarantine.add(locator, "is not JSON", f"more than one value, at column {end + 1}")
        else:
            yield from _checked(value, fault, locator, quarantine)


def _from_array(text: str, start: int, path: Path, quarantine: Quarantine) -> Iterator[Row]:
    """The objects of an array, decoded one at a time so that each has its line."""
    decoder = _Decoder()
    line, counted, number = 1, 0, 0
    position = _after_space(text, start + 1)
    closed = text[position : position + 1] == "]"
    while not closed:
        value, end, fault = _decode(decoder, text, position, path)
        line += text.count("\n", counted, position)
        counted = position
        yield from _checked(value, fault, f"{path}:{line}#{number}", quarantine)
        number += 1
        position = _after_space(text, end)
        closed = text[position : position + 1] == "]"
        if not closed:
            if text[position : position + 1] != ",":
                raise _broken("expected ',' or ']'", text, position, path)
            position = _after_space(text, position + 1)
    position = _after_space(text, position + 1)
    if position < len(text):
        raise _broken("more follows after the array", text, position, path)


def _from_value(text: str, start: int, path: Path, quarantine: Quarantine) -> Iterator[Row]:
    value, end, fault = _decode(_Decoder(), text, start, path)
    rest = _after_space(text, end)
    if rest < len(text):
        if "\n" in text[start:end] or "\n" not in text[end:rest]:
            raise _broken("more than one value", text, rest, path)
        yield from _from_lines(enumerate(text.split("\n"), 1), path, quarantine)
        return
    if not isinstance(value, dict):
        raise InputError(
            f"holds {kind_of(value)}, not objects",
            where=path,
            fix="save an array of objects, or one object per line",
        )
    locator = f"{path}:{text.count(chr(10), 0, start) + 1}"
    if fault is not None:
        quarantine.add(locator, *fault)
        return
    for number, row in enumerate(_rows_of(value)):
        yield from _checked(row, None, f"{locator}#{number}", quarantine)


def _rows_of(value: dict[str, Any]) -> list[Any]:
    """The rows that one object stands for."""
    arrays = [item for item in value.values() if isinstance(item, list)]
    lengths = {len(array) for array in arrays}
    objects = [array for array in arrays if array and all(isinstance(i, dict) for i in array)]
    if any(value.get(name) in objects for name in _CONVERSATIONS if name in value):
        return [value]
    if len(objects) == 1 and len(arrays) == 1:
        return list(objects[0])
    if value and len(arrays) == len(value) and len(lengths) == 1 and not objects:
        return [dict(zip(value, items, strict=True)) for items in zip(*arrays, strict=True)]
    return [value]


def _checked(
    value: Any, fault: tuple[str, str] | None, locator: str, quarantine: Quarantine
) -> Iterator[Row]:
    if fault is not None:
        quarantine.add(locator, *fault)
    elif not isinstance(value, dict):
        quarantine.add(locator, "is no JSON object", kind_of(value))
    else:
        yield Row(value, locator)


def _decode(
    decoder: _Decoder, text: str, start: int, path: Path
) -> tuple[Any, int, tuple[str, str] | None]:
    try:
        return decoder.decode(text, start)
    except json.JSONDecodeError as error:
        raise _broken(error.msg, text, error.pos, path) from error
    except RecursionError as error:
        raise InputError("is JSON nested too deeply", where=path) from error


def _broken(what: str, text: str, position: int, path: Path) -> InputError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return InputError(
        f"is not JSON: {what}, at line {line}, column {column}",
        where=f"{path}:{line}",
        fix="mend it there, or save one object per line (.jsonl), where a bad line costs no other",
    )


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None  # the pattern matches the empty string
    return match.end()
