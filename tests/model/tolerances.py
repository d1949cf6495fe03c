"""How far two right answers may lie apart: one table per dtype and operation, with the reasons.

A bound is in units of the dtype's epsilon, relative to the largest magnitude of the expected
tensor: rounding errors of a sum grow with its terms, not with its result, so a bound per element
would either fail on results near zero or be too wide for the rest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tolerance(NamedTuple):
    """A bound and why it is what it is."""

    epsilons: float  # |actual - expected| <= epsilons x eps(dtype) x max |expected|
    reason: str


TOLERANCES: dict[tuple[torch.dtype, str], Tolerance] = {
    (torch.float32, "linear"): Tolerance(
        16, "one dot product, summed in another order by another kernel: about sqrt(terms) eps"
    ),
    (torch.float32, "rotary"): Tolerance(
        4, "two products and a sum; angles are float32 on both sides, as in the reference"
    ),
    (torch.float32, "frequencies"): Tolerance(
        2, "a power and a quotient, elementwise; the scaling adds one blend"
    ),
    (torch.float32, "attention"): Tolerance(
        32, "against a float64 oracle: two dot products around a softmax, each correct to a few eps"
    ),
    (torch.float32, "attention gradient"): Tolerance(
        64, "the softmax's backward subtracts near-equal terms: twice the forward's bound"
    ),
    (torch.float32, "logits"): Tolerance(
        64, "two or three blocks, each with four products and two norms on the residual stream"
    ),
    (torch.float32, "gradient"): Tolerance(
        256, "backward doubles the depth, and a bias or norm sums over all tokens of the batch"
    ),
    (torch.float32, "loss"): Tolerance(
        16, "a sum over tokens, taken chunk by chunk instead of at once"
    ),
    (torch.float32, "reduction over ranks"): Tolerance(
        256, "as a gradient, with the ranks' parts summed in another order"
    ),
    (torch.bfloat16, "linear"): Tolerance(
        1, "the same kernel on the same input; one last rounding may differ"
    ),
    (torch.bfloat16, "logits"): Tolerance(
        6, "every block rounds to 8 bits several times; the order of two roundings may differ"
    ),
    (torch.bfloat16, "gradient"): Tolerance(
        24,
        "twice the depth, summed in 8 bits; our norm rounds once where the peer's does twice",
    ),
    (torch.bfloat16, "against float32"): Tolerance(
        12, "rounding itself: what bfloat16 loses against the same model in float32"
    ),
    (torch.float64, "linear"): Tolerance(0, "float64 takes torch's own path: the same bits"),
}


def error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected magnitude."""
    assert actual.shape == expected.shape, f"{list(actual.shape)} != {list(expected.shape)}"
    if not expected.numel():
        return 0.0
    scale = expected.detach().double().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    worst = (actual.detach().double() - expected.detach().double()).abs().max()
    return float(worst / scale)


def assert_close(
    actual: Tensor, expected: Tensor, operation: str, dtype: torch.dtype = torch.float32
) -> None:
    """Assert that `actual` is `expected` within the table's bound for `operation`."""
    bound = TOLERANCES[dtype, operation].epsilons * torch.finfo(dtype).eps
    found = error(actual, expected)
    # Written so that a NaN fails.
    assert found <= bound, f"{operation} in {dtype}: error {found:.2e}, bound {bound:.2e}"
