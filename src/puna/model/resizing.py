"""A model with rows for more tokens, which begin as what stood in their place.

Source: Gee et al. 2022, Fast Vocabulary Transfer for Language Model Compression (arXiv 2402.09977):
a new token's embedding is the mean of those of the old tokens that spell it.

Shapes: V vocab_size, M hidden_size, N new tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from puna.errors import InputError
from puna.model.llama import LlamaModel
from puna.model.weights import load_weights

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_CHUNK_TOKENS = 1024  # new ones whose old rows are gathered at a time


def with_more_tokens(
    model: LlamaModel, origins: Sequence[Sequence[int]], *, start: int | None = None
) -> LlamaModel:
    """The model with rows of embedding and head for new tokens, means of old rows.

    Logits of old tokens stay what they are. All other parameters are shared with `model`, not
    copied; whether each is trained is kept.

    Args:
        model: A model that no surgery has changed.
        origins: By new token: the old ids whose rows it begins as the mean of.
        start: The id of the first new token; one past the last row by default. Below that, rows
            that no token used become those of new ones.

    Raises:
        InputError: An origin is empty or names no old id; `start` is beyond the rows; the model's
            parameters are not those of a plain LLaMA.
    """
    rows = model.config.vocab_size
    start = rows if start is None else start
    if not 0 < start <= rows:
        raise InputError(f"new tokens from the id {start} on: the model has {rows} rows")
    _check_origins(origins, start)
    config = replace(model.config, vocab_size=max(rows, start + len(origins)))
    with torch.device("meta"):
        grown = LlamaModel(config)
    held = dict(model.named_parameters())
    names = dict(grown.named_parameters()).keys()
    if held.keys() != names:
        odd = sorted(held.keys() ^ names)[0]
        raise InputError(
            f"the model has been changed: {odd!r} is not where a LLaMA has it",
            fix="add tokens first, then what tuning adds to the model",
        )
    load_weights(grown, _tensors(held, origins, start))
    for name, parameter in grown.named_parameters():
        parameter.requires_grad_(held[name].requires_grad)
    return grown.train(model.training)


def _tensors(
    held: dict[str, torch.nn.Parameter], origins: Sequence[Sequence[int]], start: int
) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in held.items():
        table = parameter.detach()
        if name in (_EMBEDDING, _HEAD):
            after = table[start + len(origins) :]
            table = torch.cat([table[:start], *_means(table, origins), after])
        yield name, table


def _means(table: Tensor, origins: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """Means of rows of [V, M], float32 at least, in parts of [at most _CHUNK_TOKENS, M]."""
    wide = torch.promote_types(table.dtype, torch.float32)
    for start in range(0, len(origins), _CHUNK_TOKENS):
        part = origins[start : start + _CHUNK_TOKENS]
        counts = torch.tensor([len(origin) for origin in part], device=table.device)
        old = torch.tensor([index for origin in part for index in origin], device=table.device)
        owner = torch.repeat_interleave(torch.arange(len(part), device=table.device), counts)
        sums = table.new_zeros((len(part), table.shape[1]), dtype=wide)
        sums.index_add_(0, owner, table[old].to(wide))
        yield (sums / counts[:, None]).to(table.dtype)


def _check_origins(origins: Sequence[Sequence[int]], start: int) -> None:
    for number, origin in enumerate(origins):
        if not origin:
            raise InputError(f"new token {start + number} has no old token to begin as")
        for index in origin:
            if not 0 <= index < start:
                raise InputError(
                    f"new token {start + number} begins as token {index}; expected an old id, "
                    f"from 0 to {start - 1}"
                )
