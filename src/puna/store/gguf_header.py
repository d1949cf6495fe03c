"""Parsing the header of a GGUF file, with every count and length bounded by the file.

The format is ggml's (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): a magic number,
metadata, descriptions of tensors, padding, data. Versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from puna.errors import InputError

MAX_KEY_BYTES: Final = 65_535  # the specification's bound
MAX_ARRAY: Final = 1 << 24  # elements; the largest vocabularies have 2^18
MAX_STRING_BYTES: Final = 1 << 26
MAX_NESTING: Final = 4
MAX_DIMENSIONS: Final = 4
MAX_ELEMENTS: Final = 1 << 60
DEFAULT_ALIGNMENT: Final = 32

STRING, ARRAY = 8, 9
# By number: struct's letter of a scalar type.
SCALARS: Mapping[int, str] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
# By number: name, elements per block, bytes per block. No size: known, but not read by puna.
TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    30: ("BF16", 1, 2),
}
UNREAD_TYPES: Mapping[int, str] = {
    9: "Q8_1",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a GGUF file; `start` counts bytes from the start of the file."""

    name: str
    stored: str
    shape: tuple[int, ...]  # row-major: the reverse of the order in the file
    start: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """Everything of a GGUF file but the values."""

    version: int
    metadata: Mapping[str, Any]  # plain Python values; arrays are lists
    tensors: tuple[TensorInfo, ...]  # in file order


