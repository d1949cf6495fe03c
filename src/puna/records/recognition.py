"""Which shape rows have: recognised from their columns, or checked where the user says it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from puna.errors import InputError
from puna.records.items import SHAPES, Columns, Shape, lookup
from puna.records.row import Row

_CHATS = ("messages", "sharegpt")
_CONVERSATIONS = ("messages", "conversations", "conversation")
PROMPTS = (  # pairs of columns that ask and answer, as data sets call them
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("input", "target"),
    ("input", "output"),
)
_SPLITTING = "say which hold what: columns.prompt and columns.completion, columns.source and "
_SPLITTING += "columns.target, columns.messages, or columns.text"
_TABBED = "if these are pairs, read them as such: format: tsv, header: false, "
_TABBED += "columns.source: '1', columns.target: '2'"


def choose_shape(
    sample: Sequence[Row], columns: Columns, shape: Shape | None = None
) -> tuple[Shape, str]:
    """The shape of rows, and why: as the user says, or recognised.

    Args:
        sample: Some of the rows.
        columns: Names that differ from the shape's own.
        shape: What the user says; None to recognise it.

    Raises:
        InputError: There are no rows, a named column does not exist, or the rows have no such
            shape; the message names the file, the line and the columns that there are.
    """
    if shape is None:
        return recognise(sample, columns)
    if shape not in SHAPES:
        raise InputError(f"there is no shape {shape!r}", fix=f"choose one of {', '.join(SHAPES)}")
    held = _columns_of(sample)
    _check_named(sample, columns, held)
    wanted = wanted_columns(shape, columns, held)
    missing = [name for name in wanted if not any(_has(row, name) for row in sample)]
    if missing:
        raise InputError(
            f"the shape {shape!r} was asked for, but there is no column {missing[0]!r}; "
            f"there are {_listed(held)}",
            where=sample[0].locator,
            fix=_suggestion(missing[0], held) or _SPLITTING,
        )
    answer = "; 'chosen' is the answer" if shape in _CHATS and "chosen" in held else ""
    return shape, f"{shape}, as asked: columns {_quoted(wanted)}{answer}"


def recognise(rows_sample: Sequence[Row], columns: Columns) -> tuple[Shape, str]:
    """The shape of rows by their columns, and why, in words.

    Args:
        rows_sample: Some of the rows.
        columns: Names that differ from the shape's own; they decide where they are given.

    Raises:
        InputError: There are no rows, a named column does not exist, or no shape fits.
    """
    held = _columns_of(rows_sample)
    _check_named(rows_sample, columns, held)
    by_name = _by_named(rows_sample, columns)
    if by_name is not None:
        return by_name
    common = {name for name, count in held.items() if 2 * count >= len(rows_sample)}
    if {"chosen", "rejected"} <= common:
        raise InputError(
            "these are preferences (columns 'chosen' and 'rejected'), not examples to imitate",
            where=rows_sample[0].locator,
            fix="to learn the chosen answers only, set the shape: sharegpt, messages or prompt "
            "(with columns.completion: chosen)",
        )
    return _by_columns(rows_sample, common, held)


def wanted_columns(shape: Shape, columns: Columns, held: Iterable[str]) -> tuple[str, ...]:
    """The columns that a shape must have, by the names that these data give them."""
    names = set(held)
    if shape == "parallel":
        return columns.source or "source", columns.target or "target"
    if shape == "text":
        return (columns.text or "text",)
    if shape == "alpaca":
        nested = "output" not in names and "instances" in names
        return ("instruction", "instances" if nested else "output")
    if shape == "prompt":
        if columns.prompt or columns.completion:
            return columns.prompt or "prompt", columns.completion or "completion"
        return next((pair for pair in PROMPTS if names.issuperset(pair)), PROMPTS[0])
    usual = next((name for name in _CONVERSATIONS if name in names), None)
    fallback = "messages" if shape == "messages" else "conversations"
    return (columns.messages or usual or fallback,)


def _by_named(sample: Sequence[Row], columns: Columns) -> tuple[Shape, str] | None:
    """The shape that the names the user gave decide."""
    given = columns.named()
    pairs: tuple[tuple[Shape, tuple[str, str]], ...] = (
        ("parallel", ("source", "target")),
        ("prompt", ("prompt", "completion")),
    )
    shapes: list[Shape] = [shape for shape, pair in pairs if given.keys() & set(pair)]
    if columns.messages is not None:
        shapes.append(_dialect(sample, columns.messages))
    if columns.text is not None:
        shapes.append("text")
    if not shapes:
        return None
    if len(shapes) > 1:
        raise InputError(
            f"columns are named for several shapes: {_quoted(sorted(given))}",
            fix="name those of one shape, or set the shape",
        )
    wanted = wanted_columns(shapes[0], columns, ())
    for name in wanted:
        if not any(_has(row, name) for row in sample):
            held = _columns_of(sample)
            raise InputError(
                f"there is no column {name!r}; there are {_listed(held)}",
                where=sample[0].locator,
                fix=_suggestion(name, held) or _SPLITTING,
            )
    return shapes[0], f"{shapes[0]}: columns {_quoted(wanted)}, as named"


def _by_columns(
    sample: Sequence[Row], common: set[str], held: Mapping[str, int]
) -> tuple[Shape, str]:
    """The shape that the columns' own names tell."""
    for name in _CONVERSATIONS:
        if name in common and any(isinstance(row.values.get(name), list) for row in sample):
            shape = _dialect(sample, name)
            keys = "from/value" if shape == "sharegpt" else "role/content"
            return shape, f"{shape}: column {name!r} with turns of {keys}{_unused(common, [name])}"
    if "instruction" in common and common & {"output", "instances"}:
        used = ["instruction", "input", "output", "system", "history", "instances"]
        return "alpaca", f"alpaca: {_found(used, common)}{_unused(common, used)}"
    if {"source", "target"} <= common:
        return "parallel", f"parallel: {_found(['source', 'target'], common)}" + _unused(
            common, ["source", "target"]
        )
    for pair in PROMPTS:
        if common.issuperset(pair):
            return "prompt", f"prompt: {_found(pair, common)}{_unused(common, pair)}"
    if "text" in common:
        tabbed = [row for row in sample if str(row.values.get("text")).count("\t") == 1]
        hint = f"; every line holds one tab: {_TABBED}" if len(tabbed) == len(sample) else ""
        return "text", f"text: column 'text'{_unused(common, ['text'])}{hint}"
    raise InputError(
        f"these columns are of no known shape: {_listed(held)}",
        where=sample[0].locator,
        fix=_guess(sample) or _SPLITTING,
    )


