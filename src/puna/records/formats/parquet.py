"""Parquet, read by pyarrow in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.errors import InputError, require
from puna.records.formats.content import is_zipped, whole
from puna.records.row import Quarantine, Row

_BATCH_ROWS = 1024


def read_parquet(path: Path, quarantine: Quarantine) -> Iterator[Row]:
    """The rows of a parquet file.

    Raises:
        MissingPackageError: pyarrow is not installed.
        InputError: The file is damaged or no parquet.
    """
    arrow: Any = require("pyarrow", extra="corpus", purpose="reading parquet")
    parquet: Any = require("pyarrow.parquet", extra="corpus", purpose="reading parquet")
    number = 0
    try:
        source = arrow.BufferReader(whole(path)) if is_zipped(path) else str(path)
        with parquet.ParquetFile(source) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from _rows(batch, number, path, quarantine)
                number += batch.num_rows
    except InputError:
        raise
    except (arrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"cannot be read as parquet after row {number}: {reason}",
            where=path,
            fix="fetch the file again; it may be damaged or only half there",
        ) from error


def _rows(batch: Any, first: int, path: Path, quarantine: Quarantine) -> Iterator[Row]:
    try:
        values = batch.to_pylist()
    except (ValueError, OverflowError):  # text that is not UTF-8, a date beyond the calendar
        values = [None] * batch.num_rows
    for offset, value in enumerate(values):
        locator = f"{path}#{first + offset}"
        if value is None:
            try:
                (value,) = batch.slice(offset, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                quarantine.add(locator, "has a value that cannot be read", str(error)[:80])
                continue
        yield Row(value, locator)
