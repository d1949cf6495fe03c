"""The rate of multiplying matrices is that of real products."""

from __future__ import annotations

import time

import torch

from puna.flows import matrix_rate as module
from puna.flows.matrix_rate import matrix_rate


def test_it_is_what_a_product_takes() -> None:
    began = time.perf_counter()
    rate = matrix_rate(torch.device("cpu"), torch.float32)
    taken = time.perf_counter() - began
    assert 1e8 < rate < 1e14
    assert taken < 30
    # The fastest of several: none of them can have been slower than all together.
    assert 2 * 1024**3 / rate <= taken


def test_slow_rounds_do_not_count(monkeypatch) -> None:
    ticks = iter([0.0, 4.0, 10.0, 11.0, 20.0, 22.0, 30.0, 33.0, 40.0, 42.0])
    monkeypatch.setattr(module, "_SIZES", {"cpu": 16})
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    assert matrix_rate(torch.device("cpu"), torch.float32) == 2 * 16**3 / 1.0
