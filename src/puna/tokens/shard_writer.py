"""Writing shards: documents are added one after the other, and whole files come into being.

A file is on the disk before the next one is begun, so a writer that is killed loses the open file
only; another one over the same folder goes on behind the last whole file.
"""

from __future__ import annotations

import re
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np

from puna.errors import InputError
from puna.tokens.shard_file import (
    KEY_BYTES,
    Array,
    ShardArrays,
    ShardFile,
    ShardLabel,
    open_shard_file,
    shard_name,
    token_dtype,
    write_shard_file,
)
from puna.tokens.shards import Documents

_NAME = re.compile(r"(train|held_out)-(\d{5,})\.safetensors")


class TokenDocument(NamedTuple):
    """A document as tokens."""

    id: bytes  # 16
    root: bytes  # 16
    licence: int  # its number
    text_bytes: int  # of its text as UTF-8
    tokens: array[int]  # of the type that `token_array` makes


def token_array(vocabulary_size: int) -> array[int]:
    """An empty array of the narrowest type that all ids of a vocabulary fit into."""
    return array("H") if token_dtype(vocabulary_size) == "uint16" else array("I")


class ShardWriter:
    """Fills the shard files of one split of a source.

    Attributes:
        kept: The documents in files that were whole when this writer began.
    """

    def __init__(
        self, folder: Path, label: ShardLabel, *, vocabulary_size: int, shard_tokens: int
    ) -> None:
        """Begin, or go on behind what is there.

        Args:
            folder: Of the source; it exists.
            label: What the tokens are.
            vocabulary_size: Number of ids.
            shard_tokens: A file holds at most so many; a longer document has a file of its own.

        Raises:
            InputError: Files that are there are damaged, or of another vocabulary.
        """
        self._folder, self._label = folder, label
        self._size, self._most = vocabulary_size, shard_tokens
        files = shard_files(folder, label.split)
        for file in files:
            if file.label != label:
                raise InputError(
                    "is not of this run", where=file.path, fix="begin again with --force"
                )
        self.kept = Documents(files, vocabulary_size)
        self._next = len(files)
        self._begin()

    def add(self, document: TokenDocument) -> None:
        """Take one more document; writes a file where the open one is full.

        Raises:
            InputError: The disk refused the write.
        """
        if self._ends and len(self._tokens) + len(document.tokens) > self._most:
            self._commit()
        self._tokens.extend(document.tokens)
        self._ends.append(len(self._tokens))
        self._ids += document.id
        self._roots += document.root
        self._licences.append(document.licence)
        self._text_bytes.append(document.text_bytes)

    def close(self) -> None:
        """Write what is left.

        Raises:
            InputError: The disk refused the write.
        """
        if self._ends:
            self._commit()

    def _begin(self) -> None:
        self._tokens = token_array(self._size)
        self._ends, self._text_bytes = array("q"), array("q")
        self._licences = array("H")
        self._ids, self._roots = bytearray(), bytearray()

    def _commit(self) -> None:
        arrays = ShardArrays(
            tokens=np.asarray(self._tokens),
            offsets=np.concatenate([np.zeros(1, np.int64), np.asarray(self._ends)]),
            ids=_keys(self._ids),
            roots=_keys(self._roots),
            licences=np.asarray(self._licences),
            text_bytes=np.asarray(self._text_bytes),
        )
        path = self._folder / shard_name(self._label.split, self._next)
        write_shard_file(path, self._label, arrays)
        self._next += 1
        self._begin()


def shard_files(folder: Path, split: str) -> list[ShardFile]:
    """The whole files of a split in a folder that is being written, in their order.

    Raises:
        InputError: One of them is damaged, or one is missing in between.
    """
    matches = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    numbers = sorted(int(match[2]) for match in matches if match and match[1] == split)
    if numbers != list(range(len(numbers))):
        raise InputError(
            f"has the {split} files {numbers[:9]}, and one before them is missing",
            where=folder,
            fix="begin again with --force",
        )
    return [open_shard_file(folder / shard_name(split, number)) for number in numbers]


def _keys(data: bytearray) -> Array:
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, KEY_BYTES)
