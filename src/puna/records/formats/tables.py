"""Tables as text: csv, and tsv without quotes; the first line names the columns."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from puna.errors import InputError
from puna.records.formats.content import MAX_LINE_BYTES, byte_lines
from puna.records.row import Quarantine, Row


class _Lines:
    """Lines for a csv reader, decoded so that a byte that is not UTF-8 stays recognisable."""

    def __init__(self, path: Path, quarantine: Quarantine):
        self._lines = byte_lines(path, quarantine)
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self.number = number
            yield line.decode(errors="surrogateescape") + "\n"


def read_csv(path: Path, quarantine: Quarantine, *, header: bool = True) -> Iterator[Row]:
    """The rows of a csv file (RFC 4180), with "," or, where the header has no comma, ";" or tab.

    Args:
        path: The file.
        quarantine: Takes rows with too many or too few fields, and such whose quotes are wrong.
        header: Whether the first line names the columns; otherwise they are "1", "2" ...

    Raises:
        InputError: The file cannot be read, or two columns have one name.
    """
    lines = _Lines(path, quarantine)
    source = iter(lines)
    first = next(source, None)
    if first is None:
        return
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(_again(first, source), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    while True:
        begins = lines.number + 1 if columns is not None or reader.line_num else 1
        try:
            fields = _next_record(reader)
        except csv.Error as error:
            if columns is None and header:
                raise InputError(f"is no csv: {error}", where=f"{path}:1") from error
            detail = f"{error}; lines {begins} to {lines.number}"
            quarantine.add(f"{path}:{begins}", "has quotes that do not match", detail)
            continue
        if fields is None:
            return
        if columns is None:
            columns = _columns(fields, header, path)
            if header:
                continue
        if fields and fields != [""]:
            yield from _row(columns, fields, f"{path}:{begins}", quarantine)


def read_tsv(path: Path, quarantine: Quarantine, *, header: bool = True) -> Iterator[Row]:
    """The rows of a tab-separated file: one per line, every character but the tab is text.

    That is the IANA's text/tab-separated-values, and what corpora use. A field that a table
    program has quoted (it begins and ends with a quote, and those inside are doubled) is unquoted.

    Args:
        path: The file.
        quarantine: Takes rows with too many or too few fields.
        header: Whether the first line names the columns; otherwise they are "1", "2" ...

    Raises:
        InputError: The file cannot be read, or two columns have one name.
    """
    columns: list[str] | None = None
    for number, line in byte_lines(path, quarantine):
        if not line.strip():
            continue
        text = line.decode(errors="surrogateescape")
        fields = [_unquoted(field) for field in text.split("\t")]
        if columns is None:
            columns = _columns(fields, header, path)
            if header:
                continue
        yield from _row(columns, fields, f"{path}:{number}", quarantine)


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _next_record(reader: Iterator[list[str]]) -> list[str] | None:
    """The next record; the bound on a field is the interpreter's, so it is lifted and put back."""
    before = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _columns(fields: Sequence[str], header: bool, path: Path) -> list[str]:
    if not header:
        return [str(number) for number in range(1, len(fields) + 1)]
    names = [field.strip() for field in fields]
    if any("\udc80" <= character <= "\udcff" for name in names for character in name):
        raise InputError(
            "the header holds bytes that are not UTF-8", where=f"{path}:1", fix="save it as UTF-8"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"two columns are called {twice[0]!r}",
            where=f"{path}:1",
            fix="give each column its own name; the first line must name the columns",
        )
    return names


def _row(
    columns: Sequence[str], fields: Sequence[str], locator: str, quarantine: Quarantine
) -> Iterator[Row]:
    if len(fields) == len(columns):
        yield Row(dict(zip(columns, fields, strict=True)), locator)
    else:
        detail = f"{len(fields)} fields, {len(columns)} columns"
        quarantine.add(locator, "has another number of fields than columns", detail)


def _unquoted(field: str) -> str:
    inner = field[1:-1]
    quoted = len(field) >= 2 and field[0] == field[-1] == '"' and '""' in inner
    return inner.replace('""', '"') if quoted and '"' not in inner.replace('""', "") else field
