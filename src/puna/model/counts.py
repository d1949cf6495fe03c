"""How large and how costly a LLaMA is, counted from its shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from puna.model.config import LlamaConfig
from puna.model.llama import LlamaModel


@dataclass(frozen=True)
class Counts:
    """Exact counts of one model."""

    parameters: int  # scalars; a tied head counts once
    embedding_parameters: int  # scalars of the embedding
    head_parameters: int  # scalars of the head; 0 when tied
    block_parameters: int  # scalars of one block
    matrix_parameters: int  # scalars multiplied for every token: blocks' matrices and the head

    config: LlamaConfig

    def flops_per_token(self, context_tokens: int = 0) -> int:
        """Forward FLOPs of one token that attends to `context_tokens` (2 per multiply-add)."""
        shape = self.config
        heads = shape.num_attention_heads * shape.head_dim
        attention = 4 * context_tokens * heads * shape.num_hidden_layers
        return 2 * self.matrix_parameters + attention

    def training_flops_per_token(self, context_tokens: int = 0) -> int:
        """Forward and backward: three times the forward (Kaplan et al. 2020)."""
        return 3 * self.flops_per_token(context_tokens)

    def kv_bytes_per_token(self, bytes_per_scalar: int = 2) -> int:
        """Bytes of key/value cache that one token takes."""
        shape = self.config
        scalars = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
        return scalars * bytes_per_scalar


def count(config: LlamaConfig) -> Counts:
    """Count by building the model on the meta device, which takes no memory."""
    with torch.device("meta"):
        model = LlamaModel(config)
    block = list(model.model.layers[0].parameters())
    head = model.lm_head.weight.numel()
    matrices = sum(p.numel() for p in block if p.dim() == 2) * config.num_hidden_layers
    return Counts(
        parameters=sum(p.numel() for p in model.parameters()),
        embedding_parameters=model.model.embed_tokens.weight.numel(),
        head_parameters=0 if config.tie_word_embeddings else head,
        block_parameters=sum(p.numel() for p in block),
        matrix_parameters=matrices + head,
        config=config,
    )
