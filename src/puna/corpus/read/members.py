"""Members of gzip files one by one: crawls have a record in each, so that one can begin at any.

Thereby a file is read in ranges, and damage costs the member that it is in, not what stands behind.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from puna.corpus.read.expand import PORTION_BYTES, DamagedError, words_of

_MAGIC = b"\x1f\x8b\x08"
_READ_BYTES = 64 << 10
_GZIP = zlib.MAX_WBITS | 16


class GzipMembers:
    """A place in a gzip file, which goes from member to member.

    Args:
        file: The file.
        at: Where to begin to look; a member begins there, or somewhere behind.
    """

    def __init__(self, file: BinaryIO, at: int):
        self._file = file
        self.at = at
        """Where the member begins that is to be read."""
        self._data = b""
        self._data_at = at
        file.seek(at)

    @property
    def consumed(self) -> int:
        """Bytes of the file up to which it has been read."""
        return self._data_at + len(self._data)

    def portions(self) -> Iterator[bytes]:
        """What the member at `at` expands to; `at` then is behind it, where the next may be.

        Raises:
            DamagedError: It is no sound gzip data, or ends too early; `at` is where it was.
        """
        self._go_to(self.at)
        member = zlib.decompressobj(_GZIP)
        data = self._data
        while not member.eof:
            if not data:
                data = self._read()
            if not data:
                raise DamagedError("ends in the middle of its gzip data")
            try:
                expanded = member.decompress(data, PORTION_BYTES)
            except zlib.error as error:
                raise DamagedError("is not sound gzip data", words_of(error)) from error
            data = member.unconsumed_tail
            if expanded:
                yield expanded
        left = member.unused_data
        self.at = self.consumed - len(left)
        self._data, self._data_at = left, self.at

    def is_member(self) -> bool:
        """Whether a member begins at `at`, or behind zeros that pad; `at` then is there."""
        self._go_to(self.at)
        while True:
            padding = len(self._data) - len(self._data.lstrip(b"\0"))
            self._go_to(self.at + padding)
            self.at = self._data_at
            if len(self._data) >= len(_MAGIC) or not self._more():
                return self._data.startswith(_MAGIC)

    def at_end(self) -> bool:
        """Whether nothing stands at `at` any more."""
        self._go_to(self.at)
        return not self._data and not self._more()

    def find(self, begins: bytes) -> bool:
        """Go to the next member, from `at` on, whose text begins so; whether there is one."""
        self._go_to(self.at)
        while True:
            place = self._data.find(_MAGIC)
            if place < 0:
                kept = len(_MAGIC) - 1
                self._go_to(self.consumed - min(kept, len(self._data)))
                if not self._more():
                    return False
                continue
            self._go_to(self._data_at + place)
            while len(self._data) < 1024 and self._more():
                pass
            if _begins(self._data[:1024], begins):
                self.at = self._data_at
                return True
            self._go_to(self._data_at + 1)

    def _go_to(self, at: int) -> None:
        inner = at - self._data_at
        if 0 <= inner <= len(self._data):
            self._data = self._data[inner:]
        else:
            self._file.seek(at)
            self._data = b""
        self._data_at = at

    def _more(self) -> bool:
        data = self._file.read(_READ_BYTES)
        self._data += data
        return bool(data)

    def _read(self) -> bytes:
        """The next bytes, of which only the place is kept."""
        self._data_at += len(self._data)
        self._data = self._file.read(_READ_BYTES)
        return self._data


def _begins(data: bytes, begins: bytes) -> bool:
    try:
        return zlib.decompressobj(_GZIP).decompress(data, len(begins)) == begins
    except zlib.error:
        return False
