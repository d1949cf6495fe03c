"""Every lowering of an `AttentionSpec` equals the dense oracle, values and gradients."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.meters import LargestTensor
from model.oracle import dense_attention, dense_mask, dense_positions
from model.strategies import Problem, problems
from model.tolerances import assert_close
from puna.errors import InputError
from puna.model import AttentionSpec, lowering
from puna.model.lowering import RightPaddedPlan, SpanPlan, WholePlan, lower

CPU = torch.device("cpu")
RELAXED = settings(max_examples=300, deadline=None, derandomize=True)


def plan_for(problem: Problem) -> lowering.Plan:
    return lower(
        problem.spec,
        batch=problem.batch,
        tokens=problem.tokens,
        device=CPU,
        window_tokens=problem.window,
    )


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


def check(problem: Problem) -> None:
    """The plan against the oracle: positions, outputs, zero padding, gradients."""
    spec, batch, tokens = problem.spec, problem.batch, problem.tokens
    plan = plan_for(problem)
    mask = dense_mask(spec, batch, tokens, problem.window)
    real = torch.ones(batch, tokens, dtype=torch.bool) if spec.valid is None else spec.valid
    positions = plan.positions.expand(batch, tokens)
    assert torch.equal(positions[real], dense_positions(spec, batch, tokens)[real])
    q, k, v = problem.qkv()
    out = plan.attend(q, k, v)
    expected = dense_attention(q, k, v, mask)
    assert_close(out, expected, "attention")
    assert not out.transpose(1, 2)[~real].any(), "the output of padding is not zero"
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    mine = torch.autograd.grad((out * weight).sum(), (q, k, v))
    theirs = torch.autograd.grad((expected * weight).sum(), (q, k, v))
    # As one tensor: the gradient of q and k may be zero, and then has no scale of its own.
    assert_close(flat(mine), flat(theirs), "attention gradient")


@RELAXED
@given(problem=problems(), block=st.sampled_from([1, 2, 3, 5, 256]))
def test_lowering_against_the_oracle(problem: Problem, block: int) -> None:
    with patch.object(lowering, "BLOCK_TOKENS", block):
        check(problem)


LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(sum)


@RELAXED
@given(lengths=LENGTHS, mode=st.sampled_from(["causal", "bidirectional"]))
@example(lengths=[3, 0, 0, 4], mode="causal")
def test_packed_documents(lengths: list[int], mode: Any) -> None:
    """Each document of a packed row gets what it gets when it is alone."""
    cumulative = torch.tensor([0, *lengths]).cumsum(0)
    total = sum(lengths)
    problem = Problem(AttentionSpec.packed(cumulative, mode=mode), 1, total, 2, 2, None)
    check(problem)
    q, k, v = (t.detach() for t in problem.qkv())
    out = plan_for(problem).attend(q, k, v)
    for start, stop in zip(cumulative[:-1].tolist(), cumulative[1:].tolist(), strict=True):
        if start == stop:
            continue
        part = slice(start, stop)
        alone = lower(AttentionSpec(mode=mode), batch=1, tokens=stop - start, device=CPU)
        expected = alone.attend(q[:, :, part], k[:, :, part], v[:, :, part])
        assert_close(out[:, :, part], expected, "attention")


VALID = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
PLANS: list[tuple[AttentionSpec, type]] = [
    (AttentionSpec(), WholePlan),
    (AttentionSpec("bidirectional"), WholePlan),
    (AttentionSpec("prefix", prefix_len=torch.tensor([3, 3])), WholePlan),
    (AttentionSpec(window_tokens=2), WholePlan),
    (AttentionSpec(valid=torch.ones(2, 6, dtype=torch.bool)), WholePlan),
    (AttentionSpec(valid=VALID), RightPaddedPlan),
    (AttentionSpec("bidirectional", valid=torch.zeros_like(VALID)), RightPaddedPlan),
    (AttentionSpec(valid=VALID.flip(1)), SpanPlan),
    (AttentionSpec("bidirectional", valid=VALID), SpanPlan),
    (AttentionSpec(valid=VALID, window_tokens=2), SpanPlan),
    (AttentionSpec("prefix", prefix_len=torch.tensor([3, 2])), SpanPlan),
    (AttentionSpec(document_ids=torch.tensor([[0, 0, 1, 1, 1, 2]] * 2)), SpanPlan),
]


@pytest.mark.parametrize(("spec", "plan"), PLANS)
def test_which_plan_a_spec_takes(spec: AttentionSpec, plan: type) -> None:
    """So that the oracle is known to have met every plan."""
    assert type(lower(spec, batch=2, tokens=6, device=CPU)) is plan
    check(Problem(spec, 2, 6, 2, 2, None))


LONG = 1024
HALVES = torch.arange(LONG)[None] // (LONG // 2)
LONG_SPECS = {
    "causal": AttentionSpec(),
    "bidirectional": AttentionSpec("bidirectional"),
    "prefix": AttentionSpec("prefix", prefix_len=torch.tensor([LONG // 2])),
    "window": AttentionSpec(window_tokens=LONG // 2),
    "documents": AttentionSpec(document_ids=HALVES),
    "padded": AttentionSpec("bidirectional", valid=(torch.arange(LONG) < LONG - 3)[None]),
}


@pytest.mark.parametrize("name", LONG_SPECS)
@pytest.mark.parametrize("training", [False, True])
def test_no_mask_of_all_tokens_is_made(name: str, training: bool) -> None:
    """A T x T tensor would have LONG squared elements; a block's mask has BLOCK x LONG."""
    q, k, v = (torch.randn(1, 1, LONG, 4, requires_grad=training) for _ in range(3))
    block = 64
    with patch.object(lowering, "BLOCK_TOKENS", block), LargestTensor() as largest:
        plan = lower(LONG_SPECS[name], batch=1, tokens=LONG, device=CPU)
        out = plan.attend(q, k, v)
        if training:
            out.sum().backward()
    assert largest.elements <= block * LONG


