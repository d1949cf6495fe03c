"""Stored dtypes: how far what is read back may lie from what was stored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from puna.errors import InputError
from puna.tune.trunk_codec import Codec

CPU = torch.device("cpu")


def through(codec: Codec, hidden: Tensor) -> Tensor:
    """Encoded, taken as the bytes that a file holds, and decoded."""
    values, scales = codec.encode(hidden)
    raw = values.contiguous().view(torch.uint8).numpy().view(codec.raw)
    stored = None if scales is None else scales.numpy()[None]
    return codec.decode(raw[None], stored, CPU)[0]


def tokens(data: st.DataObject) -> Tensor:
    rows, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    scale = 10.0 ** torch.randint(-6, 6, (rows, 1)).float()
    return torch.randn(rows, width) * scale


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_auto_keeps_every_bit(dtype: torch.dtype) -> None:
    hidden = torch.randn(4, 6).to(dtype)
    codec = Codec.choose("auto", dtype)
    back = through(codec, hidden)
    assert back.dtype is dtype
    assert torch.equal(back, hidden)
    assert codec.token_bytes(6) == 6 * dtype.itemsize


@given(st.data())
def test_bfloat16_is_off_by_a_256th_of_the_value_at_most(data: st.DataObject) -> None:
    hidden = tokens(data)
    back = through(Codec.choose("bfloat16", torch.float32), hidden)
    assert back.dtype is torch.float32
    assert ((back - hidden).abs() <= hidden.abs() / 256).all()


@given(st.data())
def test_int8_is_off_by_half_a_step_of_its_token_at_most(data: st.DataObject) -> None:
    hidden = tokens(data)
    back = through(Codec.choose("int8", torch.float32), hidden)
    largest = hidden.abs().amax(1, keepdim=True)
    assert ((back - hidden).abs() <= largest * (1 / 254 + 1e-6)).all()


@pytest.mark.parametrize("hidden", [torch.float32, torch.bfloat16])
def test_int8_of_zeros_is_zeros_and_of_what_is_not_finite_is_nan(hidden: Any) -> None:
    values = torch.tensor([[0.0, 0.0], [1.0, float("inf")], [float("nan"), 2.0]], dtype=hidden)
    back = through(Codec.choose("int8", hidden), values)
    assert back.dtype is hidden
    assert back[0].tolist() == [0, 0]
    assert back[1:].isnan().all()


def test_a_dtype_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(InputError, match="complex64 cannot be kept in a trunk cache"):
        Codec.choose("auto", torch.complex64)
