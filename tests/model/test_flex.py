"""The lowering to FlexAttention, run uncompiled on CPU, equals the same dense oracle."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from model.oracle import dense_attention, dense_mask, dense_positions
from model.strategies import Problem, problems
from model.tolerances import assert_close
from puna.model import AttentionSpec
from puna.model.attention import spans
from puna.model.flex import FlexPlan

CPU = torch.device("cpu")


def check(problem: Problem) -> None:
    spec, batch, tokens = problem.spec, problem.batch, problem.tokens
    windows = [w for w in (spec.window_tokens, problem.window) if w is not None]
    found = spans(spec, batch, tokens)
    window = min(windows) if windows else None
    plan = FlexPlan.make(spec, found, batch, tokens, CPU, window)
    assert not plan.compiled
    real = torch.ones(batch, tokens, dtype=torch.bool) if spec.valid is None else spec.valid
    assert torch.equal(plan.positions[real], dense_positions(spec, batch, tokens)[real])
    q, k, v = (t.detach() for t in problem.qkv(dim=16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is slow uncompiled
        out = plan.attend(q, k, v)
    mask = dense_mask(spec, batch, tokens, problem.window)
    assert_close(out, dense_attention(q, k, v, mask), "attention")
    assert not out.transpose(1, 2)[~real].any(), "the output of padding is not zero"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problem=problems())
def test_flex_against_the_oracle(problem: Problem) -> None:
    check(problem)


@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_flex_over_several_blocks_of_its_mask(mode: str) -> None:
    """FlexAttention skips whole blocks of 128 x 128: documents that end inside and at edges."""
    spec = AttentionSpec.packed(torch.tensor([0, 100, 128, 256, 300]))
    spec = replace(spec, mode=mode, window_tokens=90)  # type: ignore[arg-type]
    check(Problem(spec, 1, 300, 1, 2, None))
