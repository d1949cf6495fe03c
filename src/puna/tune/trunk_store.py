"""Hidden states on disk: chunks of whole sequences, each file written once, whole or absent.

A chunk is a safetensors file: `hidden` [N, M], `ids` [N] and, for int8, `scales` [N], with an
index in its metadata (a key, a length and a checksum per sequence) that carries its own digest.
Since it holds the ids, a damaged chunk can be computed again in the batch that it came from.

    FOLDER/<digest of trunk, dtype, attention mode>/chunk-<digest of its keys>.safetensors
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from puna.artifact import locked, writing_file
from puna.tune.trunk_codec import Codec
from puna.tune.trunk_identity import sequence_key

VERSION = 1
MAX_HEADER_BYTES = 1 << 26
MAX_MAPPED = 512  # chunks mapped at a time: bounds what the process seems to occupy
PATTERN = "chunk-*.safetensors"
_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8"}

Rows = tuple[NDArray[Any], NDArray[np.float32] | None]  # [n, M] as stored, [n] scales


class Damaged(Exception):
    """A chunk is not what was written: cut short, changed, or gone."""


@dataclass(frozen=True)
class Chunk:
    """The index of one file; positions are those of its sequences."""

    path: Path
    nbytes: int  # of the file
    keys: tuple[bytes, ...]
    starts: tuple[int, ...]  # first token of each, and the end of the last
    checksums: tuple[int, ...]  # CRC-32 of stored values and scales
    seconds: float  # that the trunk took
    places: dict[str, int]  # tensor -> first byte in the file


def chunk_name(keys: Sequence[bytes]) -> str:
    """The file name of the chunk of these sequences, in this order."""
    return f"chunk-{hashlib.sha256(b''.join(keys)).hexdigest()[:32]}.safetensors"


def planned_bytes(tokens: int, sequences: int, codec: Codec, width: int) -> int:
    """An upper bound of the size of a chunk's file."""
    return 1024 + sequences * 72 + tokens * (codec.token_bytes(width) + 4)


