"""A tiny model with a frozen trunk, sequences for it, and what the trunk makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from puna.model import LlamaConfig, LlamaModel
from puna.tune.trunk_cache import TrunkCache, TrunkCacheConfig

VOCAB, WIDTH, START = 64, 16, 2
# Two blocks in another batch layout: products of other shapes, summed in another order. In units
# of float32's epsilon times the largest magnitude.
LAYOUT_EPSILONS = 32


def tiny_model(seed: int = 0, **changes: Any) -> LlamaModel:
    shape: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
    }
    torch.manual_seed(seed)
    return LlamaModel(LlamaConfig(**{**shape, **changes})).requires_grad_(False).eval()


def draw(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCAB, n, dtype=np.int32) for n in lengths]


def some(count: int = 24, seed: int = 0) -> list[np.ndarray]:
    """Sequences of 3 to 12 tokens, all different."""
    return draw([3 + (i * 7) % 10 for i in range(count)], seed)


def config(folder: Path, **changes: Any) -> TrunkCacheConfig:
    return TrunkCacheConfig(**{"folder": folder, "batch_tokens": 32, **changes})


def filled(
    folder: Path, sequences: Sequence[np.ndarray], model: LlamaModel | None = None, **changes: Any
) -> TrunkCache:
    """A cache that holds all that its budget allows."""
    cache = TrunkCache(model or tiny_model(), START, sequences, config(folder, **changes))
    cache.fill()
    return cache


def alone(model: LlamaModel, ids: np.ndarray) -> Tensor:
    """What the trunk makes of one sequence [n, M], computed by itself."""
    with torch.no_grad():
        hidden = model.embed(torch.from_numpy(ids.astype(np.int64))[None])
        return model.run(hidden, 0, START)[0]


def everything(cache: TrunkCache, sequences: Sequence[np.ndarray]) -> Tensor:
    """All sequences [B, T, M], one per row."""
    return cache.gather([[i] for i in range(len(sequences))], max(map(len, sequences)))


def assert_same_to_rounding(actual: Tensor, expected: Tensor) -> None:
    bound = LAYOUT_EPSILONS * torch.finfo(torch.float32).eps * expected.abs().max()
    assert (actual - expected).abs().max() <= bound


def chunk_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/chunk-*.safetensors"))
