"""One shard file: the tokens of whole documents and an index of them, as one safetensors file.

The tensors are `tokens` uint16 (uint32 for more than 65,536 ids) [N]; `offsets` int64 [D + 1], the
place where each document begins and the last one ends; `ids` and `roots` uint8 [D, 16]; `licences`
uint16 [D], numbers of the list in shards.json; `text_bytes` int64 [D], what each document took as
UTF-8. The header says the format's version, the vocabulary, the source and the split. Any reader
of safetensors opens it; ours maps it and reads what is asked for.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from puna.artifact import writing_file
from puna.errors import InputError
from puna.store.files import check_regular
from puna.store.safetensors import Entry, parse_header

Array = npt.NDArray[Any]
Split = Literal["train", "held_out"]

VERSION = 1
SPLITS: tuple[Split, ...] = ("train", "held_out")
KEY_BYTES = 16  # of a document's id, and of its root
_AGAIN = "fetch the folder again, or tokenize again"
# Wide types first keeps every value at a multiple of its size without padding.
_TENSORS = ("offsets", "text_bytes", "tokens", "licences", "ids", "roots")
_STORED = {"I64": "<i8", "U32": "<u4", "U16": "<u2", "U8": "u1"}
_TYPES = {"offsets": "I64", "text_bytes": "I64", "licences": "U16", "ids": "U8", "roots": "U8"}


@dataclass(frozen=True)
class ShardLabel:
    """What the tokens of a file are."""

    vocabulary: str
    """The identity of the vocabulary; see `vocabulary_identity`."""
    source: str
    """The source that the documents came from."""
    split: Split
    """Whether they are learnt from or held out."""

    def metadata(self) -> dict[str, str]:
        """As the header says it."""
        return {
            "format": "puna shard",
            "version": str(VERSION),
            "vocabulary": self.vocabulary,
            "source": self.source,
            "split": self.split,
        }


@dataclass(frozen=True)
class ShardArrays:
    """The content of a file; the arrays of a mapped one are read-only views of it."""

    tokens: Array  # [N] uint16 or uint32
    offsets: Array  # [D + 1] int64
    ids: Array  # [D, 16] uint8
    roots: Array  # [D, 16] uint8
    licences: Array  # [D] uint16
    text_bytes: Array  # [D] int64


@dataclass(frozen=True)
class ShardFile:
    """An opened file: its header is read and checked, its values are not."""

    path: Path
    label: ShardLabel
    documents: int
    tokens: int
    dtype: str
    """Of the tokens: uint16 or uint32."""
    entries: Mapping[str, Entry]

    def map(self) -> ShardArrays:
        """Map the file. The mapping ends when the last array is gone.

        Raises:
            InputError: The file cannot be read any more, or has shrunk.
        """
        data = _mapped(self.path)
        if len(data) < max(entry.stop for entry in self.entries.values()):
            raise InputError("has become shorter since it was opened", where=self.path, fix=_AGAIN)
        found = {name: _view(data, entry) for name, entry in self.entries.items()}
        return ShardArrays(**found)

    def index(self) -> tuple[Array, Array]:
        """The length of each document in tokens, and its bytes of text: two int64 [D].

        Raises:
            InputError: The offsets are not those of documents that lie one after the other.
        """
        arrays = self.map()
        lengths = np.diff(arrays.offsets)
        sound = arrays.offsets[0] == 0 and arrays.offsets[-1] == self.tokens
        if not sound or not bool((lengths > 0).all()):
            raise InputError(
                "is damaged: its offsets are not those of documents one after the other",
                where=self.path,
                fix=_AGAIN,
            )
        return lengths.astype(np.int64), arrays.text_bytes.astype(np.int64)


def token_dtype(vocabulary_size: int) -> str:
    """The narrowest type that all ids of a vocabulary fit into: uint16 or uint32."""
    return "uint16" if vocabulary_size <= 1 << 16 else "uint32"


def shard_name(split: str, number: int) -> str:
    """The file name of a split's shard, counted from 0."""
    return f"{split}-{number:05d}.safetensors"