class ChunkStore:
    """The chunks of one trunk in one dtype.

    A file is replaced or removed, never written to in place: what is mapped of it stays as it was.

    Args:
        folder: Of this trunk and dtype; it need not exist.
        codec: How values are stored.
        width: M, the size of a hidden state.
    """

    def __init__(self, folder: Path, codec: Codec, width: int):
        self.folder, self.codec, self.width = folder, codec, width
        self._mapped: OrderedDict[Path, tuple[Chunk, NDArray[np.uint8]]] = OrderedDict()
        self._verified: dict[Path, set[int]] = {}

    def scan(self) -> tuple[list[Chunk], list[Path]]:
        """Every chunk by name, and the files that are damaged so that their index is no use.

        A file that is gone by now, or that this user may not read, is in neither list.
        """
        good: list[Chunk] = []
        bad: list[Path] = []
        for path in sorted(self.folder.glob(PATTERN)):
            try:
                good.append(self.index(path))
            except Damaged as error:
                if not isinstance(error.__cause__, OSError):
                    bad.append(path)
        return good, bad

    def index(self, path: Path) -> Chunk:
        """Read the index of a file, and nothing else of it.

        Raises:
            Damaged: There is none, or it does not describe this file.
        """
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size)) if size < MAX_HEADER_BYTES else None
                return self._checked(path, header, 8 + size, file.seek(0, 2))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Damaged(str(path)) from error

    def _checked(self, path: Path, header: Any, begin: int, nbytes: int) -> Chunk:
        meta = header["__metadata__"]
        if hashlib.sha256(meta["index"].encode()).hexdigest() != meta["digest"]:
            raise Damaged(f"{path}: index")
        index = json.loads(meta["index"])
        keys = tuple(bytes.fromhex(key) for key in index["keys"])
        tokens, checksums = tuple(index["tokens"]), tuple(index["crc32"])
        if chunk_name(keys) != path.name or not len(keys) == len(tokens) == len(checksums) > 0:
            raise Damaged(f"{path}: another chunk")
        if min(tokens) < 1:
            raise Damaged(f"{path}: an empty sequence")
        starts = (0, *itertools.accumulate(tokens))
        places = {}
        for name, kind, shape, itemsize in self._tensors(starts[-1]):
            told = header[name]
            first, last = told["data_offsets"]
            if told["dtype"] != kind or told["shape"] != shape:
                raise Damaged(f"{path}: {name}")
            if first < 0 or last - first != math.prod(shape) * itemsize or begin + last > nbytes:
                raise Damaged(f"{path}: cut short")
            places[name] = begin + first
        return Chunk(path, nbytes, keys, starts, checksums, float(index["seconds"]), places)

    def _tensors(self, tokens: int) -> Iterator[tuple[str, str, list[int], int]]:
        """Name, dtype as safetensors has it, shape and bytes per value of what a chunk holds."""
        stored = self.codec.stored
        yield "hidden", _NAMES[self.codec.name], [tokens, self.width], stored.itemsize
        yield "ids", "I32", [tokens], 4
        if self.codec.scaled:
            yield "scales", "F32", [tokens], 4

    def write(
        self, sequences: Sequence[NDArray[np.int32]], hidden: Tensor, seconds: float
    ) -> Chunk:
        """Write a chunk in place of one of its name, and read its index back.

        Args:
            sequences: The ids of each.
            hidden: [N, M]: their hidden states, one sequence after the other.
            seconds: That it took to compute them.

        Raises:
            InputError: The disk refused it; what was there before is intact.
            Damaged: It is not on the disk as it was written.
        """
        keys = [sequence_key(ids) for ids in sequences]
        path = self.folder / chunk_name(keys)
        tensors = self._encoded(sequences, hidden)
        raw = tensors["hidden"].view(torch.uint8).numpy()
        scales = tensors["scales"].numpy() if self.codec.scaled else None
        starts = np.cumsum([0, *map(len, sequences)]).tolist()
        extents = [slice(*pair) for pair in itertools.pairwise(starts)]
        index = {
            "keys": [key.hex() for key in keys],
            "tokens": [len(ids) for ids in sequences],
            "crc32": [_crc(raw[e], None if scales is None else scales[e]) for e in extents],
            # of a fixed width: a writer of the same chunk at the same time puts values elsewhere
            # in the file by no byte, so a reader that has the other's index is right with this one
            "seconds": f"{seconds:015.6f}",
        }
        text = json.dumps(index)
        meta = {"index": text, "digest": hashlib.sha256(text.encode()).hexdigest()}
        data = safetensors.torch.save(tensors, meta)
        with writing_file(path, force=True) as place:
            place.write_bytes(data)
        self.forget(path)
        return self.index(path)

    def _encoded(self, sequences: Sequence[NDArray[np.int32]], hidden: Tensor) -> dict[str, Tensor]:
        values, scales = self.codec.encode(hidden)
        ids = torch.from_numpy(np.concatenate(sequences).astype(np.int32))
        tensors = {"hidden": values, "ids": ids}
        return tensors if scales is None else {**tensors, "scales": scales}

    def read(self, chunk: Chunk, position: int) -> Rows:
        """One sequence of a chunk, as views of the mapped file; checked when it is first read.

        Raises:
            Damaged: It is not what was written.
        """
        file = self._map(chunk)
        start, stop = chunk.starts[position], chunk.starts[position + 1]
        size = self.width * self.codec.stored.itemsize
        raw = _cut(file, chunk.places["hidden"], start, stop, size)
        scales = None
        if self.codec.scaled:
            scales = _cut(file, chunk.places["scales"], start, stop, 4).view(np.float32)
        verified = self._verified.setdefault(chunk.path, set())
        if position not in verified:
            if _crc(raw, scales) != chunk.checksums[position]:
                raise Damaged(f"{chunk.path}: sequence {position}")
            verified.add(position)
        return raw.view(self.codec.raw).reshape(stop - start, self.width), scales

    def sequences(self, chunk: Chunk) -> list[NDArray[np.int32] | None]:
        """The ids of every sequence of a chunk; None where they do not fit the key any more."""
        try:
            ids = _cut(self._map(chunk), chunk.places["ids"], 0, chunk.starts[-1], 4)
        except Damaged:
            return [None] * len(chunk.keys)
        parts = np.split(ids.view(np.int32), chunk.starts[1:-1])
        pairs = zip(parts, chunk.keys, strict=True)
        return [part.copy() if sequence_key(part) == key else None for part, key in pairs]

    def forget(self, path: Path) -> None:
        """Let go of what is mapped of a file that was written anew, or is to be."""
        self._mapped.pop(path, None)
        self._verified.pop(path, None)

    def _map(self, chunk: Chunk) -> NDArray[np.uint8]:
        held = self._mapped.get(chunk.path)
        if held is not None and held[0] is chunk:
            self._mapped.move_to_end(chunk.path)
            return held[1]
        try:  # keeps no file open, of which a process may have few
            mapped = torch.from_file(
                str(chunk.path), shared=False, size=chunk.nbytes, dtype=torch.uint8
            )
        except RuntimeError as error:  # gone, or shorter than it was
            raise Damaged(str(chunk.path)) from error
        file: NDArray[np.uint8] = mapped.numpy()
        self._mapped[chunk.path] = (chunk, file)
        while len(self._mapped) > MAX_MAPPED:
            self._mapped.popitem(last=False)
        return file


@contextlib.contextmanager
def using(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Tell other processes which chunks of a folder are in use, until the block ends."""
    path = folder / f".{secrets.token_hex(8)}.use"
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text("\n".join(names), encoding="utf-8")
        with locked(fresh):
            fresh.rename(path)  # under its name only once it is locked
            yield path
    finally:
        path.unlink(missing_ok=True)
        fresh.unlink(missing_ok=True)


def _cut(file: NDArray[np.uint8], base: int, start: int, stop: int, size: int) -> NDArray[np.uint8]:
    return file[base + start * size : base + stop * size]


def _crc(raw: NDArray[Any], scales: NDArray[np.float32] | None) -> int:
    value = zlib.crc32(raw.data)
    return value if scales is None else zlib.crc32(scales.data, value)
