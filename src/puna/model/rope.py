"""Rotary position embeddings (Su et al. 2021, arXiv 2104.09864) in Hugging Face's half layout.

Shapes: B batch, T tokens, H heads, D head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from puna.model.config import LlamaConfig, RopeKind, RopeScaling


class Rotation(NamedTuple):
    """The angles of one forward pass, shared by all blocks: [T, D] or [B, 1, T, D]."""

    cos: Tensor
    sin: Tensor  # the first half already negated, so that a rotation is two products and a roll


def rope_frequencies(config: LlamaConfig) -> tuple[float, ...]:
    """The D/2 rotary frequencies in radians per token.

    They are computed in float32 like the reference implementation and kept as Python numbers, so
    that no `model.to(...)` can cast them.
    """
    dim = config.head_dim
    exponent = torch.arange(0, dim, 2, dtype=torch.int64, device="cpu").float() / dim
    plain = 1.0 / (config.rope_theta**exponent)
    scaled = _SCALINGS[config.rope_scaling.kind](plain, config.rope_scaling)
    return tuple(scaled.tolist())


def rotation(frequencies: tuple[float, ...], positions: Tensor, dtype: torch.dtype) -> Rotation:
    """Angles for `positions` [T] or [B, T]; computed in float32, returned in `dtype`."""
    rate = torch.tensor(frequencies, dtype=torch.float32, device=positions.device)
    angle = positions.unsqueeze(-1).float() * rate  # [..., T, D/2]
    cos, sin = angle.cos(), angle.sin()
    both = Rotation(torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype))
    if positions.dim() == 2:  # one row of angles per sequence, the same for all heads
        return Rotation(both.cos.unsqueeze(1), both.sin.unsqueeze(1))
    return both


def rotate(x: Tensor, angles: Rotation) -> Tensor:
    """Rotate queries or keys [B, H, T, D]."""
    return torch.addcmul(x * angles.cos, x.roll(x.shape[-1] // 2, -1), angles.sin)


def _linear(plain: Tensor, scaling: RopeScaling) -> Tensor:
    return plain / scaling.factor


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    wavelength = 2 * math.pi / plain  # tokens per turn
    longest = scaling.original_max_positions / scaling.low_freq_factor
    shortest = scaling.original_max_positions / scaling.high_freq_factor
    blend = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    divided = torch.where(wavelength > longest, plain / scaling.factor, plain)
    smooth = (1 - blend) * divided / scaling.factor + blend * divided
    between = (wavelength >= shortest) & (wavelength <= longest)
    return torch.where(between, smooth, divided)


def _default(plain: Tensor, scaling: RopeScaling) -> Tensor:
    return plain


_SCALINGS: dict[RopeKind, Callable[[Tensor, RopeScaling], Tensor]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
}
