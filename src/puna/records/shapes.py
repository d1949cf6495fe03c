"""Rows in the shapes that people have become items: turns to learn the answers of, or text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from puna.errors import InputError
from puna.records.items import (
    SHAPES,
    Columns,
    Item,
    Message,
    Messages,
    Shape,
    item_id,
    lookup,
    normalised,
)
from puna.records.recognition import any_text, choose_shape, recognise, wanted_columns
from puna.records.row import Quarantine, Row, kind_of
from puna.records.turns import MisfitError, conversation, with_answer
from puna.records.wording import MissingFieldError, Wording

_NAMES: dict[str, tuple[str, str]] = {
    "parallel": ("source", "target"),
    "prompt": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}


def shape_rows(
    rows: Iterable[Row],
    shape: Shape,
    columns: Columns,
    wording: Wording,
    quarantine: Quarantine,
) -> Iterator[Item]:
    """Turn rows into items.

    Args:
        rows: The rows.
        shape: Their shape; `choose_shape` recognises or checks it.
        columns: Names of columns that differ from the shape's own.
        wording: How the fields of a row become turns.
        quarantine: Takes each row that does not fit, with the reason.

    Raises:
        InputError: The wording is not for this shape, or no row at all fits: the message names the
            first one, what it lacks and what there is.
    """
    first: InputError | None = None
    fitted = False
    for row in rows:
        try:
            items = _items(row, shape, columns, wording)
        except MisfitError as misfit:
            quarantine.add(row.locator, misfit.reason, misfit.detail)
            first = first or _nothing_fits(row, shape, misfit)
            continue
        except MissingFieldError as error:
            quarantine.add(row.locator, "has no text in a field that the wording names", error.what)
            first = first or InputError(error.what, where=row.locator, fix=error.fix)
            continue
        except InputError as error:
            raise InputError(error.what, where=error.where or row.locator, fix=error.fix) from error
        fitted = True
        yield from items
    if first is not None and not fitted:
        raise first


def _nothing_fits(row: Row, shape: Shape, misfit: MisfitError) -> InputError:
    held = ", ".join(repr(name[:40]) for name in list(row.values)[:12])
    detail = f" ({misfit.detail})" if misfit.detail else ""
    return InputError(
        f"no row fits the shape {shape!r}; this one {misfit.reason}{detail}; columns: {held}",
        where=row.locator,
        fix=f"set another shape ({', '.join(SHAPES)}), or name the columns",
    )


def _items(row: Row, shape: Shape, columns: Columns, wording: Wording) -> list[Item]:
    fields = {name: text for name, v in row.values.items() if (text := any_text(v)) is not None}
    fields = {"input": "", **fields} if shape == "alpaca" else fields
    if shape == "text":
        (name,) = wanted_columns(shape, columns, row.values)
        text = _text(row, name)
        return [_item(row, shape, {**fields, "text": text}, (), text)]
    if shape in ("messages", "sharegpt"):
        turns = wording.around(_conversation(row, shape, columns, fields), fields)
        return [_item(row, shape, fields, turns, None)]
    if shape == "alpaca" and "output" not in row.values and "instances" in row.values:
        return _instances(row, fields, wording)
    wanted = wanted_columns(shape, columns, row.values)
    named = {name: _text(row, column) for name, column in zip(_NAMES[shape], wanted, strict=True)}
    if shape == "alpaca":
        _optional(row, ("input", "system"))
    turns = with_answer(wording.messages({**fields, **named}, shape))
    turns = _with_history(row, turns) if shape == "alpaca" else turns
    return [_item(row, shape, {**fields, **named}, turns, None)]


def _text(row: Row, column: str) -> str:
    """The text of a column that must have one."""
    value = lookup(row.values, column)
    if value is None:
        raise MisfitError(f"has no column {column!r}")
    if not isinstance(value, str):
        raise MisfitError(f"column {column!r} is not text", kind_of(value))
    if not value.strip():
        raise MisfitError(f"column {column!r} is empty")
    return value


def _optional(row: Row, names: tuple[str, ...]) -> None:
    for name in names:
        value = row.values.get(name)
        if value is not None and not isinstance(value, str):
            raise MisfitError(f"column {name!r} is not text", kind_of(value))


def _conversation(row: Row, shape: Shape, columns: Columns, fields: Mapping[str, str]) -> Messages:
    (name,) = wanted_columns(shape, columns, row.values)
    turns = lookup(row.values, name)
    if turns is None:
        raise MisfitError(f"has no column {name!r}")
    chosen = row.values.get("chosen")
    if isinstance(chosen, Mapping) and isinstance(turns, list):  # preferences: the better answer
        turns = [*turns, chosen]
    said = conversation(turns, name)
    own = fields.get("system", "")
    if own.strip() and said[0]["role"] != "system":
        return ({"role": "system", "content": own}, *said)
    return said


def _with_history(row: Row, turns: Messages) -> Messages:
    """Earlier questions and answers, [[question, answer] ...], between the system and the rest."""
    history = row.values.get("history")
    if not history:
        return turns
    pairs: list[Message] = []
    for pair in history if isinstance(history, list) else [history]:
        sound = isinstance(pair, list | tuple) and len(pair) == 2
        if not sound or not all(isinstance(text, str) and text.strip() for text in pair):
            raise MisfitError("has a history that is no list of question and answer")
        pairs.append({"role": "user", "content": pair[0]})
        pairs.append({"role": "assistant", "content": pair[1]})
    head = 1 if turns[0]["role"] == "system" else 0
    return (*turns[:head], *pairs, *turns[head:])


def _instances(row: Row, fields: Mapping[str, str], wording: Wording) -> list[Item]:
    """Self-instruct's rows: one instruction with several inputs and outputs, all of one root."""
    instances: Any = row.values["instances"]
    if not isinstance(instances, list) or not instances:
        raise MisfitError("column 'instances' is no list of inputs and outputs")
    items = []
    root = _root(row) or item_id(row.locator)
    for number, instance in enumerate(instances):
        if not isinstance(instance, Mapping):
            raise MisfitError("column 'instances' is no list of inputs and outputs")
        one = Row(
            {**fields, **instance, "root_id": root, "instances": None}, f"{row.locator}#{number}"
        )
        texts = {name: _text(one, name) for name in _NAMES["alpaca"]}
        _optional(one, ("input", "system"))
        given = {**fields, "input": instance.get("input") or "", **texts}
        items.append(
            _item(one, "alpaca", given, with_answer(wording.messages(given, "alpaca")), None)
        )
    return items


def _item(
    row: Row, shape: Shape, fields: Mapping[str, str], messages: Messages, text: str | None
) -> Item:
    return Item(
        id=item_id(row.locator),
        root_id=_root(row),
        locator=row.locator,
        shape=shape,
        fields=fields,
        messages=messages,
        text=text,
        source=normalised(_asked(shape, fields, messages, text)),
    )


def _asked(shape: Shape, fields: Mapping[str, str], messages: Messages, text: str | None) -> str:
    """What is asked, without the wording: rows with the same question belong together."""
    if text is not None:
        return text
    if shape == "alpaca":
        return f"{fields['instruction']}\n\n{fields.get('input', '')}"
    if shape in _NAMES:
        return fields[_NAMES[shape][0]]
    answers = [number for number, turn in enumerate(messages) if turn["role"] == "assistant"]
    asked = [turn["content"] for turn in messages[: answers[0]] if turn["role"] == "user"]
    return "\n\n".join(asked)


def _root(row: Row) -> str | None:
    root = row.values.get("root_id")
    return str(root) if isinstance(root, str | int) and str(root).strip() else None


__all__ = [
    "SHAPES",
    "Columns",
    "Item",
    "Shape",
    "choose_shape",
    "recognise",
    "shape_rows",
]
