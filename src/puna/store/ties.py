"""A tied head: the same matrix as the embedding, stored once or twice, and always kept once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch

from puna.errors import InputError
from puna.store.checkpoint import LazyTensor

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def tie_head(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Drop a stored head that the config ties.

    The embedding, when it is read, is compared with the head: a difference is an error, since
    the config then contradicts the weights.
    """
    kept = dict(tensors)
    if HEAD in kept and EMBEDDING in kept:
        head, embedding = kept.pop(HEAD), kept[EMBEDDING]
        kept[EMBEDDING] = replace(embedding, load=partial(_load_tied, embedding, head))
    return kept


def _load_tied(embedding: LazyTensor, head: LazyTensor) -> torch.Tensor:
    values = embedding.load()
    if head.shape != embedding.shape or not torch.equal(head.load(), values):
        raise InputError(
            f"the config says tie_word_embeddings = true, but {HEAD!r} differs from {EMBEDDING!r}",
            where=head.file,
            fix="set tie_word_embeddings to false in the config, or remove the tensor",
        )
    head.release()
    return values
