"""A forward pass that holds one block of weights at a time: for models larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from puna.model.attention import AttentionSpec
from puna.model.config import LlamaConfig
from puna.model.llama import LlamaModel

EMBEDDING = "model.embed_tokens.weight"


class Stage(NamedTuple):
    """The output of one part of the model."""

    name: str  # embedding, block N, or logits
    values: Tensor  # [B, T, M], and for the logits [B, T, V]


@torch.inference_mode()
def forward_by_block(
    config: LlamaConfig,
    load: Callable[[str], Tensor],
    ids: Tensor,
    attention: AttentionSpec | None = None,
) -> Iterator[Stage]:
    """Run ids [B, T] through a model whose weights are read when they are needed, in float32.

    Args:
        config: The shape.
        load: Gives the tensor of a Hugging Face name; it may be let go when the next is asked for.
        ids: Token ids [B, T].
        attention: Causal by default.

    Yields:
        The hidden states after the embedding and after each block, and the logits.
    """
    with torch.device("meta"):
        model = LlamaModel(config)
    trunk = model.model
    _fill(trunk.embed_tokens, EMBEDDING.removesuffix("weight"), load)
    hidden = model.embed(ids)
    _empty(trunk.embed_tokens)
    yield Stage("embedding", hidden)
    for layer, block in enumerate(trunk.layers):
        _fill(block, f"model.layers.{layer}.", load)
        hidden = model.run(hidden, layer, layer + 1, attention)
        _empty(block)
        yield Stage(f"block {layer}", hidden)
    _fill(trunk.norm, "model.norm.", load)
    head = EMBEDDING if config.tie_word_embeddings else "lm_head.weight"
    _fill(model.lm_head, head.removesuffix("weight"), load)
    logits = model.head(hidden)
    _empty(model.lm_head)
    yield Stage("logits", logits)


def _fill(module: nn.Module, prefix: str, load: Callable[[str], Tensor]) -> None:
    for name, _ in list(module.named_parameters()):
        path, _, leaf = name.rpartition(".")
        values = nn.Parameter(load(prefix + name).float(), requires_grad=False)
        setattr(module.get_submodule(path), leaf, values)


def _empty(module: nn.Module) -> None:
    for name, parameter in list(module.named_parameters()):
        path, _, leaf = name.rpartition(".")
        nothing = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        setattr(module.get_submodule(path), leaf, nothing)
