"""Writing a Hugging Face folder that transformers, vLLM and llama.cpp's converter read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from puna.artifact import TensorDigest, write_json
from puna.store.checkpoint import LazyTensor
from puna.store.config import complete_config
from puna.store.files import write_side_files
from puna.store.safetensors_writer import MAX_SHARD_BYTES, write_safetensors


def write_hf(
    folder: Path,
    *,
    config: Mapping[str, Any],
    tensors: Iterable[LazyTensor],
    files: Mapping[str, bytes],
    generation_config: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> list[TensorDigest]:
    """Write a Hugging Face folder; one tensor is in memory at a time.

    Args:
        folder: An existing empty folder, as `puna.artifact.writing_folder` gives.
        config: The keys of config.json.
        tensors: Under Hugging Face's names; a tied head is left out by the caller.
        files: Further files by name: the tokenizer, the chat template.
        generation_config: The keys of generation_config.json; none or empty writes no file.
        dtype: Cast to this; None keeps each tensor's own.
        max_shard_bytes: The size that a file of weights does not exceed.

    Returns:
        Digests of the tensors as written.

    Raises:
        InputError: The config is not usable, or a value is not finite or does not fit `dtype`.
    """
    listed = list(tensors)
    written = complete_config(dict(config), folder / "config.json")
    written.pop("dtype", None)
    widest = max((t.dtype for t in listed), key=lambda d: d.itemsize, default=torch.float32)
    written["torch_dtype"] = str(dtype or widest).removeprefix("torch.")
    write_json(folder / "config.json", written)
    if generation_config:
        write_json(folder / "generation_config.json", dict(generation_config))
    write_side_files(folder, files)
    return write_safetensors(folder, listed, dtype=dtype, max_shard_bytes=max_shard_bytes)
