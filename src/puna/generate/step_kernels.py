"""One decoding step of a small batch on CPU, a block at a time, in Numba.

Eager torch spends a quarter of such a step between its operations, and reads weights at two thirds
of the memory's speed. Here a block is five parallel passes over rows. `tests/generate` holds the
kernels equal to the model itself, which is their slow twin.

Shapes: B batch, M hidden_size, F intermediate_size, H query heads, K key/value heads, D head_dim,
S cache slots, V vocab_size. All arrays are float32 but for the spans.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

Array = Any  # a numpy array; Numba compiles for what it is given
# Sums may be taken in another order; NaN and infinity keep their meaning.
_OPTIONS: Any = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "cache": True, "nogil": True}


@njit(**_OPTIONS)
def _dot(row: Array, x: Array) -> Any:
    total = np.float32(0)
    for i in range(x.shape[0]):
        total += row[i] * x[i]
    return total


@njit(**_OPTIONS)
def _dot4(row: Array, x: Array, b: int) -> Any:
    """Four products that share one reading of the row."""
    s0 = s1 = s2 = s3 = np.float32(0)
    for i in range(row.shape[0]):
        w = row[i]
        s0 += w * x[b, i]
        s1 += w * x[b + 1, i]
        s2 += w * x[b + 2, i]
        s3 += w * x[b + 3, i]
    return s0, s1, s2, s3


@njit(**_OPTIONS)
def _dots(row: Array, x: Array, out: Array) -> None:
    """out[b] = row . x[b]."""
    b = 0
    while b + 4 <= x.shape[0]:
        out[b], out[b + 1], out[b + 2], out[b + 3] = _dot4(row, x, b)
        b += 4
    while b < x.shape[0]:
        out[b] = _dot(row, x[b])
        b += 1


@njit(**_OPTIONS)
def _normalise(x: Array, weight: Array, eps: float, out: Array) -> None:
    for b in range(x.shape[0]):
        scale = np.float32(1) / np.sqrt(_dot(x[b], x[b]) / np.float32(x.shape[1]) + eps)
        for i in range(x.shape[1]):
            out[b, i] = x[b, i] * scale * weight[i]


@njit(**_OPTIONS)
def _rotate(head: Array, cos: Array, sin: Array) -> None:
    half = head.shape[0] // 2
    for i in range(half):
        a, b = head[i], head[i + half]
        head[i] = a * cos[i] - b * sin[i]
        head[i + half] = b * cos[i] + a * sin[i]


@njit(**_OPTIONS)
def _attend(q: Array, keys: Array, values: Array, span: Array, scores: Array, out: Array) -> None:
    scale = np.float32(1) / np.sqrt(np.float32(q.shape[0]))
    largest = np.float32(-np.inf)
    for s in range(span[0], span[1]):
        scores[s] = _dot(keys[s], q) * scale
        largest = max(largest, scores[s])
    total = np.float32(0)
    for s in range(span[0], span[1]):
        scores[s] = np.exp(scores[s] - largest)
        total += scores[s]
    out[:] = np.float32(0)
    for s in range(span[0], span[1]):
        share = scores[s] / total
        for d in range(q.shape[0]):
            out[d] += share * values[s, d]


@njit(parallel=True, **_OPTIONS)
def attention_step(
    x: Array,
    weights: Array,
    cache: Array,
    angles: Array,
    spans: Array,
    eps: float,
    work: Array,
) -> None:
    """Pass one token per sequence through attention; `x` [B, M] is changed in place.

    Args:
        x: The residual stream [B, M].
        weights: norm [M], q [H*D, M], k [K*D, M], v [K*D, M], o [M, H*D].
        cache: Keys and values of this layer, [B, K, S, D] each; slot `spans[b, 1] - 1` is written.
        angles: Cosines and sines [2, B, D/2].
        spans: First slot seen and one past the last, int64 [B, 2].
        eps: Of the norm.
        work: normed [B, M], heads [B, H*D], mixed [B, H*D], scores [B, H, S], rows [R, 2, B] with
            R the most rows of any pass.
    """
    norm, wq, wk, wv, wo = weights
    keys, values = cache
    normed, heads, mixed, scores, rows = work
    batch, kv_heads, dim = x.shape[0], keys.shape[1], keys.shape[3]
    queries, kv = wq.shape[0], wk.shape[0]
    count = queries // dim
    _normalise(x, norm, eps, normed)
    for row in prange(queries + 2 * kv):
        out = rows[row, 0]
        if row < queries:
            _dots(wq[row], normed, out)
            heads[:, row] = out
        else:
            is_key = row < queries + kv
            at = row - queries if is_key else row - queries - kv
            _dots(wk[at] if is_key else wv[at], normed, out)
            store = keys if is_key else values
            for b in range(batch):
                store[b, at // dim, spans[b, 1] - 1, at % dim] = out[b]
    for b in range(batch):
        for head in range(kv_heads):
            _rotate(keys[b, head, spans[b, 1] - 1], angles[0, b], angles[1, b])
    for task in prange(batch * count):
        b, head = task // count, task % count
        q = heads[b, head * dim : (head + 1) * dim]
        _rotate(q, angles[0, b], angles[1, b])
        out = mixed[b, head * dim : (head + 1) * dim]
        own = head // (count // kv_heads)
        _attend(q, keys[b, own], values[b, own], spans[b], scores[b, head], out)
    for row in prange(wo.shape[0]):
        out = rows[row, 0]
        _dots(wo[row], mixed, out)
        x[:, row] += out


@njit(parallel=True, **_OPTIONS)
def mlp_step(x: Array, weights: Array, eps: float, work: Array) -> None:
    """Pass one token per sequence through a SwiGLU; `x` [B, M] is changed in place.

    Args:
        x: The residual stream [B, M].
        weights: norm [M], gate [F, M], up [F, M], down [M, F].
        eps: Of the norm.
        work: normed [B, M], inner [B, F], rows [R, 2, B].
    """
    norm, w_gate, w_up, w_down = weights
    normed, inner, rows = work
    _normalise(x, norm, eps, normed)
    for row in prange(w_gate.shape[0]):
        gate, up = rows[row, 0], rows[row, 1]
        _dots(w_gate[row], normed, gate)
        _dots(w_up[row], normed, up)
        for b in range(x.shape[0]):
            inner[b, row] = gate[b] / (np.float32(1) + np.exp(-gate[b])) * up[b]
    for row in prange(w_down.shape[0]):
        out = rows[row, 0]
        _dots(w_down[row], inner, out)
        x[:, row] += out


@njit(parallel=True, **_OPTIONS)
def head_step(
    x: Array, norm: Array, weight: Array, eps: float, normed: Array, logits: Array
) -> None:
    """The head: residual stream [B, M] to logits [V, B], written in place."""
    _normalise(x, norm, eps, normed)
    for row in prange(weight.shape[0]):
        _dots(weight[row], normed, logits[row])
