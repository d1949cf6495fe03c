"""Quantized blocks to float32 and back, in torch, equal bit for bit to the gguf package.

A block is a run of values along a row that share a scale; its bytes are laid out as in ggml's
ggml-common.h. Names here: d scale, m minimum, q quants, n blocks in a chunk.

Decoding is most of the time that loading a quantized model takes; these are faster than the
numpy of the gguf package for the 32-value types, and use all cores on large tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from puna.store.gguf_header import TENSOR_TYPES

# Values decoded at a time. Below 2^15 torch runs an operation on the calling thread, and a chunk
# stays in the cache: best for most tensors, and steady on a busy machine, where threads that wait
# for one another lose far more than they win. Only large tensors are worth all cores.
_SERIAL_CHUNK, _PARALLEL_CHUNK = 120 * 256, 1 << 22
_LARGE = 1 << 24
_QUANTIZED_ROWS = 1 << 15

BLOCKS: Mapping[str, tuple[int, int]] = {
    name: (values, nbytes) for name, values, nbytes in TENSOR_TYPES.values()
}
"""By type: values and bytes per block."""


def dequantize(raw: Tensor, stored: str) -> Tensor:
    """Decode quantized blocks.

    Args:
        raw: uint8, flat: whole blocks.
        stored: The type: Q8_0, Q4_K ...

    Returns:
        float32, flat.
    """
    decode = _DECODERS[stored]
    values, nbytes = BLOCKS[stored]
    blocks = raw.view(-1, nbytes)
    out = torch.empty(len(blocks), values)
    step = (_PARALLEL_CHUNK if out.numel() >= _LARGE else _SERIAL_CHUNK) // values
    for start in range(0, len(blocks), step):
        decode(blocks[start : start + step], out[start : start + step])
    return out.view(-1)


def quantize_q8_0(tensor: Tensor) -> Tensor:
    """Encode as Q8_0: 32 values share a float16 scale, the largest magnitude / 127.

    Rounds half away from zero, as ggml does.

    Args:
        tensor: Floating, its last dimension a multiple of 32.

    Returns:
        uint8, flat: 34 bytes per block.
    """
    rows = tensor.reshape(-1, 32)
    out = torch.empty(len(rows), 34, dtype=torch.uint8)
    for start in range(0, len(rows), _QUANTIZED_ROWS):
        x = rows[start : start + _QUANTIZED_ROWS].float()
        part = out[start : start + _QUANTIZED_ROWS]
        d = x.abs().amax(1, keepdim=True) / 127
        q = x * torch.where(d == 0, 0.0, 1 / d)
        q = torch.sign(q) * _round_half_up(q.abs())
        part[:, :2] = d.half().view(torch.uint8)
        part[:, 2:] = q.to(torch.int8).view(torch.uint8)
    return out.view(-1)


def _round_half_up(x: Tensor) -> Tensor:
    floor = x.floor()
    return floor + (2 * (x - floor)).floor()


def _halves(bytes_: Tensor) -> Tensor:
    """[n, 2k] bytes -> [n, k] float32, stored as float16."""
    return bytes_.contiguous().view(torch.float16).float()


def _nibbles(q: Tensor, group: int) -> Tensor:
    """[n, k] bytes -> [n, 2k]: of each `group` bytes first the low halves, then the high ones."""
    q = q.view(len(q), -1, group)
    out = torch.empty(len(q), q.shape[1], 2, group, dtype=torch.uint8)
    torch.bitwise_and(q, 15, out=out[:, :, 0])
    torch.bitwise_right_shift(q, 4, out=out[:, :, 1])
    return out.flatten(1)


def _high_bits(qh: Tensor) -> Tensor:
    """[n, 4] bytes -> [n, 32]: the fifth bit of each value, times 16."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return ((qh.unsqueeze(2) >> shifts & 1) << 4).flatten(1)


def _q4_0(b: Tensor, out: Tensor) -> None:
    q = _nibbles(b[:, 2:], 16).view(torch.int8).sub_(8)
    torch.mul(q, _halves(b[:, :2]), out=out)


def _q4_1(b: Tensor, out: Tensor) -> None:
    dm = _halves(b[:, :4])
    torch.mul(_nibbles(b[:, 4:], 16), dm[:, :1], out=out)
    out.add_(dm[:, 1:])


def _q5_0(b: Tensor, out: Tensor) -> None:
    q = _nibbles(b[:, 6:], 16) | _high_bits(b[:, 2:6])
    torch.mul(q.view(torch.int8).sub_(16), _halves(b[:, :2]), out=out)


