"""Devices and threads that this machine has not are refused by name."""

from __future__ import annotations

import os

import pytest
import torch

from puna.errors import InputError
from puna.flows.opening import THREADS_PER_CORE, resolve_device, set_threads


@pytest.mark.parametrize(
    "name", ["meta", "xpu", "hpu", "cpu:7", "mkldnn", "vulkan", "", "cuda:", "cuda:-1", "cuda:x"]
)
def test_an_unknown_device(name: str) -> None:
    with pytest.raises(InputError, match=r"is not known\n  fix: auto, cpu, cuda, cuda:N, mps"):
        resolve_device(name)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"'cuda:2': this machine has 2 CUDA devices\n.* cuda:1"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="has no CUDA device"):
        resolve_device("cuda")


def test_threads_have_bounds() -> None:
    most = THREADS_PER_CORE * (os.cpu_count() or 1)
    with pytest.raises(InputError, match=f"threads must be at most {most} on this machine"):
        set_threads(most + 1)
    with pytest.raises(InputError, match="threads must be at least 1, not 0"):
        set_threads(0)
