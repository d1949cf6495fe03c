"""The peak of memory: from where it counts."""

from __future__ import annotations

import sys

import pytest
import torch

from puna.train.memory import begin_peak, peak_bytes

CPU = torch.device("cpu")
SIZE = 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot begin anew")
def test_a_peak_counts_from_where_it_begins() -> None:
    first = torch.ones(4 * SIZE, dtype=torch.uint8)
    high = peak_bytes(CPU)
    del first
    held = begin_peak(CPU)
    assert held < high - 2 * SIZE
    assert peak_bytes(CPU) < held + SIZE, "what was before is forgotten"
    second = torch.ones(SIZE, dtype=torch.uint8)
    assert peak_bytes(CPU) - held == pytest.approx(SIZE, rel=0.2)
    del second
    assert peak_bytes(CPU) - held == pytest.approx(SIZE, rel=0.2), "a peak stays"
