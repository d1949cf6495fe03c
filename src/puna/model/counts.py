"""How large and how costly a LLaMA is, counted from its shapes.

Shapes: V vocab_size, M hidden_size, T tokens of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from puna.model.config import LlamaConfig
from puna.model.llama import LlamaModel


def causal_context(row_tokens: float) -> float:
    """Keys that a token of a causal row sees on average, itself included: (T + 1) / 2."""
    return (row_tokens + 1) / 2


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs of training on one token; a multiplication with its addition is two."""

    forward: float  # of the products with matrices
    backward: float  # of the same
    attention: float  # of queries with keys and weights with values, forward and backward
    recomputed: float  # of forward passes that are made a second time

    @property
    def model(self) -> float:
        """What the training takes whatever way it is done; the basis of model-FLOPs utilisation."""
        return self.forward + self.backward + self.attention

    @property
    def hardware(self) -> float:
        """What is computed: the recomputed part included."""
        return self.model + self.recomputed


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

    def training_flops(
        self,
        context_tokens: float,
        *,
        start: int = 0,
        trained: int | None = None,
        added: int = 0,
        recomputed: bool = False,
    ) -> TrainingFlops:
        """The same in its parts, for tuning too.

        A product costs as much again in the backward pass for the gradient of its input, and once
        more for that of its matrix, where the matrix learns.

        Args:
            context_tokens: Keys that a token sees on average; see `causal_context`.
            start: The first block that gradients go through; those below run forward only.
            trained: Scalars of multiplied matrices that learn; all by default.
            added: Scalars of matrices that a tuning method has put beside them; they learn.
            recomputed: Whether blocks from `start` on keep their inputs alone.
        """
        layers, heads = self.config.num_hidden_layers, self.config.num_attention_heads
        share = (layers - start) / layers
        head = self.config.vocab_size * self.config.hidden_size
        above = (self.matrix_parameters - head) * share  # scalars of blocks with gradients
        learning = self.matrix_parameters if trained is None else trained
        attention = 4 * context_tokens * heads * self.config.head_dim * layers
        return TrainingFlops(
            forward=2 * (self.matrix_parameters + added),
            backward=2 * (above + head) + 2 * learning + 4 * added,
            attention=attention * (1 + 2 * share),
            recomputed=2 * (above + added) + attention * share if recomputed else 0.0,
        )

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
