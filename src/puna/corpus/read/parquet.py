"""Parquet: a row is a document; damage costs the row groups behind it, a bad value its row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from puna.corpus.read.remote import is_remote, open_remote
from puna.corpus.read.rows import Read, row_document
from puna.corpus.read.streams import check_piece
from puna.corpus.read.units import Piece, ReadConfig, Unread
from puna.corpus.schema import Found

_DocumentOf = Callable[[Mapping[str, Any], str, ReadConfig], Found | Unread]
_BATCH_ROWS = 256
_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


def read_parquet(piece: Piece, config: ReadConfig) -> Read:
    """Documents of the row groups of a piece, each located by its number in the file."""
    return _read(piece, config, row_document)


def read_corpus(piece: Piece, config: ReadConfig) -> Read:
    """Documents of a corpus of ours, with their ids and figures, kept or dropped."""
    return _read(piece, config, _curated)


def _read(piece: Piece, config: ReadConfig, document_of: _DocumentOf) -> Read:
    fault = check_piece(piece)
    if fault is not None:
        yield fault
        return
    done = 0
    try:
        with pq.ParquetFile(_source(piece), memory_map=False) as file:
            names = file.schema_arrow.names
            if config.text.partition(".")[0] not in names and config.text not in names:
                told = ", ".join(repr(name[:40]) for name in names[:12])
                reason = f"has no column {config.text!r}"
                yield Unread(piece.place, reason, f"there are {told}")
                return
            groups = list(range(file.num_row_groups))
            metadata = file.metadata
            for group in groups[: piece.start]:
                done += metadata.row_group(group).num_rows
            for group in groups[piece.start : piece.stop]:
                first = done
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
                    yield from _documents(batch, done, piece, config, document_of)
                    done += batch.num_rows
                done = first + metadata.row_group(group).num_rows
    except _ERRORS as error:
        detail = str(error).partition("\n")[0][:200]
        yield Unread(f"{piece.place}#{done}", "cannot be read as parquet from here on", detail)


def row_group_bytes(piece: Piece) -> list[int]:
    """Bytes of each row group as it lies on disk.

    Raises:
        OSError, ArrowException: It is no sound parquet file.
    """
    with pq.ParquetFile(_source(piece), memory_map=False) as file:
        groups = (file.metadata.row_group(n) for n in range(file.num_row_groups))
        return [_group_bytes(group) for group in groups]


def _source(piece: Piece) -> Any:
    return pa.PythonFile(open_remote(piece), "r") if is_remote(piece.path) else piece.path


def _group_bytes(group: Any) -> int:
    columns = (group.column(number) for number in range(group.num_columns))
    return sum(column.total_compressed_size for column in columns)


def _documents(
    batch: Any, first: int, piece: Piece, config: ReadConfig, document_of: _DocumentOf
) -> Read:
    for number, values in enumerate(_rows(batch), first):
        locator = f"{piece.place}#{number}"
        if isinstance(values, str):
            yield Unread(locator, "has a value that cannot be read", values)
        else:
            yield document_of(values, locator, config)


def _curated(values: Mapping[str, Any], locator: str, config: ReadConfig) -> Found | Unread:
    found = row_document(values, locator, config)
    if isinstance(found, Unread):
        return found
    told = values.get("metadata")
    return replace(
        found,
        locator=values["locator"],
        metadata=json.loads(told) if told else {},
        id=values["id"],
        root=values["root_id"],
        stats=values.get("stats") or {},
    )


def _rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch, or what is wrong with one: text that is no UTF-8, a date of no year."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for number in range(batch.num_rows):
            try:
                (row,) = batch.slice(number, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                row = str(error)[:80]
            yield row
