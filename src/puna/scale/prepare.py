"""The one place that sets device and compute dtype."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def prepare(model: M, device: torch.device, dtype: torch.dtype) -> M:
    """Put a model for use (no training) on `device` in `dtype`; returns it in eval mode."""
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)


def compute_dtype(device: torch.device) -> torch.dtype:
    """The dtype that is fast on `device`: bfloat16 on GPUs, float32 on CPUs without hardware."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32
