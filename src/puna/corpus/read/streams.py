"""Files as streams of expanded bytes that never raise for what is on disk: damage is a fact.

A stream that cannot go on ends there and says why (`damage`), so that what came before is kept.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from puna.corpus.read.expand import PORTION_BYTES, DamagedError, expander_of
from puna.corpus.read.members import GzipMembers
from puna.corpus.read.remote import is_remote, open_remote
from puna.corpus.read.units import Piece, Unread

MAX_RATIO = 500  # real text reaches about 100 where it repeats itself; gzip's own bound is 1,032
RATIO_COUNTS_FROM_BYTES = 64 << 20


class _Portions(io.RawIOBase):
    """What a file expands to, ended where it breaks."""

    def __init__(self, portions: Iterator[bytes], consumed: Callable[[], int] | None):
        self.expanded = 0
        self.damage = self.detail = ""
        self._portions = portions
        self._consumed = consumed
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._left:
            self._left = memoryview(self._next())
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        self.expanded += count
        return count

    def _next(self) -> bytes:
        if self.damage:
            return b""
        try:
            portion = next(self._portions, b"")
            bound = RATIO_COUNTS_FROM_BYTES
            if self._consumed is not None:
                bound = max(bound, MAX_RATIO * self._consumed())
        except DamagedError as error:
            self.damage, self.detail = str(error), error.detail
            return b""
        except OSError as error:
            self.damage, self.detail = "cannot be read", error.strerror or str(error)
            return b""
        if self._consumed is not None and self.expanded + len(portion) > bound:
            self.damage = f"expands to more than {MAX_RATIO} times its size"
            return b""
        return portion


class ByteStream:
    """The expanded bytes of a file, from a place on, or those of one of its members.

    Args:
        place: Of the file, as locators begin.
        file: It, opened.
        start: The byte to begin at; the file is not compressed if this is above 0.
        members: The place of the member that alone is read; None for the whole file.
    """

    def __init__(
        self, place: str, file: BinaryIO, start: int = 0, members: GzipMembers | None = None
    ):
        self.place, self.file = place, file
        self.offset = start
        self.compression = "gzip" if members else ""
        self._member_at = members.at if members else None
        if members is not None:
            begins = members.at
            portions = members.portions()
            self._portions = _Portions(portions, lambda: members.consumed - begins)
        else:
            self.compression, expand = expander_of(b"" if start else file.read(10))
            file.seek(start)
            self._portions = _Portions(expand(file), file.tell if self.compression else None)
        self._file = io.BufferedReader(self._portions, PORTION_BYTES)

    def locator(self, offset: int) -> str:
        """Where a byte is: by the place of its member where that is known, as indexes of crawls do.

        Args:
            offset: Of what the stream gives.
        """
        if self._member_at is None:
            return f"{self.place}@{offset}"
        inner = f"+{offset}" if offset else ""
        return f"{self.place}@{self._member_at}{inner}"

    @property
    def damage(self) -> Unread | None:
        """Why the stream has ended before the file does; None: it has not."""
        if not self._portions.damage:
            return None
        at = self._portions.expanded
        detail = f"after {at:,} bytes" + (" of expanded data" if self.compression else "")
        detail += f": {self._portions.detail}" if self._portions.detail else ""
        at = 0 if self._member_at is not None else at
        return Unread(self.locator(at), self._portions.damage, detail)

    def read(self, size: int) -> bytes:
        """The next bytes: fewer than `size` only at the end."""
        data = self._file.read(size)
        self.offset += len(data)
        return data

    def readline(self, size: int) -> bytes:
        """The next line with its end, or its first `size` bytes."""
        data = self._file.readline(size)
        self.offset += len(data)
        return data

    def skip(self, size: int) -> int:
        """Go on by `size` bytes; how many there were."""
        left = size
        while left and (data := self._file.read(min(left, PORTION_BYTES))):
            left -= len(data)
        self.offset += size - left
        return size - left

    def skip_line(self, stop: int | None = None) -> int:
        """Go behind the end of the line, or somewhere behind `stop`; how many bytes that were."""
        count = 0
        while (stop is None or self.offset < stop) and (data := self.readline(PORTION_BYTES)):
            count += len(data)
            if data.endswith(b"\n"):
                break
        return count


@contextlib.contextmanager
def open_piece(piece: Piece, start: int = 0) -> Iterator[ByteStream | Unread]:
    """The stream of a piece's file, or why there is none.

    A file that is not as it was when the work was planned is not read: its ranges would lose or
    double what has moved.
    """
    with contextlib.ExitStack() as stack:
        found: ByteStream | Unread
        try:
            found = ByteStream(piece.place, stack.enter_context(_open(piece)), start)
        except OSError as error:
            found = Unread(piece.place, "cannot be read", error.strerror or str(error))
        except ValueError as error:
            found = Unread(piece.place, str(error))
        yield found


def check_piece(piece: Piece) -> Unread | None:
    """Why a library must not be given this file to read; None: it may."""
    with open_piece(piece) as stream:
        return stream if isinstance(stream, Unread) else None


def _open(piece: Piece) -> BinaryIO:
    if is_remote(piece.path):
        return open_remote(piece)
    # O_NONBLOCK: opening a pipe that took a file's place must not wait for a writer.
    descriptor = os.open(piece.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    fault = ""
    if not stat.S_ISREG(status.st_mode):
        fault = "is no regular file"
    elif (status.st_size, status.st_mtime_ns) != (piece.size, piece.mtime_ns):
        fault = "has changed since the work was planned"
    if fault:
        os.close(descriptor)
        raise ValueError(fault)
    return cast(BinaryIO, os.fdopen(descriptor, "rb", buffering=0))


def byte_lines(
    stream: ByteStream, limit_bytes: int, stop: int | None = None
) -> Iterator[tuple[int, bytes] | Unread]:
    r"""The lines that begin before `stop`: where each begins, and its bytes without \n or \r\n.

    A line longer than `limit_bytes` is never in memory whole. Of a stream that breaks, the line
    that it breaks in is left out; the caller asks for `stream.damage` afterwards.
    """
    while stop is None or stream.offset < stop:
        at = stream.offset
        line = stream.readline(limit_bytes + 3)
        if not line:
            return
        ended = line.endswith(b"\n")
        if len(line.rstrip(b"\r\n")) > limit_bytes:
            size = len(line) + (0 if ended else stream.skip_line())
            reason = f"is longer than {size_in_words(limit_bytes)}"
            yield Unread(stream.locator(at), reason, f"a line of {size:,} bytes")
        elif ended or stream.damage is None:
            yield at, line.removesuffix(b"\n").removesuffix(b"\r")


def size_in_words(count: int) -> str:
    """A bound on bytes for a message: whole MiB where it is such."""
    whole, rest = divmod(count, 1 << 20)
    return f"{whole:,} MiB" if whole and not rest else f"{count:,} bytes"
