"""The LLaMA and nothing else: token ids in, hidden states and logits out.

A model knows no file format, no trainer and no tuner; it imports torch only. Four doors lead in:
`embed(ids)`, `run(hidden, start, stop, attention, cache, memory)`, `head(hidden)` and
`head_loss(hidden, targets)`. Nobody touches a weight outside its module.

    >>> import torch
    >>> from puna.model import LlamaModel, preset
    >>> model = LlamaModel(preset("tiny"))
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 512])
"""

from __future__ import annotations

from puna.model.attention import AttentionSpec
from puna.model.cache import ContiguousCache, KVCache
from puna.model.config import LlamaConfig, RopeScaling
from puna.model.counts import Counts, count
from puna.model.init import init_weights
from puna.model.llama import Block, LlamaModel
from puna.model.presets import PRESETS, preset
from puna.model.weights import build, load_weights

__all__ = [
    "PRESETS",
    "AttentionSpec",
    "Block",
    "ContiguousCache",
    "Counts",
    "KVCache",
    "LlamaConfig",
    "LlamaModel",
    "RopeScaling",
    "build",
    "count",
    "init_weights",
    "load_weights",
    "preset",
]
