"""Small helpers for the tests of records: files from bytes, rows and items from values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.records import (
    Columns,
    Item,
    Quarantine,
    Row,
    Shape,
    Wording,
    choose_shape,
    read_rows,
    shape_rows,
)


def read(
    folder: Path, name: str, content: bytes | str, *, header: bool = True
) -> tuple[list[Row], Quarantine]:
    """The rows of a file of this name and content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    quarantine = Quarantine()
    return list(read_rows([path], quarantine=quarantine, header=header)), quarantine


def values(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [dict(row.values) for row in rows]


def places(rows: Sequence[Row]) -> list[str]:
    """What follows the name of the file in each locator."""
    return [Path(row.locator).name.partition(":")[2] for row in rows]


def rows_of(*rows: Mapping[str, Any]) -> list[Row]:
    return [Row(row, f"rows.jsonl:{number}") for number, row in enumerate(rows, 1)]


def shaped(
    rows: Sequence[Row],
    *,
    columns: Columns | None = None,
    wording: Wording | None = None,
    shape: Shape | None = None,
) -> tuple[list[Item], Quarantine]:
    """Rows of a recognised (or asked) shape as items."""
    columns = columns or Columns()
    chosen, _ = choose_shape(rows, columns, shape)
    quarantine = Quarantine()
    items = shape_rows(rows, chosen, columns, wording or Wording(), quarantine)
    return list(items), quarantine
