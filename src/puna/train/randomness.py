"""The random states of torch, numpy and Python: seeded, captured as plain data, put back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch


def seed_all(seed: int, rank: int) -> None:
    """Seed every generator of the process; each rank draws its own numbers."""
    own = (seed + rank * 0x9E3779B1) % 2**32  # a constant of Knuth's: far from any nearby seed
    torch.manual_seed(own)
    np.random.seed(own)
    random.seed(own)


def capture(device: torch.device) -> dict[str, Any]:
    """The states of all generators that a step on `device` may use, as JSON values."""
    _, keys, position, has_gauss, gauss = cast(tuple[Any, ...], np.random.get_state())
    version, words, next_gauss = random.getstate()
    return {
        "torch": _hex(torch.get_rng_state()),
        "device": _hex(_device_state(device)),
        "numpy": [keys.tobytes().hex(), int(position), int(has_gauss), float(gauss)],
        "python": [version, np.array(words, dtype="<u4").tobytes().hex(), next_gauss],
    }


def restore(states: dict[str, Any], device: torch.device) -> None:
    """Put back what `capture` gave on the same kind of device."""
    torch.set_rng_state(_tensor(states["torch"]))
    if device.type == "cuda":
        torch.cuda.set_rng_state(_tensor(states["device"]), device)
    elif device.type == "mps":
        torch.mps.set_rng_state(_tensor(states["device"]))
    keys, position, has_gauss, gauss = states["numpy"]
    keys = np.frombuffer(bytes.fromhex(keys), dtype=np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, gauss))
    version, words, next_gauss = states["python"]
    numbers = np.frombuffer(bytes.fromhex(words), dtype="<u4").tolist()
    random.setstate((version, tuple(numbers), next_gauss))


def restore_own(states: list[dict[str, Any]], rank: int, seed: int, device: torch.device) -> None:
    """Put back the states of one rank; a rank that was not there then begins by the seed."""
    if rank < len(states):
        restore(states[rank], device)
    else:
        seed_all(seed, rank)


@contextlib.contextmanager
def untouched(device: torch.device) -> Iterator[None]:
    """Leave every generator as it was, whatever the block draws."""
    states = capture(device)
    try:
        yield
    finally:
        restore(states, device)


def _device_state(device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.empty(0, dtype=torch.uint8)


def _hex(state: torch.Tensor) -> str:
    return state.cpu().numpy().tobytes().hex()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
