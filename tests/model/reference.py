"""Tiny random models: Puna's own, and transformers' as the reference, built at run time."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from puna.model import LlamaConfig, LlamaModel, build, init_weights

TINY = LlamaConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)


def tiny_model(config: LlamaConfig = TINY, seed: int = 0, scale: float = 12.0) -> LlamaModel:
    """A random model whose attention is far from uniform, so that a wrong mask shows."""
    model = init_weights(LlamaModel(config), seed)
    with torch.no_grad():
        for block in model.model.layers:
            for layer in (block.self_attn.q_proj, block.self_attn.k_proj):
                layer.weight.mul_(scale)
    return model.eval()


def reference_model(hf_config: Any, seed: int = 0) -> Any:
    """transformers' model for `hf_config`, every parameter random (biases and norms too)."""
    import transformers

    kind = getattr(transformers, hf_config.architectures[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind._from_config(hf_config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fresh = torch.randn(parameter.shape, generator=generator)
            spread = 1.0 if "embed" in name else 1.5 / parameter.shape[-1] ** 0.5
            parameter.copy_(fresh * spread + (1.0 if name.endswith("norm.weight") else 0.0))
    return model.eval()


def as_puna(reference: Any, *, dtype: torch.dtype | None = None) -> LlamaModel:
    """Puna's model of the same weights, through the config's dictionary and the state dict."""
    config = LlamaConfig.from_hf(reference.config.to_dict())
    return build(config, reference.state_dict().items(), dtype=dtype)


def token_ids(batch: int, tokens: int, vocab: int = 61, seed: int = 1) -> Tensor:
    """Random ids [B, T]."""
    return torch.randint(vocab, (batch, tokens), generator=torch.Generator().manual_seed(seed))
