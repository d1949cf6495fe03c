"""Writing safetensors as a stream: the header from shapes alone, then one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from puna.artifact import TensorDigest, write_json
from puna.errors import InputError
from puna.store.checkpoint import LazyTensor
from puna.store.safetensors import DTYPES
from puna.store.values import digest_tensor, load_checked, raw_bytes, with_dtype

MAX_SHARD_BYTES = 5_000_000_000

_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(
    folder: Path,
    tensors: Iterable[LazyTensor],
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> list[TensorDigest]:
    """Write model.safetensors into a folder, or shards and their index.

    One tensor is in memory at a time. Values are checked to be finite.

    Args:
        folder: An existing folder.
        tensors: What to write; each is loaded once.
        dtype: Cast floating tensors to this; None keeps their own.
        max_shard_bytes: Start a new file before one grows beyond this; a larger tensor has a
            file of its own.

    Returns:
        Digests of the tensors as written.

    Raises:
        InputError: A value is not finite, or does not fit into `dtype`.
    """
    shards = _plan([with_dtype(tensor, dtype) for tensor in tensors], max_shard_bytes)
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    digests: list[TensorDigest] = []
    for name, shard in zip(names, shards, strict=True):
        digests += write_shard(folder / name, shard)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(t.nbytes for shard in shards for t in shard)},
            "weight_map": {
                t.name: name for name, shard in zip(names, shards, strict=True) for t in shard
            },
        }
        write_json(folder / "model.safetensors.index.json", index)
    return digests


def write_shard(path: Path, tensors: Iterable[LazyTensor]) -> list[TensorDigest]:
    """Write one safetensors file; every tensor in the dtype that it is described with.

    Raises:
        InputError: A value is not finite, or does not fit into its dtype.
    """
    # Wide types first keeps every value at a multiple of its size without padding.
    ordered = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    digests: list[TensorDigest] = []
    with path.open("wb") as file:
        file.write(_header(ordered))
        for tensor in ordered:
            values = load_checked(tensor, tensor.dtype)
            file.write(raw_bytes(values))
            digests.append(digest_tensor(tensor.name, values))
            del values
            tensor.release()
    return digests


def _header(tensors: list[LazyTensor]) -> bytes:
    rows: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        stop = position + tensor.nbytes
        rows[tensor.name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, stop],
        }
        position = stop
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _plan(tensors: list[LazyTensor], max_shard_bytes: int) -> list[list[LazyTensor]]:
    if max_shard_bytes <= 0:
        raise InputError(f"max_shard_bytes must be positive, not {max_shard_bytes}")
    shards: list[list[LazyTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards
