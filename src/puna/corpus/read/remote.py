"""Files in object stores and on the web, through fsspec: `s3://`, `gs://`, `hf://`, `https://`.

What a store needs beside fsspec (s3fs, gcsfs, huggingface_hub ...) it names itself when it is
missing; keys and tokens are where these libraries look for them, never in a recipe.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from puna.corpus.read.units import Piece
from puna.errors import InputError, require

_MAGIC = re.compile(r"[*?\[]")
_CHANGED = ("mtime", "LastModified", "last_modified", "updated", "last_commit")
_MARKS = ("ETag", "etag", "md5Hash", "blob_id", "sha256")
_NANOSECONDS = 10**9


def is_remote(name: str) -> bool:
    """Whether a name is an address and no path."""
    return "://" in name


def find_remote(name: str) -> tuple[list[Piece], bool]:
    """The files at an address, sorted, and whether they are what a folder holds.

    Args:
        name: Of a file, a folder or a glob, with its protocol.

    Raises:
        MissingPackageError: fsspec is not installed.
        InputError: There is no such store or file, or it cannot be looked at.
    """
    with _told(name):
        system, path = _system(name)
        if _MAGIC.search(path):
            found = system.glob(path, detail=True)
            files = {place: info for place, info in found.items() if info["type"] == "file"}
            return [_piece(system, place, files[place]) for place in sorted(files)], False
        if system.isdir(path):
            found = system.find(path, detail=True)
            return [_piece(system, place, found[place]) for place in sorted(found)], True
        return [_piece(system, path, system.info(path))], False


def open_remote(piece: Piece) -> BinaryIO:
    """A file, to read and to seek in.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not as it was when the work was planned.
    """
    try:
        system, path = _system(piece.path)
        now = _piece(system, path, system.info(path))
        file = system.open(path, "rb")
    except InputError as error:
        raise OSError(str(error)) from error
    except Exception as error:  # each store has its own
        raise OSError(_words(error)) from error
    if (now.size, now.mtime_ns) != (piece.size, piece.mtime_ns):
        file.close()
        raise ValueError("has changed since the work was planned")
    return cast(BinaryIO, _File(file))


class _File:
    """A file of a store, whose faults are those of files."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        try:
            found: bytes = self._file.read(size)
        except Exception as error:  # each store has its own
            raise OSError(_words(error)) from error
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *told: object) -> None:
        self.close()


def _system(name: str) -> tuple[Any, str]:
    library: Any = require("fsspec", extra="remote", purpose=f"reading {name}")
    system, path = library.core.url_to_fs(name)
    return system, path


def _piece(system: Any, path: str, info: Mapping[str, Any]) -> Piece:
    size = info.get("size")
    place = str(system.unstrip_protocol(path))
    return Piece(place, -1 if size is None else int(size), _stamp(info))


def _stamp(info: Mapping[str, Any]) -> int:
    """By what a store says, whether a file is another one: when it was changed, or a mark."""
    for key in _CHANGED:
        value = info.get(key)
        if isinstance(value, datetime.datetime):
            return int(value.timestamp() * _NANOSECONDS)
        if isinstance(value, int | float):
            return int(value * _NANOSECONDS)
    said = next((str(info[key]) for key in _MARKS if info.get(key)), "")
    return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=7).digest(), "big")


def is_hidden(piece: Piece, name: str) -> bool:
    """Whether a file below an address is one that starts with a dot, or lies in such a folder."""
    shown = name.count("/")
    parts = PurePosixPath(piece.path).parts
    return any(part.startswith(".") for part in parts[min(shown, len(parts) - 1) :])


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever a store raises as an error of the one who named it."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError("does not exist", where=name) from error
    except Exception as error:  # each store has its own
        raise InputError(f"cannot be looked at: {_words(error)}", where=name) from error


def _words(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0][:300]
    return said or type(error).__name__
