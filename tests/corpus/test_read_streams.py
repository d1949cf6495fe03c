from __future__ import annotations

import bz2
import gzip
import importlib.util
import lzma
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.read import streams
from puna.corpus.read.streams import ByteStream, byte_lines, open_piece
from puna.corpus.read.units import Unread, piece_of


def zstd(data: bytes) -> bytes:
    return importlib.import_module("zstandard").ZstdCompressor().compress(data)


has_zstd = pytest.mark.skipif(
    importlib.util.find_spec("zstandard") is None, reason="zstandard is not installed"
)
COMPRESSIONS = [
    pytest.param(gzip.compress, "gzip", id="gzip"),
    pytest.param(bz2.compress, "bzip2", id="bzip2"),
    pytest.param(lzma.compress, "xz", id="xz"),
    pytest.param(zstd, "zstd", id="zstd", marks=has_zstd),
]
Compress = Callable[[bytes], bytes]


def expand(path: Path) -> tuple[bytes, Unread | None]:
    with open_piece(piece_of(path)) as stream:
        assert isinstance(stream, ByteStream)
        parts = []
        while part := stream.read(100_000):
            parts.append(part)
        return b"".join(parts), stream.damage


def noise(size: int) -> bytes:
    return random.Random(0).randbytes(size)


@pytest.mark.parametrize(("compress", "name"), COMPRESSIONS)
def test_members_in_a_row_are_one_stream(tmp_path: Path, compress: Compress, name: str) -> None:
    path, first, second = tmp_path / "named-as-if-plain.txt", noise(300_000), b"more\n" * 1000
    path.write_bytes(compress(first) + compress(second) + compress(b""))
    with open_piece(piece_of(path)) as stream:
        assert isinstance(stream, ByteStream)
        assert stream.compression == name
    assert expand(path) == (first + second, None)


@pytest.mark.parametrize(("compress", "name"), COMPRESSIONS)
def test_what_stands_before_a_cut_is_kept(tmp_path: Path, compress: Compress, name: str) -> None:
    whole = noise(5000) + b"x" * 50_000 + noise(5000)
    packed, path = compress(whole), tmp_path / "file"
    for size in range(20, len(packed), 997):
        path.write_bytes(packed[:size])
        data, damage = expand(path)
        assert whole.startswith(data)
        assert damage is not None
        assert damage.reason == f"ends in the middle of its {name} data"
        assert damage.locator == f"{path}@{len(data)}"


def test_a_cut_loses_no_more_than_the_library_has_not_expanded(tmp_path: Path) -> None:
    whole, path = noise(1_000_000), tmp_path / "file.gz"
    packed = gzip.compress(whole)
    path.write_bytes(packed[: len(packed) // 2])
    reference = zlib.decompressobj(31).decompress(packed[: len(packed) // 2])
    assert expand(path)[0] == reference


@pytest.mark.parametrize(("compress", "name"), COMPRESSIONS)
def test_a_changed_byte_is_damage_or_nothing(tmp_path: Path, compress: Compress, name: str) -> None:
    whole = noise(20_000)
    packed, path = compress(whole), tmp_path / "file"
    broken = bytearray(packed)
    broken[len(packed) // 2] ^= 255
    path.write_bytes(bytes(broken))
    data, damage = expand(path)
    assert damage is not None or (name == "zstd" and len(data) == len(whole))
    assert damage is None or damage.reason.startswith(f"is not sound {name} data")


def test_zeros_pad_and_other_bytes_are_told(tmp_path: Path) -> None:
    path, packed = tmp_path / "file.gz", gzip.compress(b"text")
    path.write_bytes(packed + bytes(1000))
    assert expand(path) == (b"text", None)
    path.write_bytes(packed + b"rest")
    data, damage = expand(path)
    assert data == b"text"
    assert damage is not None
    assert damage.reason == "holds other bytes behind its compressed data"


@pytest.mark.parametrize(("compress", "name"), COMPRESSIONS)
def test_a_bomb_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: Compress, name: str
) -> None:
    monkeypatch.setattr(streams, "RATIO_COUNTS_FROM_BYTES", 2 << 20)
    path = tmp_path / "bomb"
    path.write_bytes(compress(bytes(6 << 20)))
    size = 0
    with open_piece(piece_of(path)) as stream:
        assert isinstance(stream, ByteStream)
        while part := stream.read(1 << 20):
            size += len(part)
        assert stream.damage is not None
        assert stream.damage.reason == "expands to more than 500 times its size"
    assert size <= max(2 << 20, 500 * path.stat().st_size)


def test_a_file_that_is_not_as_it_was_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    piece = piece_of(path)
    path.write_text("another")
    assert fault_of(piece) == "has changed since the work was planned"
    path.unlink()
    assert fault_of(piece) == "cannot be read"
    path.mkdir()
    assert fault_of(piece) == "is no regular file"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert fault_of(piece_of(path)) == "is no regular file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    path.chmod(0)
    assert fault_of(piece_of(path)) == "cannot be read"


def fault_of(piece: object) -> str:
    with open_piece(piece) as stream:  # type: ignore[arg-type]
        assert isinstance(stream, Unread)
        return stream.reason


def lines_of(path: Path, limit: int) -> list[tuple[int, bytes] | str]:
    with open_piece(piece_of(path)) as stream:
        assert isinstance(stream, ByteStream)
        found = list(byte_lines(stream, limit))
        return [f"{one.locator} {one.detail}" if isinstance(one, Unread) else one for one in found]


@given(st.binary(max_size=200).map(lambda data: data.replace(b"\0", b"\n")))
def test_lines_are_those_that_split_gives(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines"
    path.write_bytes(data)
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    if data[:2] in (b"\x1f\x8b", b"BZ"):
        return
    found = lines_of(path, 1000)
    assert [line for _, line in found] == [line.removesuffix(b"\r") for line in expected]
    assert all(data[at:].startswith(line) for at, line in found)


def test_a_line_above_the_bound_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a" * 10 + b"\r\n" + b"b" * 11 + b"\n" + b"c" * 3_000_000 + b"\nd\n")
    assert lines_of(path, 10) == [
        (0, b"a" * 10),
        f"{path}@12 a line of 12 bytes",
        f"{path}@24 a line of 3,000,001 bytes",
        (3_000_025, b"d"),
    ]


def test_the_line_that_a_file_breaks_in_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines.gz"
    packed = gzip.compress(b"".join(noise(500).hex().encode() + b"\n" for _ in range(3000)))
    path.write_bytes(packed[:-2000])
    with open_piece(piece_of(path)) as stream:
        assert isinstance(stream, ByteStream)
        found = list(byte_lines(stream, 10_000))
        assert stream.damage is not None
    assert {len(line) for _, line in found} == {1000}  # type: ignore[misc]
