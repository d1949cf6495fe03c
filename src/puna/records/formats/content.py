"""Bytes of a file, plain or gzipped: line by line, or whole, with bounds on both."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from puna.errors import InputError
from puna.records.row import Quarantine

MAX_LINE_BYTES = 64 << 20
MAX_WHOLE_BYTES = 1 << 30
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def is_zipped(path: Path) -> bool:
    """Whether a file's name says that it is gzipped."""
    return path.suffix.lower() == ".gz"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; one whose name ends in .gz is decompressed.

    Raises:
        InputError: The file cannot be read, or its compression is damaged.
    """
    again = "fetch or compress the file again"
    try:
        with gzip.open(path) if is_zipped(path) else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except FileNotFoundError as error:
        raise InputError("does not exist", where=path, fix="check the spelling") from error
    except EOFError as error:
        raise InputError("ends in the middle of its gzip data", where=path, fix=again) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"is not sound gzip data: {error}", where=path, fix=again) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=path) from error


def byte_lines(path: Path, quarantine: Quarantine) -> Iterator[tuple[int, bytes]]:
    r"""The lines of a file with their numbers from 1, without their ends (\n or \r\n).

    Only \n ends a line: the other separators of Unicode may stand inside of text. A line above
    MAX_LINE_BYTES goes to the quarantine, so that a small compressed file cannot fill the memory.

    Raises:
        InputError: The file cannot be read, or begins with the mark of UTF-16 or UTF-32.
    """
    with opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if number == 1:
                line = without_mark(line, path)
            if not line.endswith(b"\n") and len(line) >= MAX_LINE_BYTES - 3:
                longer = False
                while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    longer = True
                if longer or rest:
                    limit = f"a line is longer than {MAX_LINE_BYTES >> 20} MiB"
                    quarantine.add(f"{path}:{number}", limit)
                    continue
            yield number, line.removesuffix(b"\n").removesuffix(b"\r")


def text_lines(path: Path, quarantine: Quarantine) -> Iterator[tuple[int, str]]:
    """The lines of a file as text with their numbers; one that is not UTF-8 is quarantined.

    Raises:
        InputError: As in `byte_lines`.
    """
    for number, line in byte_lines(path, quarantine):
        try:
            yield number, line.decode()
        except UnicodeDecodeError as error:
            detail = f"byte {error.start + 1} of the line"
            quarantine.add(f"{path}:{number}", "holds bytes that are not UTF-8", detail)


def whole(path: Path) -> bytes:
    """All bytes of a file, without a byte order mark.

    Raises:
        InputError: The file cannot be read or holds more than MAX_WHOLE_BYTES.
    """
    with opened(path) as file:
        data = file.read(MAX_WHOLE_BYTES + 1)
    if len(data) > MAX_WHOLE_BYTES:
        raise InputError(
            f"holds more than {MAX_WHOLE_BYTES >> 30} GiB, and this format is read whole",
            where=path,
            fix="save it as .jsonl, which is read line by line",
        )
    return data


def without_mark(data: bytes, path: Path) -> bytes:
    """`data` without the byte order mark of UTF-8.

    Raises:
        InputError: It begins with the mark of another encoding.
    """
    for mark, name in _OTHER_MARKS.items():
        if data.startswith(mark):
            raise InputError(
                f"is {name}, not UTF-8",
                where=path,
                fix=f"iconv -f {name} -t UTF-8 {path} > NEW_FILE",
            )
    return data.removeprefix(codecs.BOM_UTF8)
