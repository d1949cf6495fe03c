"""The same specs lowered to FlexAttention: for devices where one fused kernel beats many calls."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from puna.model.attention import AttentionSpec, Span
from puna.model.lowering import span_positions


@dataclass(frozen=True)
class FlexPlan:
    """A block mask over the whole batch; see `Plan` in `puna.model.lowering`."""

    positions: Tensor  # [B, T]
    mask: BlockMask
    spanned: Tensor  # [B, 1, T, 1] bool: False on padding
    compiled: bool

    @classmethod
    def make(
        cls,
        spec: AttentionSpec,
        found: list[Span],
        batch: int,
        tokens: int,
        device: torch.device,
        window: int | None,
    ) -> FlexPlan:
        """Number the spans of every row, and let the mask compare the numbers."""
        number = torch.full((batch, tokens), -1)
        prefix = torch.zeros(batch, dtype=torch.long)
        for index, span in enumerate(found):
            rows, extent = list(span.rows), slice(span.start, span.stop)
            number[rows, extent] = index
            prefix[rows] = span.prefix
        number, prefix = number.to(device), prefix.to(device)
        positions = span_positions(found, batch, tokens, device)
        bidirectional = spec.mode == "bidirectional"
        reach = tokens if window is None else window

        def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            here, there = positions[b, query], positions[b, key]
            same = (number[b, query] == number[b, key]) & (number[b, query] >= 0)
            ordered = (there <= here) | (there < prefix[b])
            if bidirectional:
                ordered = ordered | True
            return same & ordered & ((here - there).abs() < reach)

        mask = create_block_mask(
            seen, batch, None, tokens, tokens, device=str(device), _compile=device.type == "cuda"
        )
        spanned = (number >= 0)[:, None, :, None]
        return cls(positions, mask, spanned, compiled=device.type == "cuda")

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend q [B, H, T, D] to k, v [B, K, T, D]; zero on padding."""
        kernel = torch.compile(flex_attention) if self.compiled else flex_attention
        out = kernel(q, k, v, block_mask=self.mask, enable_gqa=q.shape[1] != k.shape[1])
        assert isinstance(out, Tensor)
        return torch.where(self.spanned, out, 0.0)
