"""Rows of files in any format, by the name of the file or as the caller says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from puna.errors import InputError
from puna.records.formats.gettext import read_mo, read_po
from puna.records.formats.json_rows import read_json, read_jsonl
from puna.records.formats.parquet import read_parquet
from puna.records.formats.plain import read_txt
from puna.records.formats.tables import read_csv, read_tsv
from puna.records.row import Quarantine, Row, sample_rows, sound_rows

Format = Literal["json", "jsonl", "csv", "tsv", "parquet", "txt", "po", "mo"]
FORMATS: tuple[Format, ...] = ("json", "jsonl", "csv", "tsv", "parquet", "txt", "po", "mo")
SUFFIXES = tuple(f".{name}" for name in (*FORMATS, "ndjson"))


def format_of(path: Path) -> Format | None:
    """The format that a file's name tells, `.gz` or not; None for an unknown suffix."""
    name = path.name.lower().removesuffix(".gz")
    suffix = name.rpartition(".")[2] if "." in name else ""
    if suffix == "ndjson":
        return "jsonl"
    return next((known for known in FORMATS if known == suffix), None)


def read_rows(
    files: Iterable[Path],
    *,
    quarantine: Quarantine,
    format: Format | Literal["auto"] = "auto",
    header: bool = True,
) -> Iterator[Row]:
    """The rows of files, one file after the other, read lazily.

    Args:
        files: The files; `find_files` finds them.
        quarantine: Takes every row that cannot be used, with its line and the reason.
        format: What the files are; `auto` goes by each one's suffix.
        header: Whether the first line of a csv or tsv file names the columns; where it does not,
            they are called "1", "2" ...

    Raises:
        InputError: A file is missing, has an unknown suffix, or is damaged as a whole.
        MissingPackageError: A format needs a package that is not installed.
    """
    for path in files:
        kind = format_of(path) if format == "auto" else format
        if kind is None:
            raise InputError(
                f"has a suffix that tells no format; known are {', '.join(SUFFIXES)} (and .gz)",
                where=path,
                fix=f"say which it is (format: {FORMATS[0]} ... {FORMATS[-1]}), or name the files",
            )
        yield from sound_rows(_read(path, kind, header, quarantine), quarantine)


def _read(path: Path, kind: Format, header: bool, quarantine: Quarantine) -> Iterator[Row]:
    if kind == "csv":
        return read_csv(path, quarantine, header=header)
    if kind == "tsv":
        return read_tsv(path, quarantine, header=header)
    readers = {
        "json": read_json,
        "jsonl": read_jsonl,
        "parquet": read_parquet,
        "txt": read_txt,
        "po": read_po,
        "mo": read_mo,
    }
    return readers[kind](path, quarantine)


__all__ = [
    "FORMATS",
    "SUFFIXES",
    "Format",
    "Quarantine",
    "Row",
    "format_of",
    "read_rows",
    "sample_rows",
]