def test_the_meter_of_the_test_above_sees_a_full_mask() -> None:
    with LargestTensor() as largest:
        dense_mask(AttentionSpec(), 1, 64)
    assert largest.elements == 64 * 64


def mask_with_hole() -> Tensor:
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, 2] = False
    return valid


ERRORS: list[tuple[Any, str]] = [
    (lambda: AttentionSpec("diagonal"), "'diagonal' is not known"),  # type: ignore[arg-type]
    (lambda: AttentionSpec("prefix"), "prefix_len belongs to the mode 'prefix'"),
    (lambda: AttentionSpec(prefix_len=torch.tensor([1])), "prefix_len belongs to the mode"),
    (
        lambda: AttentionSpec(
            "prefix", prefix_len=torch.tensor([1]), document_ids=torch.zeros(1, 2).long()
        ),
        "one document per row, not packed",
    ),
    (
        lambda: AttentionSpec.packed(torch.tensor([0, 3]), mode="prefix"),
        "prefix_len belongs to the mode",
    ),
    (lambda: AttentionSpec(window_tokens=0), "window_tokens must be at least 1, not 0"),
    (lambda: AttentionSpec(document_ids=torch.zeros(6)), "document_ids must have the shape"),
    (lambda: AttentionSpec(valid=torch.ones(2, 6)), "valid must be a bool tensor"),
    (lambda: AttentionSpec(valid=torch.ones(6, dtype=torch.bool)), "valid must be a bool"),
]
LOWER_ERRORS: list[tuple[AttentionSpec, str]] = [
    (AttentionSpec(valid=mask_with_hole()), "row 1 has padding inside; pad on the left or"),
    (
        AttentionSpec(valid=VALID[:, :5]),
        r"the attention spec is for \[B, T\] = \[2, 5\], the input is \[2, 6\]",
    ),
    (AttentionSpec(document_ids=torch.zeros(3, 6)), r"\[3, 6\], the input is \[2, 6\]"),
    (
        AttentionSpec("prefix", prefix_len=torch.tensor([1, 2, 3])),
        "prefix_len has 3 entries for a batch of 2",
    ),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_a_spec_that_makes_no_sense(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(("spec", "message"), LOWER_ERRORS)
def test_a_spec_for_another_input(spec: AttentionSpec, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lower(spec, batch=2, tokens=6, device=CPU)
