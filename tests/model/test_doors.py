"""The four doors: in pieces or whole, the same; the loss without the logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.meters import LargestTensor
from model.reference import TINY, tiny_model, token_ids
from model.tolerances import assert_close
from puna.errors import InputError
from puna.model import AttentionSpec, ContiguousCache, LlamaModel, llama
from puna.model import loss as loss_module
from puna.model.llama import IGNORED

THREE = replace(TINY, num_hidden_layers=3)
SPECS = {
    "causal": None,
    "bidirectional": AttentionSpec("bidirectional"),
    "prefix": AttentionSpec("prefix", prefix_len=torch.tensor([4, 2])),
    "left": AttentionSpec(valid=torch.tensor([[True] * 9, [False] * 3 + [True] * 6])),
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("cut", range(4))
def test_run_in_two_pieces(name: str, cut: int) -> None:
    model, ids, spec = tiny_model(THREE), token_ids(2, 9), SPECS[name]
    hidden = model.run(model.embed(ids), 0, cut, spec)
    if cut == 0:
        assert torch.equal(hidden, model.embed(ids))
    hidden = model.run(hidden, cut, None, spec)
    assert torch.equal(model.head(hidden), model(ids, spec))


def test_run_in_two_pieces_over_a_cache() -> None:
    """The caller of `run` counts the tokens, after the last block."""
    model, ids = tiny_model(THREE), token_ids(2, 9)
    cache = ContiguousCache(THREE, batch=2, max_tokens=9)
    parts = []
    with torch.no_grad():
        for part in ids.split([4, 1, 4], 1):
            hidden = model.run(model.embed(part), 0, 2, cache=cache)
            parts.append(model.head(model.run(hidden, 2, 3, cache=cache)))
            cache.advance([part.shape[1]] * 2)
        assert_close(torch.cat(parts, 1), model(ids), "logits")


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 1), (0, 4)])
def test_run_of_blocks_that_are_not_there(start: int, stop: int) -> None:
    model = tiny_model(THREE)
    with pytest.raises(InputError, match=rf"blocks \[{start}, {stop}\) of 3"):
        model.run(model.embed(token_ids(1, 2)), start, stop)


def test_the_head_takes_any_leading_shape() -> None:
    model, hidden = tiny_model(), torch.randn(2, 3, TINY.hidden_size)
    logits = model.head(hidden)
    assert_close(model.head(hidden[1, 2]), logits[1, 2], "linear")
    assert_close(model.head(hidden.flatten(0, 1)), logits.flatten(0, 1), "linear")


class AddMemory(nn.Module):
    """A stand-in for cross-attention: adds the memory's mean to every token."""

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return memory.mean(1, keepdim=True).expand_as(x)


def test_memory_is_read_only_where_a_block_has_cross_attention() -> None:
    model, ids = tiny_model(THREE), token_ids(2, 5)
    hidden, memory = model.embed(ids), torch.randn(2, 7, TINY.hidden_size)
    plain = model.run(hidden)
    assert torch.equal(model.run(hidden, memory=memory), plain)
    model.model.layers[1].cross_attention = AddMemory()
    assert torch.equal(model.run(hidden), plain)
    first = model.run(hidden, 0, 1)
    assert torch.equal(model.run(hidden, 0, 1, memory=memory), first)
    assert not torch.allclose(model.run(hidden, memory=memory), plain)
    assert not any("cross" in name for name in model.state_dict())


# --- head_loss ----------------------------------------------------------------------------------


def loss_and_gradients(model: LlamaModel, hidden: Tensor, targets: Tensor, plain: bool) -> Tensor:
    """[loss, gradients of hidden and of the head's parameters], flat."""
    model.zero_grad()
    hidden = hidden.detach().clone().requires_grad_()
    if plain:
        logits = model.head(hidden).float().flatten(0, 1)
        loss = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")
    else:
        loss = model.head_loss(hidden, targets)
    loss.backward()
    parts = [loss, hidden.grad, model.lm_head.weight.grad, model.model.norm.weight.grad]
    assert all(part is not None for part in parts)
    return torch.cat([part.flatten() for part in parts if part is not None])


MASKS = {
    "all": torch.ones(2, 9, dtype=torch.bool),
    "some": torch.arange(18).view(2, 9) % 3 != 0,
    "one row": torch.tensor([[True] * 9, [False] * 9]),
    "none": torch.zeros(2, 9, dtype=torch.bool),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 6, 9, 17, 18, 256])
