"""Reading safetensors with a bounded parser of our own; values are views of the mapped file.

The format: 8 bytes with the length of a JSON header, the header, then the tensors without gaps
(https://huggingface.co/docs/safetensors). Every number of the header is checked against the size
of the file before it is used.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from puna.errors import InputError
from puna.store.checkpoint import LazyTensor
from puna.store.mapped import MappedFile

MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 2**60

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a header; `start` and `stop` count bytes from the start of the file."""

    name: str
    stored: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_safetensors(path: Path) -> dict[str, LazyTensor]:
    """Open a safetensors file: its tensors by name, in the file's order, values not yet read.

    Raises:
        InputError: The file is truncated, or its header contradicts itself or the file.
    """
    file = MappedFile(path)
    entries = parse_header(file.data, file.nbytes, path)
    return {entry.name: _lazy(file, entry) for entry in entries}


def parse_header(data: Any, nbytes: int, where: Path | str) -> list[Entry]:
    """Parse and check a header.

    Args:
        data: Anything whose slices are bytes: the file from its first byte on.
        nbytes: The size of the whole file in bytes.
        where: The file, for messages.

    Returns:
        The tensors, sorted by where they lie.

    Raises:
        InputError: The header is not one that the reference implementation would accept.
    """
    if nbytes < 8:
        raise _truncated(where, f"expected at least 8 bytes of header, found {nbytes}")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise _broken(where, f"says that its header takes {length} bytes, over the limit")
    if length > nbytes - 8:
        raise _truncated(where, f"expected {length} bytes of header, found {nbytes - 8}")
    rows = _parse_json(bytes(data[8 : 8 + length]), where)
    metadata = rows.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _broken(where, "has a '__metadata__' that does not map text to text")
    first = 8 + length
    entries = [_entry(name, row, first, nbytes, where) for name, row in rows.items()]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    _check_contiguous(entries, first, nbytes, where)
    return entries


def _lazy(file: MappedFile, entry: Entry) -> LazyTensor:
    dtype = DTYPES[entry.stored]
    return LazyTensor(
        name=entry.name,
        shape=entry.shape,
        dtype=dtype,
        stored=entry.stored,
        load=partial(file.tensor, entry.start, entry.shape, dtype),
        file=file.path,
        release=partial(file.release, entry.start, entry.stop - entry.start),
    )


def _parse_json(text: bytes, where: Path | str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise _broken(where, f"names {twice!r} twice in its header")
        return found

    try:
        rows = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or absurd numbers
        raise _broken(where, f"has a header that is not usable JSON ({error})") from error
    if not isinstance(rows, dict):
        raise _broken(where, f"has a header that is a {type(rows).__name__}, expected an object")
    return rows


def _entry(name: str, row: Any, first: int, nbytes: int, where: Path | str) -> Entry:
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise _broken(where, f"tensor {name!r}: expected dtype, shape and data_offsets")
    stored, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if not isinstance(stored, str) or stored not in DTYPES:
        known = ", ".join(DTYPES)
        raise _broken(where, f"tensor {name!r}: unknown dtype {stored!r}; known are {known}")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise _broken(where, f"tensor {name!r}: {str(shape)[:80]} is not a shape")
    if not _naturals(offsets) or len(offsets) != 2:
        raise _broken(where, f"tensor {name!r}: {str(offsets)[:80]} are not two offsets")
    begin, end = offsets
    if not begin <= end <= nbytes - first:
        raise _truncated(
            where,
            f"tensor {name!r}: expected bytes {begin} to {end} of the data, "
            f"found {nbytes - first} bytes of data",
        )
    expected = math.prod(shape) * DTYPES[stored].itemsize
    if expected != end - begin or math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise _broken(
            where,
            f"tensor {name!r}: shape {shape} of {stored} takes {expected} bytes, "
            f"found {end - begin}",
        )
    return Entry(name, stored, tuple(shape), first + begin, first + end)


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def _check_contiguous(entries: list[Entry], first: int, nbytes: int, where: Path | str) -> None:
    position = first
    for entry in entries:
        if entry.start != position:
            raise _broken(
                where,
                f"tensor {entry.name!r}: expected to start at byte {position - first} of the "
                f"data, found {entry.start - first} (a gap or an overlap)",
            )
        position = entry.stop
    if position != nbytes:
        raise _broken(where, f"expected {position - first} bytes of data, found {nbytes - first}")


def _broken(where: Path | str, what: str) -> InputError:
    return InputError(what, where=where, fix="the file is damaged or no safetensors file")


def _truncated(where: Path | str, what: str) -> InputError:
    return InputError(what, where=where, fix="the file is cut short; fetch it again")
