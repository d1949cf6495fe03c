"""From an `AttentionSpec` to calls of scaled-dot-product attention; no T x T tensor anywhere.

A `Plan` is made once per forward pass and shared by all blocks. Plain causal or bidirectional
batches are one call; packed or padded ones are a call per span; windows, prefixes and long
continuations go block by block over the queries, with masks of at most BLOCK x S.

Shapes: B batch, T tokens, S key slots, H query heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.errors import InputError
from puna.model.attention import AttentionSpec, Mode, Span, prefix_lengths, spans
from puna.model.cache import KVCache

BLOCK_TOKENS = 256


class Plan(Protocol):
    """How one forward pass attends."""

    @property
    def positions(self) -> Tensor:
        """Rotary position of each token, from 0 in its document: [T] or [B, T]."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend q [B, H, T, D] to k, v [B, K, S, D]; returns [B, H, T, D]."""
        ...


def lower(
    spec: AttentionSpec,
    *,
    batch: int,
    tokens: int,
    device: torch.device,
    window_tokens: int | None = None,
    cache: KVCache | None = None,
) -> Plan:
    """Choose how to compute `spec` for `tokens` new tokens of `batch` sequences.

    Args:
        window_tokens: The model's own sliding window; the narrower of it and the spec's counts.
        cache: What the new tokens continue, if anything.

    Raises:
        InputError: The spec cannot be continued from a cache.
    """
    windows = [w for w in (spec.window_tokens, window_tokens) if w is not None]
    window = min(windows) if windows else None
    held = [0] * batch if cache is None else cache.lengths
    if len(held) != batch:
        raise InputError(f"the cache holds {len(held)} sequences, the input has {batch}")
    if any(held):
        return _lower_continuation(spec, held, tokens, device, window)
    if cache is not None and spec.valid is not None and not bool(spec.valid[:, 0].all()):
        raise InputError("a cache takes padding on the right only, not on the left")
    if cache is not None and spec.document_ids is not None:
        raise InputError("a cache holds one document per sequence, not packed ones")
    found = spans(spec, batch, tokens)
    if len(found) == 1 and len(found[0].rows) == batch and found[0].stop - found[0].start == tokens:
        return WholePlan(torch.arange(tokens, device=device), spec.mode, found[0].prefix, window)
    if not found:  # padding alone: zero outputs, with zero gradients rather than none
        assert spec.valid is not None
        return RightPaddedPlan(torch.arange(tokens, device=device), spec.valid[:, None, :, None])
    if device.type == "cuda":
        from puna.model.flex import FlexPlan

        return FlexPlan.make(spec, found, batch, tokens, device, window)
    positions = span_positions(found, batch, tokens, device)
    if spec.mode == "causal" and spec.document_ids is None and window is None:
        assert spec.valid is not None
        if bool(spec.valid[:, 0].all()):  # padding on the right is never seen by a causal query
            arange = torch.arange(tokens, device=device)
            return RightPaddedPlan(arange, spec.valid[:, None, :, None])
    return SpanPlan(positions, spec.mode, found, window)


def span_positions(found: list[Span], batch: int, tokens: int, device: torch.device) -> Tensor:
    """Rotary positions [B, T]: from 0 in every span.

    Padding has its column, so that in a cache it never takes the slot of a real token.
    """
    positions = torch.arange(tokens).repeat(batch, 1)
    for span in found:
        positions[list(span.rows), span.start : span.stop] = torch.arange(span.stop - span.start)
    return positions.to(device)


@dataclass(frozen=True)
class WholePlan:
    """All rows are one document each and have no padding."""

    positions: Tensor
    mode: Mode
    prefix: int
    window: int | None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend q [B, H, T, D] to k, v [B, K, T, D]."""
        return attend_span(q, k, v, mode=self.mode, prefix=self.prefix, window=self.window)


@dataclass(frozen=True)
class RightPaddedPlan:
    """Causal rows padded on the right: one call, then the padding's outputs are set to zero."""

    positions: Tensor
    valid: Tensor  # [B, 1, T, 1]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend q [B, H, T, D] to k, v [B, K, T, D]."""
        return attend_span(q, k, v, mode="causal", prefix=0, window=None) * self.valid


