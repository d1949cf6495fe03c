"""Writing Meta's layout: params.json and one consolidated.NN.pth per model-parallel rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from puna.artifact import TensorDigest, write_json
from puna.errors import InputError
from puna.store.checkpoint import LazyTensor
from puna.store.config import complete_config
from puna.store.files import write_side_files
from puna.store.meta import AXES, EMBEDDING, HEAD
from puna.store.meta_config import SIDE_FILE, is_llama3, params_from_config
from puna.store.names import META, rotary_heads, to_pairs
from puna.store.values import digest_tensor, load_checked


def write_meta(
    folder: Path,
    *,
    config: Mapping[str, Any],
    tensors: Iterable[LazyTensor],
    files: Mapping[str, bytes],
    dtype: torch.dtype | None = None,
    shards: int = 1,
    generation_config: Mapping[str, Any] | None = None,
) -> list[TensorDigest]:
    """Write a Meta folder; the tensors of one shard are in memory at a time.

    A tied head is written as a copy, since Meta's readers ask for it; puna.json says that it was
    tied, and what else params.json has no words for.

    Args:
        folder: An existing empty folder, as `puna.artifact.writing_folder` gives.
        config: The keys of config.json.
        tensors: Under Hugging Face's names; each is loaded once per shard.
        files: Further files by name: tokenizer.model, the chat template.
        dtype: Cast to this; None keeps each tensor's own.
        shards: Model-parallel ranks.
        generation_config: The keys of generation_config.json, which is written beside; none or
            empty writes no file.

    Returns:
        Digests of the tensors as written, before the rows are permuted.

    Raises:
        InputError: Meta's layout cannot express the config, a dimension does not divide by
            `shards`, or a value is not finite or does not fit `dtype`.
    """
    config = complete_config(dict(config), folder)
    params = params_from_config(config, folder)
    _check_shards(config, shards, folder)
    write_json(folder / "params.json", params)
    write_json(folder / SIDE_FILE, {"config": config})
    if generation_config:
        write_json(folder / "generation_config.json", dict(generation_config))
    write_side_files(folder, files)
    listed = list(tensors)
    digests: list[TensorDigest] = []
    for rank in range(shards):
        state: dict[str, torch.Tensor] = {}
        for tensor in listed:
            values = load_checked(tensor, dtype)
            if rank == 0:
                digests.append(digest_tensor(tensor.name, values))
            state |= _parts(tensor.name, values, rank, shards, config)
        _save(state, folder / f"consolidated.{rank:02d}.pth")
        state.clear()
        for tensor in listed:
            tensor.release()
    return digests


class _Sink:
    """A file that remembers why a write failed: torch.save says only that one did."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    with path.open("wb") as file:
        sink = _Sink(file)
        try:
            torch.save(state, cast(BinaryIO, sink))
        except RuntimeError:
            if sink.error is not None:
                raise sink.error from None
            raise


def _parts(
    name: str, values: torch.Tensor, rank: int, shards: int, config: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """One tensor's part for one rank, and the head's if it is tied to this one."""
    other = META.from_hf(name)
    heads = rotary_heads(name, config)
    if heads is not None:
        values = to_pairs(values, heads)
    axis = AXES.get(other.split(".")[-2])
    if other == EMBEDDING:
        axis = 0 if is_llama3(config) else 1
    parts = {other: _cut(values, axis, rank, shards)}
    if other == EMBEDDING and config["tie_word_embeddings"]:
        parts[HEAD] = parts[other] if shards == 1 else _cut(values, 0, rank, shards)
    return parts


def _cut(values: torch.Tensor, axis: int | None, rank: int, shards: int) -> torch.Tensor:
    if axis is None or shards == 1:
        return values
    return values.chunk(shards, dim=axis)[rank].clone(memory_format=torch.contiguous_format)


def _check_shards(config: Mapping[str, Any], shards: int, where: Path) -> None:
    if not 1 <= shards <= 99:
        raise InputError(f"the number of shards is 1 to 99, not {shards}", where=where)
    keys = ["num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"]
    for key in [*keys, "hidden_size"]:
        if config[key] % shards:
            raise InputError(
                f"{key} = {config[key]} does not divide into {shards} shards",
                where=where,
                fix="write fewer shards",
            )