def write_shard_file(path: Path, label: ShardLabel, arrays: ShardArrays) -> None:
    """Write a shard file: whole or absent, and on the disk when this returns.

    Args:
        path: Where; nothing may be there.
        label: What the tokens are.
        arrays: Of at least one document.

    Raises:
        InputError: The disk refused the write.
    """
    stored = {"uint16": "U16", "uint32": "U32"}[str(arrays.tokens.dtype)]
    types = {**_TYPES, "tokens": stored}
    values = {
        name: np.ascontiguousarray(getattr(arrays, name), dtype=_STORED[types[name]])
        for name in _TENSORS
    }
    with writing_file(path) as temporary, temporary.open("wb") as file:
        file.write(_header(label, types, values))
        for name in _TENSORS:
            file.write(values[name].reshape(-1).data)


def open_shard_file(path: Path) -> ShardFile:
    """Open a shard file and check its header against itself and the size of the file.

    Raises:
        InputError: The file is missing, cut short, damaged, or no shard file of this format.
    """
    data = _mapped(path)
    entries = {entry.name: entry for entry in parse_header(data, len(data), path)}
    label = _label(data, path)
    if set(entries) != set(_TENSORS):
        raise _foreign(path, f"holds the tensors {', '.join(sorted(entries)) or 'none'}")
    for name, entry in entries.items():
        wanted = ("U16", "U32") if name == "tokens" else (_TYPES[name],)
        if entry.stored not in wanted:
            raise _foreign(path, f"stores {name} as {entry.stored}, not {' or '.join(wanted)}")
    documents = entries["licences"].shape
    tokens = entries["tokens"].shape
    if len(documents) != 1 or len(tokens) != 1 or not documents[0]:
        raise _foreign(path, "holds no documents")
    count = documents[0]
    shapes: dict[str, tuple[int, ...]] = {"offsets": (count + 1,), "text_bytes": (count,)}
    shapes |= {"ids": (count, KEY_BYTES), "roots": (count, KEY_BYTES)}
    for name, shape in shapes.items():
        if entries[name].shape != shape:
            found = list(entries[name].shape)
            raise _foreign(path, f"has {count} documents, and {name} of the shape {found}")
    dtype = {"U16": "uint16", "U32": "uint32"}[entries["tokens"].stored]
    return ShardFile(path, label, count, tokens[0], dtype, entries)


def _header(label: ShardLabel, types: Mapping[str, str], values: Mapping[str, Array]) -> bytes:
    rows: dict[str, object] = {"__metadata__": label.metadata()}
    position = 0
    for name in _TENSORS:
        stop = position + values[name].nbytes
        rows[name] = {
            "dtype": types[name],
            "shape": list(values[name].shape),
            "data_offsets": [position, stop],
        }
        position = stop
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _mapped(path: Path) -> mmap.mmap | bytes:
    check_regular(path)
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                return b""  # which cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error


def _view(data: mmap.mmap | bytes, entry: Entry) -> Array:
    dtype = np.dtype(_STORED[entry.stored])
    count = (entry.stop - entry.start) // dtype.itemsize
    return np.frombuffer(data, dtype=dtype, count=count, offset=entry.start).reshape(entry.shape)


def _label(data: mmap.mmap | bytes, path: Path) -> ShardLabel:
    """What the header says, which has been parsed once and found sound."""
    length = int.from_bytes(data[:8], "little")
    told = json.loads(bytes(data[8 : 8 + length])).get("__metadata__", {})
    if told.get("format") != "puna shard":
        raise _foreign(path, "is not labelled as one")
    if told.get("version") != str(VERSION):
        raise InputError(
            f"is a shard of format {told.get('version')}; this puna reads format {VERSION}",
            where=path,
            fix="tokenize again, or use the puna that wrote it",
        )
    split = next((split for split in SPLITS if split == told.get("split")), None)
    if split is None or "vocabulary" not in told or "source" not in told:
        raise _foreign(path, "does not say its vocabulary, source and split")
    return ShardLabel(told["vocabulary"], told["source"], split)


def _foreign(path: Path, what: str) -> InputError:
    return InputError(f"is no shard file: it {what}", where=path, fix=_AGAIN)
