"""Documents to be learnt whole: a row each, or of plain text a file or a paragraph each."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from puna.errors import InputError
from puna.records.formats.content import MAX_LINE_BYTES, byte_lines, whole, without_mark
from puna.records.row import Quarantine, Row, sound_rows
from puna.records.rows import Format, format_of, read_rows

Unit = Literal["row", "file", "paragraphs"]

_NOT_UTF8 = "holds bytes that are not UTF-8"


def read_documents(
    files: Iterable[Path],
    *,
    quarantine: Quarantine,
    unit: Unit = "row",
    format: Format | Literal["auto"] = "auto",
    header: bool = True,
) -> Iterator[Row]:
    """The documents of files, one file after the other, read lazily.

    Args:
        files: The files; `find_files` finds them.
        quarantine: Takes every document that cannot be used, with its place and the reason.
        unit: What a document is: a row, as `read_rows` reads it (of plain text, a line); or, of
            plain text only, a whole file, or a paragraph: lines up to a blank one. The column of
            the latter two is `text`, and their lines end in a line feed alone.
        format: What the files are; `auto` goes by each one's suffix.
        header: Whether the first line of a csv or tsv file names the columns.

    Raises:
        InputError: A file is missing, has an unknown suffix, is damaged as a whole, or is no plain
            text where that is asked for.
        MissingPackageError: A format needs a package that is not installed.
    """
    if unit == "row":
        yield from read_rows(files, quarantine=quarantine, format=format, header=header)
        return
    for path in files:
        kind = format_of(path) if format == "auto" else format
        if kind != "txt":
            what = "of an unknown format" if kind is None else kind
            raise InputError(
                f"is {what}, and documents of the unit {unit!r} are read of plain text only",
                where=path,
                fix="take its rows (documents: row); or, where it is plain text, set format: txt",
            )
        rows = _whole(path, quarantine) if unit == "file" else _paragraphs(path, quarantine)
        yield from sound_rows(rows, quarantine)


def text_key(text: str) -> bytes:
    """16 bytes that texts share if they differ only in what makes no difference.

    That is what `puna.records.normalised` leaves out: compatibility forms, case, kinds of space.
    """
    return hashlib.blake2b(plain_words(text).encode(), digest_size=16).digest()


def plain_words(text: str) -> str:
    """The same as `puna.records.normalised`, by calls that a long text can bear."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _whole(path: Path, quarantine: Quarantine) -> Iterator[Row]:
    locator = f"{path}:1"
    try:
        text = without_mark(whole(path), path).decode()
    except UnicodeDecodeError as error:
        quarantine.add(locator, _NOT_UTF8, f"byte {error.start + 1} of the file")
        return
    if text.strip():
        yield Row({"text": text.replace("\r\n", "\n")}, locator)
    else:
        quarantine.add(locator, "is empty")


def _paragraphs(path: Path, quarantine: Quarantine) -> Iterator[Row]:
    lines: list[bytes] = []
    first = size = 0
    for number, line in byte_lines(path, quarantine):
        if line.strip():
            if not lines:
                first, size = number, 0
            size += len(line) + 1
            lines.append(line)
            if size > MAX_LINE_BYTES:
                del lines[1:]  # it is too long to be used: no more is kept than says that it is on
        elif lines:
            yield from _paragraph(lines, size, f"{path}:{first}", quarantine)
            lines = []
    if lines:
        yield from _paragraph(lines, size, f"{path}:{first}", quarantine)


def _paragraph(
    lines: list[bytes], size: int, locator: str, quarantine: Quarantine
) -> Iterator[Row]:
    if size > MAX_LINE_BYTES:
        quarantine.add(locator, f"a paragraph is longer than {MAX_LINE_BYTES >> 20} MiB")
        return
    try:
        yield Row({"text": b"\n".join(lines).decode()}, locator)
    except UnicodeDecodeError as error:
        quarantine.add(locator, _NOT_UTF8, f"byte {error.start + 1} of the paragraph")
