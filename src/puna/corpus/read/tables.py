"""Tables as text, CSV and TSV: a row is a document, and a bad byte loses its own row only."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence

from puna.corpus.read.rows import NOT_DECODED, Read, damaged_end, fits_utf8, row_document
from puna.corpus.read.streams import ByteStream, byte_lines, open_piece
from puna.corpus.read.units import Piece, ReadConfig, Unread
from puna.corpus.schema import Found


def read_csv(piece: Piece, config: ReadConfig) -> Read:
    """Documents of a CSV file (RFC 4180) with a header; its mark is "," or, without one, ";".

    Its rows may have several lines, so a file is never read in ranges.
    """
    with open_piece(piece) as stream:
        if isinstance(stream, Unread):
            yield stream
            return
        lines = _Lines(stream, config)
        yield from _read_csv(lines, piece, config)
        yield from lines.faults
        yield from damaged_end(stream)


def read_tsv(piece: Piece, config: ReadConfig) -> Read:
    """Documents of a tab-separated file with a header: a row per line, quotes are text."""
    with open_piece(piece) as stream:
        if isinstance(stream, Unread):
            yield stream
            return
        lines = _Lines(stream, config)
        columns: list[str] | None = None
        for line in lines:
            yield from lines.taken_faults()
            if not line.strip():
                continue
            fields = line.removesuffix("\n").split("\t")
            if columns is None:
                columns = [name.strip() for name in fields]
                fault = _header_fault(columns, piece, config)
                if fault:
                    yield fault
                    return
                continue
            yield _document(columns, fields, f"{piece.place}:{lines.number}", config)
        yield from lines.taken_faults()
        yield from damaged_end(stream)


class _Lines:
    """Lines as text for a parser, with the number of the last one; faults are put aside."""

    def __init__(self, stream: ByteStream, config: ReadConfig):
        self._lines = byte_lines(stream, config.max_document_bytes)
        self._codec = "utf-8" if config.encoding == "auto" else config.encoding
        self._place = stream.place
        self.number = 0
        self.faults: list[Unread] = []
        self.longest = config.max_document_bytes

    def __iter__(self) -> Iterator[str]:
        for found in self._lines:
            self.number += 1
            if isinstance(found, Unread):
                self.faults.append(found)
                continue
            line = found[1]
            if self.number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                yield line.decode(self._codec, "surrogateescape") + "\n"
            except UnicodeError:  # some codecs refuse to spell out what they cannot read
                self.faults.append(Unread(f"{self._place}:{self.number}", NOT_DECODED))

    def taken_faults(self) -> list[Unread]:
        """The faults since the last call."""
        taken, self.faults = self.faults, []
        return taken


def _read_csv(lines: _Lines, piece: Piece, config: ReadConfig) -> Read:
    source = iter(lines)
    first = next(source, None)
    yield from lines.taken_faults()
    if first is None:
        return
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(_again(first, source), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    while True:
        begins = lines.number + 1 if columns is not None else 1
        locator = f"{piece.place}:{begins}"
        try:
            fields = _next_record(reader, lines.longest)
        except csv.Error as error:
            detail = f"{error}; lines {begins} to {lines.number}"
            yield Unread(locator, "has quotes that do not match", detail)
            if columns is None:
                return
            continue
        yield from lines.taken_faults()
        if fields is None:
            return
        if columns is None:
            columns = [name.strip() for name in fields]
            fault = _header_fault(columns, piece, config)
            if fault:
                yield fault
                return
        elif fields and fields != [""]:
            yield _document(columns, fields, locator, config)


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _next_record(reader: Iterator[list[str]], longest: int) -> list[str] | None:
    """The next record; the bound on a field is the interpreter's, so it is lifted and put back."""
    before = csv.field_size_limit(longest)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _header_fault(columns: Sequence[str], piece: Piece, config: ReadConfig) -> Unread | None:
    """Why the rest of a file with this header cannot be used."""
    locator = f"{piece.place}:1"
    if config.text not in columns:
        names = ", ".join(ascii(name[:40]) for name in columns[:12])
        return Unread(locator, f"has no column {config.text!r}", f"there are {names}")
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        return Unread(locator, "two columns have one name", ascii(twice[0])[:60])
    return None


def _document(
    columns: Sequence[str], fields: Sequence[str], locator: str, config: ReadConfig
) -> Found | Unread:
    if len(fields) != len(columns):
        detail = f"{len(fields)} fields, {len(columns)} columns"
        return Unread(locator, "has another number of fields than columns", detail)
    for name, value in zip(columns, fields, strict=True):
        if not fits_utf8(value):
            return Unread(locator, NOT_DECODED, f"column {ascii(name)[:60]}")
    return row_document(dict(zip(columns, fields, strict=True)), locator, config)
