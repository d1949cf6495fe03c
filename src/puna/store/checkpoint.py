"""What every format on disk is read into: lazy tensors under Hugging Face names, and a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

Format = Literal["hf", "gguf", "meta"]


def _nothing() -> None:
    """The release of a tensor that maps no file."""


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in a file: its description now, its values when asked for.

    `load` returns a CPU tensor of exactly `shape` and `dtype`. Where the format allows it, that
    tensor maps the file (no copy); it must then not be written to.
    """

    name: str  # Hugging Face name, such as model.layers.0.self_attn.q_proj.weight
    shape: tuple[int, ...]
    dtype: torch.dtype  # dtype of what `load` returns; float32 for quantized storage
    stored: str  # how the file stores it: F32, BF16, Q4_1 ...
    load: Callable[[], torch.Tensor]
    file: Path | None = None  # the file that holds it, for messages
    release: Callable[[], None] = _nothing
    """Tells the system that the file's pages behind this tensor can leave memory. Values already
    loaded stay readable; a flow that streams a checkpoint calls this after each tensor."""

    @property
    def nbytes(self) -> int:
        """Bytes of the loaded tensor."""
        count = 1
        for size in self.shape:
            count *= size
        return count * self.dtype.itemsize


@dataclass(frozen=True)
class TokenizerFiles:
    """The raw material of a tokenizer, as a checkpoint carries it; read by `puna.tokens`."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    """By file name: tokenizer.json, tokenizer_config.json, special_tokens_map.json,
    tokenizer.model, chat_template.jinja; only those that exist."""
    gguf: Mapping[str, Any] = field(default_factory=dict)
    """The `tokenizer.*` metadata of a GGUF file, keys unshortened; empty for other formats."""


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. Nothing but headers has been read."""

    path: Path
    format: Format
    config: Mapping[str, Any]  # the keys of Hugging Face's config.json for LlamaForCausalLM
    tensors: Mapping[str, LazyTensor]  # by Hugging Face name, in file order
    tokenizer: TokenizerFiles
    generation_config: Mapping[str, Any] = field(default_factory=dict)
