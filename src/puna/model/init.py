"""Fresh weights for pretraining."""

from __future__ import annotations

import math

import torch
from torch import nn

from puna.model.llama import LlamaModel
from puna.model.norm import RMSNorm


@torch.no_grad()
def init_weights(model: LlamaModel, seed: int = 0) -> LlamaModel:
    """Draw every weight anew, the same for the same seed; returns the model.

    Matrices are normal with `config.initializer_range`; those that write into the residual stream
    are divided by sqrt(2 x layers) (Radford et al. 2019, GPT-2), biases are 0, norms are 1.
    """
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    residual = config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            if module is model.lm_head and config.tie_word_embeddings:
                continue
            writes = name.endswith(("o_proj", "down_proj"))
            std = residual if writes else config.initializer_range
            fresh = torch.randn(module.weight.shape, generator=generator) * std
            module.weight.copy_(fresh)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, RMSNorm):
            module.weight.fill_(1.0)
    return model