def _q5_1(b: Tensor, out: Tensor) -> None:
    dm = _halves(b[:, :4])
    torch.mul(_nibbles(b[:, 8:], 16) | _high_bits(b[:, 4:8]), dm[:, :1], out=out)
    out.add_(dm[:, 1:])


def _q8_0(b: Tensor, out: Tensor) -> None:
    torch.mul(b[:, 2:].view(torch.int8), _halves(b[:, :2]), out=out)


def _crumbs(q: Tensor, group: int, parts: int) -> Tensor:
    """[n, k] bytes -> [n, parts * k]: of each `group` bytes their lowest two bits, the next ..."""
    shifts = torch.arange(0, 2 * parts, 2, dtype=torch.uint8).view(-1, 1)
    return (q.view(len(q), -1, 1, group) >> shifts & 3).flatten(1)


def _q2_k(b: Tensor, out: Tensor) -> None:
    d = _halves(b[:, 80:84])
    scales = (b[:, :16] & 15) * d[:, :1]
    minima = (b[:, :16] >> 4) * d[:, 1:]
    q = _crumbs(b[:, 16:80], 32, 4).view(-1, 16, 16)
    view = out.view(-1, 16, 16)
    torch.mul(q, scales.unsqueeze(2), out=view)
    view.sub_(minima.unsqueeze(2))


def _q3_k(b: Tensor, out: Tensor) -> None:
    low = _nibbles(b[:, 96:104], 8)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8).view(-1, 1)
    high = (b[:, 104:108].unsqueeze(1) >> shifts & 3).flatten(1)
    scales = (low | high << 4).view(torch.int8).sub_(32) * _halves(b[:, 108:110])
    bits = torch.arange(8, dtype=torch.uint8).view(-1, 1)
    # The mask says where the third bit is *not* to be taken off.
    off = ((b[:, :32].unsqueeze(1) >> bits & 1) ^ 1).flatten(1) << 2
    q = _crumbs(b[:, 32:96], 32, 4).view(torch.int8) - off.view(torch.int8)
    torch.mul(q.view(-1, 16, 16), scales.unsqueeze(2), out=out.view(-1, 16, 16))


def _six_bits(b: Tensor) -> tuple[Tensor, Tensor]:
    """The 12 bytes of Q4_K and Q5_K -> eight scales and eight minima of six bits, each [n, 8]."""
    d, m, high = b[:, :4], b[:, 4:8], b[:, 8:12]
    scales = torch.cat([d & 63, (high & 15) | (d >> 2 & 48)], dim=1)
    minima = torch.cat([m & 63, (high >> 4) | (m >> 2 & 48)], dim=1)
    return scales, minima


def _affine_k(b: Tensor, q: Tensor, out: Tensor) -> None:
    """Q4_K and Q5_K: 8 groups of 32 quants [n, 256], each with its scale and minimum."""
    d = _halves(b[:, :4])
    scales, minima = _six_bits(b[:, 4:16])
    view = out.view(-1, 8, 32)
    torch.mul(q.view(-1, 8, 32), (scales * d[:, :1]).unsqueeze(2), out=view)
    view.sub_((minima * d[:, 1:]).unsqueeze(2))


def _q4_k(b: Tensor, out: Tensor) -> None:
    _affine_k(b, _nibbles(b[:, 16:], 32), out)


def _q5_k(b: Tensor, out: Tensor) -> None:
    bits = torch.arange(8, dtype=torch.uint8).view(-1, 1)
    high = (b[:, 16:48].unsqueeze(1) >> bits & 1).flatten(1) << 4
    _affine_k(b, _nibbles(b[:, 48:], 32) | high, out)


def _q6_k(b: Tensor, out: Tensor) -> None:
    scales = b[:, 192:208].view(torch.int8) * _halves(b[:, 208:210])
    q = _nibbles(b[:, :128], 64) | _crumbs(b[:, 128:192], 32, 4) << 4
    q = q.view(torch.int8).sub_(32).view(-1, 16, 16)
    torch.mul(q, scales.unsqueeze(2), out=out.view(-1, 16, 16))


def _q8_k(b: Tensor, out: Tensor) -> None:
    d = b[:, :4].contiguous().view(torch.float32)
    torch.mul(b[:, 4:260].view(torch.int8), d, out=out)


_DECODERS: Mapping[str, Callable[[Tensor, Tensor], None]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "Q8_K": _q8_k,
}
