"""FLOPs of training by their parts: the same as torch counts, for tuning too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.reference import TINY, tiny_model, token_ids
from puna.model import AttentionSpec, LlamaModel, count, preset
from puna.model.counts import causal_context

DEEP = replace(TINY, num_hidden_layers=4)


@pytest.fixture(autouse=True)
def torchs_own_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's products are of a kind that torch's counter does not know."""
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)


def counted(model: LlamaModel, tokens: int) -> int:
    """Forward and backward, every token attending to all."""
    ids = token_ids(1, tokens)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(ids, AttentionSpec("bidirectional")).sum().backward()
    return counter.get_total_flops()


def test_all_parts_together_are_what_was_counted_before() -> None:
    counts = count(preset("llama-7b"))
    flops = counts.training_flops(2048)
    assert flops.model == counts.training_flops_per_token(2048)
    assert flops.backward == 2 * flops.forward == 4 * counts.matrix_parameters
    assert flops.hardware == flops.model, "nothing is made twice"


def test_everything_learns() -> None:
    model = tiny_model(DEEP).requires_grad_(True)
    assert counted(model, 10) == 10 * count(DEEP).training_flops(10).model


def test_the_last_blocks_learn() -> None:
    model = tiny_model(DEEP).requires_grad_(False)
    matrices = 0
    for block in model.model.layers[3:]:
        for parameter in block.parameters():
            parameter.requires_grad_(True)
            matrices += parameter.numel() if parameter.dim() == 2 else 0
    flops = count(DEEP).training_flops(10, start=3, trained=matrices)
    assert counted(model, 10) == 10 * flops.model


def test_a_frozen_model_that_gradients_go_through() -> None:
    """As under adapters: the embedding learns, which is no product."""
    model = tiny_model(DEEP).requires_grad_(False)
    model.model.embed_tokens.weight.requires_grad_(True)
    flops = count(DEEP).training_flops(10, trained=0)
    assert counted(model, 10) == 10 * flops.model
    assert flops.backward == flops.forward


def test_what_a_method_adds_is_passed_three_times() -> None:
    counts = count(DEEP)
    plain, more = counts.training_flops(1, trained=0), counts.training_flops(1, trained=0, added=7)
    assert more.model - plain.model == 6 * 7


def test_recomputing_is_one_more_forward_pass_of_the_blocks() -> None:
    counts = count(DEEP)
    plain = counts.training_flops(16)
    again = counts.training_flops(16, recomputed=True)
    head = 2 * DEEP.vocab_size * DEEP.hidden_size
    assert again.model == plain.model
    assert again.recomputed == counts.flops_per_token(16) - head
    assert again.hardware == again.model + again.recomputed


def test_a_causal_row() -> None:
    seen = [position + 1 for position in range(9)]
    assert causal_context(9) == sum(seen) / len(seen)
