"""Decompression in small portions, so that neither damage nor a bomb costs more than itself.

The libraries' own file objects drop what they had expanded when the data end too early (gzip, bz2)
or do not say that they did (zstandard); here every byte before the damage comes out first.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from puna.errors import require

PORTION_BYTES = 256 << 10
# zstd has no bound on its output; a block of 128 KiB takes at least four bytes of input.
_ZSTD_INPUT_BYTES = 2 << 10

Expander = Callable[[BinaryIO], Iterator[bytes]]


class DamagedError(Exception):
    """Compressed data that go no further.

    Args:
        reason: One of few sentences.
        detail: The library's own words.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.detail = detail


def expander_of(head: bytes) -> tuple[str, Expander]:
    """How to expand a file that begins so, and the name of its compression ("" for none).

    Args:
        head: The first ten bytes; names lie more often than bytes do.
    """
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip", _gzip
    if head.startswith(b"\x28\xb5\x2f\xfd") or re.match(rb"[\x50-\x5f]\x2a\x4d\x18", head):
        return "zstd", _zstd
    if re.match(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", head):
        return "bzip2", _bzip2
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz", _xz
    return "", _plain


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(PORTION_BYTES):
        yield data


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    data = file.read(PORTION_BYTES)
    while data:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not member.eof:
            data = data or _more(file, "gzip")
            try:
                expanded = member.decompress(data, PORTION_BYTES)
            except zlib.error as error:
                raise DamagedError("is not sound gzip data", words_of(error)) from error
            data = member.unconsumed_tail
            if expanded:
                yield expanded
        data = _next_member(file, member.unused_data, b"\x1f\x8b")


def _bzip2(file: BinaryIO) -> Iterator[bytes]:
    return _members(file, bz2.BZ2Decompressor, "bzip2", b"BZh")


def _xz(file: BinaryIO) -> Iterator[bytes]:
    def begin() -> Any:
        return lzma.LZMADecompressor(memlimit=256 << 20)

    return _members(file, begin, "xz", b"\xfd7zXZ")


def _members(file: BinaryIO, begin: Callable[[], Any], name: str, magic: bytes) -> Iterator[bytes]:
    data = file.read(PORTION_BYTES)
    while data:
        member = begin()
        while not member.eof:
            if member.needs_input and not data:
                data = _more(file, name)
            try:
                expanded = member.decompress(data, PORTION_BYTES)
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                raise DamagedError(f"is not sound {name} data", words_of(error)) from error
            data = b""
            if expanded:
                yield expanded
        data = _next_member(file, member.unused_data, magic)


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    zstandard: Any = require("zstandard", extra="corpus", purpose="reading zstd")
    whole = zstandard.ZstdDecompressor()
    data = file.read(_ZSTD_INPUT_BYTES)
    while data:
        member = whole.decompressobj(write_size=PORTION_BYTES // 4)
        while not member.eof:
            data = data or _more(file, "zstd", _ZSTD_INPUT_BYTES)
            try:
                expanded = member.decompress(data)
            except zstandard.ZstdError as error:
                raise DamagedError("is not sound zstd data", words_of(error)) from error
            data = b""
            if expanded:
                yield expanded
        data = member.unused_data or file.read(_ZSTD_INPUT_BYTES)


def _more(file: BinaryIO, name: str, size: int = PORTION_BYTES) -> bytes:
    data = file.read(size)
    if not data:
        raise DamagedError(f"ends in the middle of its {name} data")
    return data


def _next_member(file: BinaryIO, left: bytes, magic: bytes) -> bytes:
    """What follows a member: another one, or padding of zeros; anything else is damage."""
    while True:
        data = left.lstrip(b"\0")
        if len(data) < len(magic):
            more = file.read(PORTION_BYTES)
            if more:
                left = data + more
                continue
        if data and not data.startswith(magic):
            raise DamagedError("holds other bytes behind its compressed data")
        return data


def words_of(error: Exception) -> str:
    """What a library says, or what its error is called where it says nothing."""
    return str(error).strip().rstrip(".") or type(error).__name__
