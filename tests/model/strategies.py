"""Attention specs for hypothesis: everything that `AttentionSpec` can say, in small."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from puna.model import AttentionSpec


class Problem(NamedTuple):
    """A spec, the shapes it is for, and the model's own window."""

    spec: AttentionSpec
    batch: int
    tokens: int
    kv_heads: int
    groups: int  # query heads per key/value head
    window: int | None  # the model's own

    def qkv(self, slots: int | None = None, dim: int = 4) -> tuple[Tensor, Tensor, Tensor]:
        """Random q [B, H, T, D] and k, v [B, K, S, D] that need gradients."""
        generator = torch.Generator().manual_seed(7)
        heads = (self.kv_heads * self.groups, self.kv_heads, self.kv_heads)
        lengths = (self.tokens, slots or self.tokens, slots or self.tokens)
        made = [
            torch.randn(self.batch, h, n, dim, generator=generator).mul_(1.5).requires_grad_()
            for h, n in zip(heads, lengths, strict=True)
        ]
        return made[0], made[1], made[2]


def _valid(draw: st.DrawFn, batch: int, tokens: int) -> Tensor | None:
    side = draw(st.sampled_from(["none", "left", "right", "both"]))
    if side == "none":
        return None
    valid = torch.ones(batch, tokens, dtype=torch.bool)
    for row in range(batch):
        lost = draw(st.integers(0, tokens))
        left = {"left": lost, "right": 0}.get(side, draw(st.integers(0, lost)))
        valid[row, :left] = False
        valid[row, tokens - (lost - left) :] = False
    return valid


def _documents(draw: st.DrawFn, batch: int, tokens: int) -> Tensor | None:
    if not draw(st.booleans()):
        return None
    ids = st.lists(st.integers(0, 3), min_size=tokens, max_size=tokens)
    rows = [draw(ids) for _ in range(batch)]
    if draw(st.booleans()):  # long runs
        rows = [sorted(row, reverse=True) for row in rows]
    return torch.tensor(rows)


@st.composite
def problems(draw: st.DrawFn, max_tokens: int = 13) -> Problem:
    """Any mode, with documents, windows and padding where the mode takes them."""
    batch, tokens = draw(st.integers(1, 3)), draw(st.integers(1, max_tokens))
    mode = draw(st.sampled_from(["causal", "bidirectional", "prefix"]))
    prefix = st.lists(st.integers(0, tokens + 2), min_size=batch, max_size=batch)
    window = st.none() | st.integers(1, tokens + 2)
    spec = AttentionSpec(
        mode=mode,
        prefix_len=torch.tensor(draw(prefix)) if mode == "prefix" else None,
        document_ids=None if mode == "prefix" else _documents(draw, batch, tokens),
        window_tokens=draw(window),
        valid=_valid(draw, batch, tokens),
    )
    return Problem(
        spec,
        batch,
        tokens,
        kv_heads=draw(st.integers(1, 2)),
        groups=draw(st.integers(1, 3)),
        window=draw(window),
    )
