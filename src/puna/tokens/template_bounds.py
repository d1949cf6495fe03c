"""How large a text becomes, known before a chat template makes it.

A method or a filter of a few characters can ask for terabytes (`'a'.ljust(10**12)`). Each of those
that make more than they are given is measured here from its arguments, or not called.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import update_wrapper
from typing import Any

import jinja2
from jinja2 import filters, pass_environment

MAX_CHARS = 16_000_000  # of any text or list that a template makes, and of its output
MAX_PADDING = 9999  # characters that a number in a format may ask for

_LONG_PADDING = re.compile(
    r"%(?:\([^()]*\))?[-#0 +]*(?:\*|\d{5}|\d*\.(?:\*|\d{5}))"
    r"|%\([^()]*\("  # a name with brackets in it: where it ends is not worth finding out
)
_LONG_NUMBER = re.compile(r"\d{5}")


class TooMuchError(jinja2.TemplateRuntimeError):
    """A template exceeded one of its bounds."""


def check_size(size: int) -> None:
    """Refuse a text or a list of more than `MAX_CHARS`.

    Raises:
        TooMuchError: It is larger.
    """
    if size > MAX_CHARS:
        raise TooMuchError(f"makes a value of more than {MAX_CHARS} characters")


def checked_arguments(
    method: Any, args: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The arguments of a call; refused for a method of `str` or `bytes` that makes too much.

    What `join` is given is made a list, since it may be iterated only once.

    Raises:
        TooMuchError: The result would be too large.
    """
    text = getattr(method, "__self__", None)
    if isinstance(text, str | bytes) and getattr(method, "__name__", "") == "join" and args:
        items = list(itertools.islice(args[0], MAX_CHARS))
        check_size(sum(map(_length, items)) + len(text) * len(items))
        return (items, *args[1:])
    _check_method(method, args, named)
    return args


def _check_method(method: Any, args: Sequence[Any], named: Mapping[str, Any]) -> None:
    text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    given = [*args, *named.values()]
    if name == "to_bytes":
        check_size(max((value for value in given if isinstance(value, int)), default=0))
    if not isinstance(text, str | bytes):
        return
    if name in ("ljust", "rjust", "center", "zfill"):
        check_size(max((value for value in given if isinstance(value, int)), default=0))
    elif name == "expandtabs":
        tabs = text.count("\t") if isinstance(text, str) else text.count(b"\t")
        check_size(tabs * max((value for value in given if isinstance(value, int)), default=8))
    elif name == "replace" and len(given) >= 2:
        _check_replace(text, given[0], given[1])
    elif name == "translate":
        tables = [value for value in given if isinstance(value, Mapping)]
        check_size(len(text) * max((_length(v) for t in tables for v in t.values()), default=1))


def check_percent(template: Any, given: Any) -> None:
    """Refuse `%` formatting whose result would be too large.

    Raises:
        TooMuchError: It would be, or it pads to more than `MAX_PADDING` characters.
    """
    if isinstance(template, bytes):
        template = template.decode("latin-1")
    if not isinstance(template, str):
        return
    if _LONG_PADDING.search(template):
        raise TooMuchError(f"pads text to more than {MAX_PADDING} characters")
    values = given.values() if isinstance(given, Mapping) else given
    values = values if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    check_size(len(template) + template.count("%") * max(map(_length, values), default=0))


def bounded_format(
    text: str, inner: Callable[..., str], original: Callable[..., Any]
) -> Callable[..., str]:
    """`text.format` (or `format_map`) that measures before it formats.

    Args:
        text: What is formatted.
        inner: The sandbox's own wrapper, which is called in the end.
        original: The method, for its name.
    """

    def wrapper(*args: Any, **named: Any) -> str:
        fields = re.findall(r"\{([^{}]*)(\{?)", text)
        if any(":" in field and (_LONG_NUMBER.search(field) or more) for field, more in fields):
            raise TooMuchError(f"pads text to more than {MAX_PADDING} characters")
        maps = [value.values() for value in args if isinstance(value, Mapping)]
        longest = max(map(_length, itertools.chain(args, named.values(), *maps)), default=0)
        check_size(len(text) + len(fields) * longest)
        return inner(*args, **named)

    return update_wrapper(wrapper, original)


def bounded_filters() -> dict[str, Callable[..., Any]]:
    """jinja2's filters that can make more than they are given, measured before they do."""
    return {
        "join": _join,
        "replace": _measured(filters.do_replace, _check_replace_filter),
        "center": _measured(filters.do_center, _check_numbers),
        "indent": _measured(filters.do_indent, _check_indent),
        "wordwrap": _measured(filters.do_wordwrap, _check_wordwrap),
        "format": _measured(filters.do_format, _check_format_filter),
        "batch": _measured(filters.do_batch, _check_numbers),
        "slice": _measured(filters.do_slice, _check_numbers),
        "sum": _sum,
    }


def _measured(function: Any, check: Callable[[list[Any]], None]) -> Callable[..., Any]:
    """A filter that checks its arguments first, passed its context as the original is."""
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

    def wrapper(*args: Any, **named: Any) -> Any:
        check([*args[skipped:], *named.values()])
        return function(*args, **named)

    return update_wrapper(wrapper, function)


def _check_numbers(given: list[Any]) -> None:
    check_size(max((value for value in given if isinstance(value, int)), default=0))


def _check_replace_filter(given: list[Any]) -> None:
    if len(given) >= 3:
        _check_replace(str(given[0]), str(given[1]), str(given[2]))


def _check_indent(given: list[Any]) -> None:
    text, widths = str(given[0]), given[1:]
    lines = len(text.splitlines()) + 1
    check_size(lines * max((v if isinstance(v, int) else _length(v) for v in widths), default=4))


def _check_wordwrap(given: list[Any]) -> None:
    # At worst there is a break after every character.
    breaks = max((len(value) for value in given[1:] if isinstance(value, str)), default=1)
    check_size(len(str(given[0])) * breaks)


def _check_format_filter(given: list[Any]) -> None:
    check_percent(str(given[0]), given[1:])


def _check_replace(text: str | bytes, old: Any, new: Any) -> None:
    if isinstance(old, str | bytes) and type(old) is type(text):
        count = text.count(old)  # type: ignore[arg-type]
        check_size(len(text) + count * _length(new))


@pass_environment
def _join(environment: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    """jinja2's `join` where nothing is escaped."""
    items = value
    if attribute is not None:
        items = map(filters.make_attrgetter(environment, attribute), value)
    texts, size = [], 0
    for item in items:
        texts.append(str(item))
        size += len(texts[-1]) + len(str(d))
        check_size(size)
    return str(d).join(texts)


@pass_environment
def _sum(
    environment: Any, iterable: Any, attribute: str | int | None = None, start: Any = 0
) -> Any:
    """jinja2's `sum`; lists are added up too."""
    if attribute is not None:
        iterable = map(filters.make_attrgetter(environment, attribute), iterable)
    items = list(iterable)
    size = copied = 0
    for item in items:  # each step copies what there is so far
        size += len(item) if isinstance(item, list | tuple) else 0
        copied += size
        check_size(copied)
    return sum(items, start)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else len(str(value))
