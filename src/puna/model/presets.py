"""Published LLaMA shapes by name, and small ones for laptops. Shapes only, no weights."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from types import MappingProxyType

from puna.errors import InputError
from puna.model.config import LlamaConfig, RopeScaling


def _llama1(width: int, inner: int, layers: int, heads: int) -> LlamaConfig:
    shape = LlamaConfig(32000, width, inner, layers, heads, heads, width // heads)
    return dataclasses.replace(shape, rms_norm_eps=1e-6)


def _llama2(width: int, inner: int, layers: int, heads: int, kv_heads: int) -> LlamaConfig:
    shape = LlamaConfig(32000, width, inner, layers, heads, kv_heads, width // heads)
    return dataclasses.replace(shape, max_position_embeddings=4096)


def _llama3(
    width: int, inner: int, layers: int, heads: int, *, factor: float | None, tied: bool = False
) -> LlamaConfig:
    scaling = RopeScaling() if factor is None else RopeScaling("llama3", factor, 1.0, 4.0, 8192)
    return LlamaConfig(
        vocab_size=128256,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=width // heads,
        max_position_embeddings=8192 if factor is None else 131072,
        rope_theta=500000.0,
        rope_scaling=scaling,
        tie_word_embeddings=tied,
    )


def _small(
    vocab: int,
    width: int,
    inner: int,
    layers: int,
    heads: tuple[int, int],
    *,
    theta: float = 10000.0,
    context: int = 2048,
) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        head_dim=width // heads[0],
        max_position_embeddings=context,
        rope_theta=theta,
        tie_word_embeddings=True,
    )


PRESETS: Mapping[str, LlamaConfig] = MappingProxyType(
    {
        "llama-7b": _llama1(4096, 11008, 32, 32),
        "llama-13b": _llama1(5120, 13824, 40, 40),
        "llama-33b": _llama1(6656, 17920, 60, 52),
        "llama-65b": _llama1(8192, 22016, 80, 64),
        "llama-2-7b": _llama2(4096, 11008, 32, 32, 32),
        "llama-2-13b": _llama2(5120, 13824, 40, 40, 40),
        "llama-2-70b": _llama2(8192, 28672, 80, 64, 8),
        "llama-3-8b": _llama3(4096, 14336, 32, 32, factor=None),
        "llama-3-70b": _llama3(8192, 28672, 80, 64, factor=None),
        "llama-3.1-8b": _llama3(4096, 14336, 32, 32, factor=8.0),
        "llama-3.1-70b": _llama3(8192, 28672, 80, 64, factor=8.0),
        "llama-3.1-405b": _llama3(16384, 53248, 126, 128, factor=8.0),
        "llama-3.2-1b": _llama3(2048, 8192, 16, 32, factor=32.0, tied=True),
        "llama-3.2-3b": _llama3(3072, 8192, 28, 24, factor=32.0, tied=True),
        "llama-3.3-70b": _llama3(8192, 28672, 80, 64, factor=8.0),
        "smollm2-135m": _small(49152, 576, 1536, 30, (9, 3), theta=100000.0, context=8192),
        "smollm2-360m": _small(49152, 960, 2560, 32, (15, 5), theta=100000.0, context=8192),
        "smollm2-1.7b": _small(49152, 2048, 8192, 24, (32, 32), theta=130000.0, context=8192),
        "stories260k": _small(512, 64, 172, 5, (8, 4), context=512),
        "tiny": _small(512, 64, 172, 4, (4, 2)),
        "laptop-10m": _small(8192, 256, 704, 8, (8, 4)),
        "laptop-30m": _small(16384, 384, 1024, 12, (6, 2)),
        "laptop-60m": _small(16384, 512, 1408, 16, (8, 4)),
    }
)


def preset(name: str) -> LlamaConfig:
    """The shape called `name`.

    Raises:
        InputError: There is none; the message names the nearest.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name.lower(), PRESETS, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(PRESETS)}"
    raise InputError(f"there is no preset {name!r}", fix=hint)
