"""The z-loss: against its plain formula, with its gradient; nothing where it is not wanted."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.reference import TINY, tiny_model, token_ids
from model.tolerances import assert_close
from puna.model import LlamaModel, llama
from puna.model import loss as loss_module
from puna.model.llama import IGNORED

Z = 0.05
MASKS = {
    "all": torch.ones(2, 9, dtype=torch.bool),
    "some": torch.arange(18).view(2, 9) % 3 != 0,
    "none": torch.zeros(2, 9, dtype=torch.bool),
}


def inputs(mask: str) -> tuple[Tensor, Tensor]:
    """Hidden states and targets."""
    hidden = torch.randn(2, 9, TINY.hidden_size, generator=torch.Generator().manual_seed(5))
    return hidden * 3, torch.where(MASKS[mask], token_ids(2, 9, seed=3), IGNORED)


def by_formula(model: LlamaModel, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(cross-entropy, z-loss), each summed over the targets, from logits in full."""
    kept = targets != IGNORED
    logits = model.head(hidden).float()[kept]
    loss = F.cross_entropy(logits, targets[kept], reduction="sum")
    return loss, Z * (logits.exp().sum(1).log() ** 2).sum()


def gradients(model: LlamaModel, hidden: Tensor, loss: Tensor) -> Tensor:
    learning = (hidden, *model.lm_head.parameters(), model.model.norm.weight)
    found = torch.autograd.grad(loss, learning)
    return torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 17, 256])
def test_it_is_what_the_formula_says(mask: str, wrapped: bool, tied: bool, chunk: int) -> None:
    model = tiny_model(replace(TINY, tie_word_embeddings=tied))
    hidden, targets = inputs(mask)
    hidden.requires_grad_()
    cross_entropy, z_loss = by_formula(model, hidden, targets)
    expected = gradients(model, hidden, cross_entropy + z_loss)
    if wrapped:
        model.lm_head = nn.Sequential(model.lm_head)  # type: ignore[assignment]
    with (
        patch.object(loss_module, "chunk_rows", lambda vocab_size: chunk),
        patch.object(llama, "HEAD_CHUNK_TOKENS", chunk),
    ):
        total, added = model.head_losses(hidden, targets, Z)
        alone = model.head_loss(hidden, targets, Z)
        found = gradients(model, hidden, total)
        with torch.no_grad():
            unlearnt = model.head_losses(hidden, targets, Z)
    assert_close(total, cross_entropy + z_loss, "loss")
    assert_close(added, z_loss, "loss")
    assert_close(found, expected, "gradient")
    assert torch.equal(alone, total)
    assert torch.equal(torch.stack(unlearnt), torch.stack([total, added]).detach())
    assert not added.requires_grad
    assert (total.dtype, added.dtype) == (torch.float32, torch.float32)
    if mask != "none":
        assert float(added.detach()) > 1, "the test would see nothing"


@pytest.mark.parametrize("wrapped", [False, True])
def test_without_it_nothing_changes(wrapped: bool) -> None:
    model, (hidden, targets) = tiny_model(), inputs("some")
    if wrapped:
        model.lm_head = nn.Sequential(model.lm_head)  # type: ignore[assignment]
    total, added = model.head_losses(hidden, targets, 0.0)
    assert torch.equal(total, model.head_loss(hidden, targets))
    assert added.item() == 0


def test_large_logits_stay_finite() -> None:
    """exp of them would not be; their logarithm is taken without it."""
    model, (hidden, targets) = tiny_model(), inputs("all")
    with torch.no_grad():
        model.lm_head.weight.mul_(2000)
    hidden.requires_grad_()
    total, added = model.head_losses(hidden, targets, Z)
    with torch.no_grad():
        logits = model.head(hidden).float().flatten(0, 1)
    assert logits.max() > 200
    assert_close(added, Z * logits.logsumexp(1).square().sum(), "loss")
    assert gradients(model, hidden, total).isfinite().all()


def test_the_heads_gradient_is_summed_in_float32() -> None:
    """In bfloat16 a sum over many chunks would stop at 256 times what each adds to it."""
    model = tiny_model().bfloat16()
    own = torch.Generator().manual_seed(2)
    row = torch.randn(1, 1, TINY.hidden_size, generator=own).bfloat16()
    hidden = row.expand(1, 600, -1)
    targets = torch.full((1, 600), 7)
    found = []
    for rows in (1, 600):
        with patch.object(loss_module, "chunk_rows", lambda vocab_size, rows=rows: rows):
            loss = model.head_loss(hidden, targets)
        found.append(torch.autograd.grad(loss, model.lm_head.weight)[0])
    assert found[0].dtype == torch.bfloat16
    assert_close(found[0], found[1], "gradient", torch.bfloat16)