def parse_gguf(data: bytes | mmap.mmap, nbytes: int, where: Path | str) -> Header:
    """Parse and check a header.

    Args:
        data: The file from its first byte on; only the header is touched.
        nbytes: The size of the whole file in bytes.
        where: The file, for messages.

    Raises:
        InputError: The header is damaged, truncated, big-endian, or of an unknown version.
    """
    reader = _Reader(data, nbytes, where)
    version = _version(reader)
    n_tensors = reader.count(24, "tensors")
    n_keys = reader.count(13, "metadata keys")
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = reader.string("a metadata key", MAX_KEY_BYTES)
        if key in metadata:
            raise reader.broken(f"has the metadata key {key!r} twice")
        metadata[key] = reader.value(key, reader.scalar("I", key), 0)
    rows = [_tensor_row(reader) for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise reader.broken(f"general.alignment is {str(alignment)[:40]}, not a power of two")
    first = -(-reader.position // alignment) * alignment
    tensors = tuple(_place(row, first, alignment, reader) for row in rows)
    _check_layout(tensors, reader)
    return Header(version, metadata, tensors)


class _Reader:
    """A position in the header, and reads that never pass the end of the file."""

    def __init__(self, data: bytes | mmap.mmap, nbytes: int, where: Path | str):
        self.data, self.nbytes, self.where = data, nbytes, where
        self.position = 0

    def broken(self, what: str) -> InputError:
        return InputError(what, where=self.where, fix="the file is damaged, or no GGUF file")

    def need(self, nbytes: int, what: str) -> None:
        left = self.nbytes - self.position
        if nbytes > left:
            raise InputError(
                f"{what}: expected {nbytes} more bytes at byte {self.position}, found {left}",
                where=self.where,
                fix="the file is cut short or damaged; fetch it again",
            )

    def scalar(self, letter: str, what: str) -> Any:
        size = struct.calcsize("<" + letter)
        self.need(size, what)
        (value,) = struct.unpack_from("<" + letter, self.data, self.position)
        self.position += size
        return value

    def count(self, least_bytes: int, what: str) -> int:
        """A count of things that take at least `least_bytes` each, so it bounds itself."""
        count = int(self.scalar("Q", f"the number of {what}"))
        self.need(count * least_bytes, f"{count} {what}")
        return count

    def string(self, what: str, limit: int = MAX_STRING_BYTES) -> str:
        length = int(self.scalar("Q", what))
        if length > limit:
            raise self.broken(f"{what}: a text of {length} bytes is over the limit of {limit}")
        self.need(length, what)
        stop = self.position + length
        try:
            text = self.data[self.position : stop].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.broken(f"{what}: is not UTF-8 at byte {error.start}") from error
        self.position = stop
        return text

    def value(self, key: str, kind: int, depth: int) -> Any:
        what = f"metadata {key!r}"
        if kind in SCALARS:
            return self.scalar(SCALARS[kind], what)
        if kind == STRING:
            return self.string(what)
        if kind != ARRAY:
            raise self.broken(f"{what}: unknown type {kind}")
        if depth == MAX_NESTING:
            raise self.broken(f"{what}: arrays nested deeper than {MAX_NESTING}")
        kind, count = self.scalar("I", what), self.scalar("Q", what)
        least = struct.calcsize("<" + SCALARS[kind]) if kind in SCALARS else 8
        if count > MAX_ARRAY:
            raise self.broken(f"{what}: {count} elements are over the limit of {MAX_ARRAY}")
        self.need(count * least, what)
        if kind in SCALARS:
            values = struct.unpack_from(f"<{count}{SCALARS[kind]}", self.data, self.position)
            self.position += count * least
            return list(values)
        if kind == STRING:
            return self.strings(count, what)
        return [self.value(key, kind, depth + 1) for _ in range(count)]

    def strings(self, count: int, what: str) -> list[str]:
        """`count` strings: the vocabulary, so this is the loop that has to be tight."""
        data, position, nbytes = self.data, self.position, self.nbytes
        length_at: Callable[[bytes | mmap.mmap, int], tuple[Any, ...]]
        length_at = struct.Struct("<Q").unpack_from
        found: list[str] = []
        append = found.append
        try:
            for _ in range(count):
                start = position + 8
                position = start + length_at(data, position)[0]
                if position > nbytes:
                    break
                append(data[start:position].decode())
        except struct.error:
            position = nbytes + 1
        except UnicodeDecodeError as error:
            raise self.broken(f"{what}: text {len(found)} is not UTF-8") from error
        if position > nbytes:
            self.position = nbytes
            self.need(1, f"{what}, text {len(found)} of {count}")
        self.position = position
        return found


_Row = tuple[str, tuple[int, ...], int, int]


def _version(reader: _Reader) -> int:
    reader.need(8, "the magic number and the version")
    magic = bytes(reader.data[:4])
    if magic != b"GGUF":
        raise reader.broken(f"expected the magic number b'GGUF', found {magic!r}")
    reader.position = 4
    version = int(reader.scalar("I", "the version"))
    if version and version & 0xFFFF == 0:
        raise InputError(
            "is a big-endian GGUF file, which is not read",
            where=reader.where,
            fix="convert it with gguf-convert-endian, from the gguf package",
        )
    if version not in (2, 3):
        raise InputError(
            f"is GGUF version {version}; read are 2 and 3",
            where=reader.where,
            fix="convert the model again with a current llama.cpp",
        )
    return version


def _tensor_row(reader: _Reader) -> _Row:
    name = reader.string("a tensor's name", MAX_KEY_BYTES)
    what = f"tensor {name!r}"
    n_dims = reader.scalar("I", what)
    if not 1 <= n_dims <= MAX_DIMENSIONS:
        raise reader.broken(f"{what}: {n_dims} dimensions; expected 1 to {MAX_DIMENSIONS}")
    shape = tuple(reader.scalar("Q", what) for _ in range(n_dims))[::-1]
    kind, offset = reader.scalar("I", what), reader.scalar("Q", what)
    return name, shape, kind, offset


def _place(row: _Row, first: int, alignment: int, reader: _Reader) -> TensorInfo:
    name, shape, kind, offset = row
    what = f"tensor {name!r}"
    if kind not in TENSOR_TYPES:
        found = UNREAD_TYPES.get(kind, f"type number {kind}")
        known = ", ".join(known for known, _, _ in TENSOR_TYPES.values())
        raise InputError(
            f"{what}: is stored as {found}, which is not read; read are {known}",
            where=reader.where,
            fix="take the model in one of these types",
        )
    stored, block, block_bytes = TENSOR_TYPES[kind]
    count = 1
    for size in shape:
        count *= size
        if not 0 < count <= MAX_ELEMENTS:
            raise reader.broken(f"{what}: shape {list(shape)} is not possible")
    if shape[-1] % block:
        raise reader.broken(
            f"{what}: rows of {shape[-1]} values do not divide into {stored}'s blocks of {block}"
        )
    nbytes = count // block * block_bytes
    if offset % alignment:
        raise reader.broken(f"{what}: offset {offset} is no multiple of {alignment}")
    if first + offset + nbytes > reader.nbytes:
        raise InputError(
            f"{what}: expected {nbytes} bytes from byte {first + offset} on, the file ends at "
            f"{reader.nbytes}",
            where=reader.where,
            fix="the file is cut short or damaged; fetch it again",
        )
    return TensorInfo(name, stored, shape, first + offset, nbytes)


def _check_layout(tensors: tuple[TensorInfo, ...], reader: _Reader) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise reader.broken(f"has the tensor {tensor.name!r} twice")
        names.add(tensor.name)
    position = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.start):
        if tensor.start < position:
            raise reader.broken(f"tensor {tensor.name!r}: overlaps the tensor before it")
        position = tensor.start + tensor.nbytes
