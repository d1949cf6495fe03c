"""The one place that chooses device and compute dtype."""

from __future__ import annotations

import torch


def compute_dtype(device: torch.device) -> torch.dtype:
    """The dtype to compute in: bfloat16 on CUDA GPUs that have it, float32 on all else."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def default_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
