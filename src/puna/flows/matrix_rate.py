"""How fast this machine multiplies matrices: what the utilisation of a run is held against."""

from __future__ import annotations

import time

import torch

from puna.model.products import matmul

_SIZES = {"cuda": 8192, "mps": 2048, "cpu": 1024}
_MIN_SECONDS = 0.3  # of multiplying, in all
_MIN_ROUNDS = 5


@torch.inference_mode()
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of one square product, the fastest of some; it takes about half a second.

    The product is the one that the model uses, with as many threads. Two operations are counted
    for each multiplication and addition, as in the model's own count.

    Args:
        device: Where.
        dtype: Of the matrices.
    """
    size = _SIZES.get(device.type, 1024)
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(size, size, generator=generator).to(device=device, dtype=dtype)
        for _ in range(2)
    )
    matmul(left, right)  # the first one also wakes threads and loads kernels
    _wait(device)
    fastest, spent, rounds = float("inf"), 0.0, 0
    while spent < _MIN_SECONDS or rounds < _MIN_ROUNDS:
        began = time.perf_counter()
        matmul(left, right)
        _wait(device)
        seconds = max(time.perf_counter() - began, 1e-9)
        fastest, spent, rounds = min(fastest, seconds), spent + seconds, rounds + 1
    return 2 * size**3 / fastest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