def test_head_loss_is_cross_entropy(name: str, tied: bool, chunk: int) -> None:
    model = tiny_model(replace(TINY, tie_word_embeddings=tied))
    hidden = torch.randn(2, 9, TINY.hidden_size)
    targets = torch.where(MASKS[name], token_ids(2, 9, seed=3), IGNORED)
    with patch.object(loss_module, "chunk_rows", lambda vocab_size: chunk):
        mine = loss_and_gradients(model, hidden, targets, plain=False)
        theirs = loss_and_gradients(model, hidden, targets, plain=True)
        assert_close(mine[:1], theirs[:1], "loss")
        assert_close(mine[1:], theirs[1:], "gradient")
        with torch.no_grad():
            assert_close(model.head_loss(hidden, targets), theirs[0], "loss")
    if name == "none":
        assert not mine.any()


@pytest.mark.parametrize("kept", [True, False])
def test_head_loss_is_float32_in_every_dtype(kept: bool) -> None:
    model = tiny_model().bfloat16()
    hidden = torch.randn(1, 6, TINY.hidden_size, dtype=torch.bfloat16)
    loss = model.head_loss(hidden, token_ids(1, 6) if kept else torch.full((1, 6), IGNORED))
    assert (loss.dtype, loss.shape) == (torch.float32, ())


def test_nothing_reaches_an_ignored_token() -> None:
    """Not even what is no number: ignored rows never reach the head."""
    model, targets = tiny_model(), token_ids(2, 9)
    targets[1] = IGNORED
    hidden = torch.randn(2, 9, TINY.hidden_size)
    hidden[1] = torch.inf
    hidden.requires_grad_()
    loss = model.head_loss(hidden, targets)
    loss.backward()
    assert loss.isfinite()
    assert hidden.grad is not None
    assert hidden.grad[0].any()
    assert not hidden.grad[1].any()


@pytest.mark.parametrize("training", [False, True])
def test_head_loss_never_holds_all_logits(training: bool) -> None:
    """The largest tensor is the head itself, whatever the number of tokens."""
    config = replace(TINY, vocab_size=2048)
    model, tokens = tiny_model(config), 64
    hidden = torch.randn(1, tokens, config.hidden_size, requires_grad=training)
    targets = token_ids(1, tokens, vocab=config.vocab_size)
    with (
        torch.set_grad_enabled(training),
        patch.object(loss_module, "chunk_rows", lambda vocab_size: 8),
    ):
        with LargestTensor() as largest:
            loss = model.head_loss(hidden, targets)
            if training:
                loss.backward()
        with LargestTensor() as naive:
            model.head(hidden)
    assert largest.elements <= config.vocab_size * config.hidden_size
    assert naive.elements == config.vocab_size * tokens


def test_head_loss_keeps_no_chunk_for_the_backward_pass() -> None:
    """What autograd saves has the size of the hidden states, not that of logits."""
    config = replace(TINY, vocab_size=2048)
    model = tiny_model(config)
    model.lm_head.weight.requires_grad_(False)
    hidden = torch.randn(1, 64, config.hidden_size, requires_grad=True)
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with (
        patch.object(loss_module, "chunk_rows", lambda vocab_size: 8),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        model.head_loss(hidden, token_ids(1, 64, vocab=config.vocab_size))
    assert saved
    assert max(saved) <= hidden.numel()


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_head_loss_forms_no_gradient_that_nobody_wants(guard: Any) -> None:
    """An autograd function is told that a weight learns, whether gradients are on or off."""
    model, hidden = tiny_model(), torch.randn(2, 9, TINY.hidden_size)
    assert model.lm_head.weight.requires_grad
    targets = token_ids(2, 9, seed=3)
    expected = model.head_loss(hidden, targets).detach()
    unwanted = AssertionError("a gradient was formed")
    with patch.object(loss_module, "matmul", side_effect=unwanted), guard():
        loss = model.head_loss(hidden, targets)
    assert torch.equal(loss, expected)
    assert not loss.requires_grad


@pytest.mark.parametrize("name", ["some", "none"])
def test_head_loss_of_a_head_that_surgery_has_wrapped(name: str) -> None:
    model, targets = tiny_model(), torch.where(MASKS[name], token_ids(2, 9, seed=3), IGNORED)
    hidden = torch.randn(2, 9, TINY.hidden_size, requires_grad=True)
    losses, gradients = [], []
    for head in (model.lm_head, nn.Sequential(model.lm_head)):
        model.lm_head = head  # type: ignore[assignment]
        with patch.object(llama, "HEAD_CHUNK_TOKENS", 4):
            losses.append(model.head_loss(hidden, targets))
        gradients.append(torch.autograd.grad(losses[-1], hidden)[0])
    assert_close(losses[1].detach(), losses[0].detach(), "loss")
    assert_close(gradients[1], gradients[0], "gradient")
