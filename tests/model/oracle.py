"""Attention as the definition reads: a dense mask [B, T, T] and a softmax in float64.

Nothing here is shared with `puna.model`; every rule of `AttentionSpec` is one line.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from puna.model import AttentionSpec


def document_runs(spec: AttentionSpec, batch: int, tokens: int) -> Tensor:
    """[B, T]: the number of the run of equal document ids that each token stands in."""
    runs = torch.zeros(batch, tokens, dtype=torch.long)
    if spec.document_ids is not None:
        ids = spec.document_ids
        runs[:, 1:] = (ids[:, 1:] != ids[:, :-1]).long().cumsum(1)
    return runs


def dense_mask(spec: AttentionSpec, batch: int, tokens: int, window: int | None = None) -> Tensor:
    """[B, T, T] bool: may query i of row b see key j?"""
    valid = torch.ones(batch, tokens, dtype=torch.bool) if spec.valid is None else spec.valid
    runs = document_runs(spec, batch, tokens)
    i, j = torch.arange(tokens)[:, None], torch.arange(tokens)[None, :]
    if spec.mode == "bidirectional":
        mode = torch.ones(batch, tokens, tokens, dtype=torch.bool)
    else:
        mode = (j <= i).expand(batch, tokens, tokens)
    if spec.mode == "prefix":
        assert spec.prefix_len is not None
        rank = valid.long().cumsum(1) - 1  # the how-manieth real token of its row
        inside = rank < spec.prefix_len[:, None]
        mode = mode | inside[:, None, :]
    same = runs[:, :, None] == runs[:, None, :]
    real = valid[:, :, None] & valid[:, None, :]
    mask = mode & same & real
    for width in (spec.window_tokens, window):
        if width is not None:
            mask = mask & ((i - j).abs() < width)
    return mask


def dense_positions(spec: AttentionSpec, batch: int, tokens: int) -> Tensor:
    """[B, T]: rotary positions, from 0 at the first real token of each document."""
    valid = torch.ones(batch, tokens, dtype=torch.bool) if spec.valid is None else spec.valid
    runs = document_runs(spec, batch, tokens)
    positions = torch.zeros(batch, tokens, dtype=torch.long)
    for row in range(batch):
        for token in range(tokens):
            before = valid[row, :token] & (runs[row, :token] == runs[row, token])
            positions[row, token] = int(before.sum())
    return positions


def dense_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v in float64 under `mask` [B, T, S]; zero where it allows nothing.

    q is [B, H, T, D], k and v are [B, K, S, D]; query head h reads key head h // (H / K).
    """
    q, k, v = q.double(), k.double(), v.double()
    heads = torch.arange(q.shape[1]) // (q.shape[1] // k.shape[1])
    scores = q @ k[:, heads].transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~mask[:, None], -torch.inf)
    sighted = mask.any(-1)[:, None, :, None]
    weights = torch.where(sighted, scores, 0.0).softmax(-1)
    return torch.where(sighted, weights @ v[:, heads], 0.0)
