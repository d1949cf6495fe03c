"""How likely a model finds a text: log-likelihoods per token, and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from puna.errors import InputError
from puna.model import AttentionSpec, LlamaModel

HEAD_TOKENS = 256  # positions whose logits exist at a time


@dataclass(frozen=True)
class Score:
    """The log-likelihood of one text."""

    ids: tuple[int, ...]  # all tokens, with the beginning-of-text token where the model has one
    logprobs: tuple[float, ...]  # natural logarithm of ids[1:], each given what is before it
    bytes: int  # UTF-8 bytes of the text that `logprobs` covers

    @property
    def total(self) -> float:
        """Sum of the log-likelihoods, nats."""
        return math.fsum(self.logprobs)

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs per byte of text: comparable between vocabularies."""
        return -self.total / math.log(2) / self.bytes if self.bytes else 0.0

    @property
    def perplexity(self) -> float:
        """Exp of the mean negative log-likelihood per token."""
        return math.exp(-self.total / len(self.logprobs)) if self.logprobs else 1.0


def score(
    model: LlamaModel, texts: Sequence[Sequence[int]], *, max_batch_tokens: int = 8192
) -> list[list[float]]:
    """Log-likelihoods of ids[1:] of every text, in nats.

    Args:
        model: On any device.
        texts: Token ids; a text of fewer than two tokens has nothing to score.
        max_batch_tokens: Tokens per forward pass, padding included.

    Raises:
        InputError: A text is longer than the model's context.
    """
    context = model.config.max_position_embeddings
    for index, ids in enumerate(texts):
        if len(ids) > context:
            raise InputError(
                f"has {len(ids)} tokens; the model's context is {context}",
                where=f"text {index + 1}",
                fix="cut the text into pieces",
            )
    found: list[list[float]] = [[] for _ in texts]
    with torch.inference_mode():
        for rows in _batches(texts, max_batch_tokens):
            values = _score_batch(model, [texts[row] for row in rows])
            for row, own in zip(rows, values, strict=True):
                found[row] = own
    return found


def _batches(texts: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for row in sorted(
        (r for r in range(len(texts)) if len(texts[r]) > 1), key=lambda r: len(texts[r])
    ):
        if batch and (len(batch) + 1) * len(texts[row]) > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _score_batch(model: LlamaModel, texts: list[Sequence[int]]) -> list[list[float]]:
    device = next(model.parameters()).device
    lengths = [len(ids) for ids in texts]
    ids = torch.zeros(len(texts), max(lengths), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(list(text))
    ids = ids.to(device)
    valid = (
        torch.arange(ids.shape[1], device=device) < torch.tensor(lengths, device=device)[:, None]
    )
    spec = AttentionSpec(valid=None if bool(valid.all()) else valid)
    hidden = model.run(model.embed(ids), attention=spec)
    predicting = valid[:, 1:]
    flat = _token_logprobs(model, hidden[:, :-1][predicting], ids[:, 1:][predicting]).tolist()
    values, start = [], 0
    for length in lengths:
        values.append(flat[start : start + length - 1])
        start += length - 1
    return values


def _token_logprobs(model: LlamaModel, hidden: Tensor, targets: Tensor) -> Tensor:
    parts = [
        model.head(hidden[start : start + HEAD_TOKENS])
        .float()
        .log_softmax(-1)
        .gather(1, targets[start : start + HEAD_TOKENS, None])[:, 0]
        for start in range(0, len(targets), HEAD_TOKENS)
    ]
    return torch.cat(parts)
