"""Units of work of about one size: large files in parts, small ones together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import pyarrow as pa

from puna.corpus.read.find import Typed, find_pieces
from puna.corpus.read.parquet import row_group_bytes
from puna.corpus.read.streams import open_piece
from puna.corpus.read.units import Piece, ReadConfig, ReadUnit, Unread
from puna.errors import InputError

UNIT_BYTES = 8 << 20
_FILE_COSTS_BYTES = 4 << 10  # opening one: so that a unit of empty files has an end


def plan_units(source: str, config: ReadConfig, unit_bytes: int = UNIT_BYTES) -> list[ReadUnit]:
    """All that is to be read of a source, in units of about `unit_bytes` on disk.

    The same files give the same units; how they are cut does not change which documents are found,
    nor where they say they were.

    Args:
        source: Name of the source.
        config: What it is.
        unit_bytes: JSON lines, lines of text, WARC in gzip and parquet are read in ranges of about
            this size; of other formats a file is one unit at least. Small files share a unit.

    Raises:
        InputError: See `find_pieces`; or rows are to be read in UTF-16 or UTF-32.
    """
    # By format first: files of two formats may lie by turns.
    typed_pieces = sorted(find_pieces(config), key=lambda typed: typed[0])
    _refuse_wide(typed_pieces, config)
    parts = (part for typed in typed_pieces for part in _parts(typed, config, unit_bytes))
    return [
        ReadUnit(source, group[0][0], tuple(piece for _, piece in group))
        for group in _groups(parts, unit_bytes)
    ]


def _refuse_wide(typed_pieces: Iterable[Typed], config: ReadConfig) -> None:
    """Rows and lines end at a byte, which those of UTF-16 and UTF-32 do not."""
    if config.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32", "utf16", "utf32")):
        for format, piece in typed_pieces:
            if format in ("jsonl", "csv", "tsv") or (format == "text" and config.by_line):
                raise InputError(
                    f"rows and lines are not read in {config.encoding}",
                    where=piece.place,
                    fix=f"iconv -f {config.encoding} -t UTF-8, and leave `encoding` out",
                )


def _groups(parts: Iterable[Typed], unit_bytes: int) -> Iterator[list[Typed]]:
    group: list[Typed] = []
    size = 0
    for format, piece in parts:
        cost = _cost(piece)
        if group and (format != group[0][0] or size + cost > unit_bytes):
            yield group
            group, size = [], 0
        group.append((format, piece))
        size += cost
    if group:
        yield group


def _cost(piece: Piece) -> int:
    """Bytes; of a part of a file those of all of it, so that it is a unit of its own."""
    return max(piece.size, _FILE_COSTS_BYTES)


def _parts(typed: Typed, config: ReadConfig, unit_bytes: int) -> Iterator[Typed]:
    format, piece = typed
    crawl = format in ("warc", "wet")
    lines = format == "jsonl" or (format == "text" and config.by_line)
    if piece.size <= unit_bytes or piece.skip:
        yield typed
    elif (lines and _compression(piece) == "") or (crawl and _compression(piece) == "gzip"):
        count = -(-piece.size // unit_bytes)
        cuts = [piece.size * number // count for number in range(count)]
        for start, stop in zip(cuts, [*cuts[1:], None], strict=True):
            yield format, dataclasses.replace(piece, start=start, stop=stop)
    elif format in ("parquet", "corpus"):
        for start, stop in _row_groups(piece, unit_bytes):
            yield format, dataclasses.replace(piece, start=start, stop=stop)
    else:
        yield typed


def _compression(piece: Piece) -> str | None:
    with open_piece(piece) as stream:
        return None if isinstance(stream, Unread) else stream.compression


def _row_groups(piece: Piece, unit_bytes: int) -> Iterator[tuple[int, int | None]]:
    """Ranges of row groups; a file that is damaged is one, and tells so when it is read."""
    try:
        sizes = row_group_bytes(piece)
    except (OSError, ValueError, pa.ArrowException):
        sizes = []
    start = size = 0
    for number, bytes_here in enumerate(sizes):
        if number > start and size + bytes_here > unit_bytes:
            yield start, number
            start, size = number, 0
        size += bytes_here
    yield start, None