def _dialect(sample: Sequence[Row], column: str) -> Shape:
    """Whether turns are OpenAI's (role, content) or sharegpt's (from, value)."""
    for row in sample:
        turns = lookup(row.values, column)
        if isinstance(turns, list) and turns and isinstance(turns[0], Mapping):
            return "messages" if "role" in turns[0] else "sharegpt"
    return "messages"


def _guess(sample: Sequence[Row]) -> str | None:
    """What to write where exactly two columns hold text, at the top or in one mapping."""
    values = sample[0].values
    texts = [name for name, value in values.items() if isinstance(value, str)]
    inner = [(name, value) for name, value in values.items() if isinstance(value, Mapping)]
    if len(inner) == 1 and not texts:
        name, mapping = inner[0]
        texts = [f"{name}.{key}" for key, value in mapping.items() if isinstance(value, str)]
    if len(texts) != 2:
        return None
    return (
        f"for a translation: columns.source: {texts[0]}, columns.target: {texts[1]}; "
        f"for a question and its answer: columns.prompt: {texts[0]}, columns.completion: {texts[1]}"
    )


def _columns_of(sample: Sequence[Row]) -> Mapping[str, int]:
    if not sample:
        raise InputError(
            "there is no row to learn from",
            fix="look at what was set aside, and why; or name other files",
        )
    return Counter(name for row in sample for name in row.values)


def _check_named(sample: Sequence[Row], columns: Columns, held: Mapping[str, int]) -> None:
    for what, name in columns.named().items():
        if not any(_has(row, name) for row in sample):
            raise InputError(
                f"columns.{what} names {name!r}, which is not there; there are {_listed(held)}",
                where=sample[0].locator,
                fix=_suggestion(name, held) or "name one of these",
            )


def _has(row: Row, column: str) -> bool:
    return column in row.values or lookup(row.values, column) is not None


def _suggestion(name: str, held: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(name, list(held), n=1)
    return f"did you mean {near[0]!r}?" if near else None


def _listed(held: Iterable[str]) -> str:
    names = list(held)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return _quoted([name[:40] for name in names[:12]]) + more


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def _found(used: Iterable[str], common: Iterable[str]) -> str:
    return f"columns {_quoted([name for name in used if name in common])}"


def _unused(common: Iterable[str], used: Iterable[str]) -> str:
    rest = sorted(set(common) - set(used) - {"id", "root_id"})
    return f" (not used: {_listed(rest)})" if rest else ""


def any_text(value: Any) -> str | None:
    """A scalar as the text that a wording may name; None for what is no scalar."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return None