@dataclass(frozen=True)
class SpanPlan:
    """One call per group of equal spans: the cost is that of the documents, not of T squared."""

    positions: Tensor
    mode: Mode
    spans: list[Span]
    window: int | None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend q [B, H, T, D] to k, v [B, K, T, D]; zero where no span reaches."""
        lengths = self._lengths()
        if q.shape[0] == 1 and sum(lengths) == q.shape[2]:
            # One row that is packed full. Splitting and joining once costs the backward pass one
            # tensor of the row's size; slices would cost it one each.
            k, v = _repeat_heads(q, k, v)
            parts = [torch.split(part, lengths, 2) for part in (q, k, v)]
            spans = zip(self.spans, *parts, strict=True)
            return torch.cat([self._attend(*span) for span in spans], 2)
        out = torch.zeros_like(q)
        batch = q.shape[0]
        for span in self.spans:
            rows = slice(None) if len(span.rows) == batch else list(span.rows)
            extent = slice(span.start, span.stop)
            out[rows, :, extent] = self._attend(
                span, q[rows][:, :, extent], k[rows][:, :, extent], v[rows][:, :, extent]
            )
        return out

    def _lengths(self) -> list[int]:
        return [span.stop - span.start for span in self.spans]

    def _attend(self, span: Span, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend_span(q, k, v, mode=self.mode, prefix=span.prefix, window=self.window)


@dataclass(frozen=True)
class StepPlan:
    """One new token per sequence over a cache: the queries of a group share one pass over k, v."""

    positions: Tensor  # [1] or [B, 1]
    seen: Tensor | None  # [B or 1, 1, 1, S] bool; None when every slot is seen

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend q [B, H, 1, D] to k, v [B, K, S, D]."""
        batch, heads, _, dim = q.shape
        grouped = q.view(batch, k.shape[1], heads // k.shape[1], dim)
        out = F.scaled_dot_product_attention(grouped, k, v, attn_mask=self.seen)
        return out.view(batch, heads, 1, dim)


@dataclass(frozen=True)
class ContinuationPlan:
    """Several new tokens per sequence over a cache, block by block."""

    positions: Tensor  # [T] or [B, T]
    window: int | None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend q [B, H, T, D] to k, v [B, K, S, D]; slot s holds position s."""
        k, v = _repeat_heads(q, k, v)
        queries = self.positions if self.positions.dim() == 2 else self.positions[None]
        slots = torch.arange(k.shape[2], device=k.device)
        parts = []
        for start, stop in _blocks(q.shape[2]):
            position = queries[:, None, start:stop, None]
            seen = slots <= position
            if self.window is not None:
                seen = seen & (slots > position - self.window)
            block = q[:, :, start:stop]
            parts.append(F.scaled_dot_product_attention(block, k, v, attn_mask=seen))
        return torch.cat(parts, 2)


def attend_span(
    q: Tensor, k: Tensor, v: Tensor, *, mode: Mode, prefix: int, window: int | None
) -> Tensor:
    """Attention of one span [B, H, T, D] to itself."""
    tokens = q.shape[2]
    if window is not None and window >= tokens:
        window = None
    if mode == "prefix" and prefix >= tokens:
        mode = "bidirectional"
    elif mode == "prefix" and prefix <= 1:
        mode = "causal"
    k, v = _repeat_heads(q, k, v)
    if mode != "prefix" and window is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=mode == "causal")
    seen_ahead = tokens if mode == "bidirectional" else prefix if mode == "prefix" else 0
    parts = []
    for start, stop in _blocks(tokens):
        low = 0 if window is None else max(0, start - window + 1)
        high = max(stop, seen_ahead)
        if window is not None:
            high = min(high, stop + window - 1)
        high = min(high, tokens)
        query = torch.arange(start, stop, device=q.device)[:, None]
        key = torch.arange(low, high, device=q.device)[None]
        seen = (key <= query) | (key < seen_ahead)
        if window is not None:
            seen = seen & ((query - key).abs() < window)
        part = (q[:, :, start:stop], k[:, :, low:high], v[:, :, low:high])
        parts.append(F.scaled_dot_product_attention(*part, attn_mask=seen))
    return torch.cat(parts, 2)


def _lower_continuation(
    spec: AttentionSpec, held: Sequence[int], tokens: int, device: torch.device, window: int | None
) -> Plan:
    if spec.mode == "bidirectional":
        raise InputError("bidirectional attention cannot be continued from a cache")
    if spec.document_ids is not None or spec.valid is not None:
        raise InputError("tokens that continue a cache are neither padded nor packed")
    for prefix, length in zip(prefix_lengths(spec, len(held)), held, strict=True):
        if prefix > length:  # its tokens that are held could no longer look ahead
            raise InputError(
                f"the prefix of {prefix} tokens is longer than the {length} held: "
                "pass a prefix as a whole"
            )
    uniform = len(set(held)) == 1
    if uniform:
        positions = torch.arange(held[0], held[0] + tokens, device=device)
    else:
        positions = torch.tensor(held, device=device)[:, None] + torch.arange(tokens, device=device)
    if tokens > 1:
        return ContinuationPlan(positions, window)
    if uniform and (window is None or held[0] < window):
        return StepPlan(positions, None)
    slots = torch.arange(max(held) + 1, device=device)
    last = positions.view(-1, 1, 1, 1)
    seen = slots <= last
    if window is not None:
        seen = seen & (slots > last - window)
    return StepPlan(positions, seen)


def _repeat_heads(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    groups = q.shape[1] // k.shape[1]
    if groups == 1:
        return k, v
    return k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)


def _blocks(tokens: int) -> Iterator[tuple[int, int]]:
    for start in range(0, tokens, BLOCK_TOKENS):
        yield start, min(start + BLOCK_TOKENS, tokens)
