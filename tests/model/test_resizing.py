"""Rows for more tokens: means of old rows, old logits as they were, nothing else touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from model.reference import TINY, tiny_model, token_ids
from model.tolerances import assert_close
from puna.errors import InputError
from puna.model import LlamaConfig, LlamaModel
from puna.model import resizing as resizing_module
from puna.model.resizing import with_more_tokens

TIED = replace(TINY, tie_word_embeddings=True)
ORIGINS = ((3,), (7, 9), (0, 60, 60, 5))
CONFIGS = pytest.mark.parametrize("config", [TINY, TIED], ids=["untied", "tied"])


def mean_rows(table: torch.Tensor) -> np.ndarray:
    values = table.detach().double().numpy()
    return np.stack([np.mean([values[old] for old in origin], axis=0) for origin in ORIGINS])


@CONFIGS
def test_new_rows_are_means_and_old_logits_stay(config: LlamaConfig) -> None:
    model = tiny_model(config)
    grown = with_more_tokens(model, ORIGINS)
    assert grown.config == replace(config, vocab_size=64)
    for old, new in (
        (model.model.embed_tokens.weight, grown.model.embed_tokens.weight),
        (model.lm_head.weight, grown.lm_head.weight),
    ):
        assert torch.equal(new[:61], old)
        np.testing.assert_allclose(new[61:].detach().numpy(), mean_rows(old), rtol=1e-6, atol=1e-8)
    ids = token_ids(2, 9)
    logits = grown(ids)
    assert logits.shape == (2, 9, 64)
    assert_close(logits[..., :61], model(ids), "linear")


@CONFIGS
def test_a_new_token_of_one_old_one_acts_as_it(config: LlamaConfig) -> None:
    model = tiny_model(config)
    grown = with_more_tokens(model, ORIGINS)
    ids = token_ids(1, 7)
    ids[0, 3] = 3
    renamed = ids.clone()
    renamed[0, 3] = 61
    assert torch.equal(grown(renamed), grown(ids))
    logits = grown(ids)
    assert_close(logits[..., 61], logits[..., 3], "linear")


@CONFIGS
def test_the_rest_is_shared_and_as_it_was(config: LlamaConfig) -> None:
    model = tiny_model(config).train()
    model.model.norm.weight.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    grown = with_more_tokens(model, ORIGINS)
    assert grown.training
    assert (grown.lm_head.weight is grown.model.embed_tokens.weight) == config.tie_word_embeddings
    held = dict(model.named_parameters())
    for name, parameter in grown.named_parameters():
        assert torch.equal(held[name], before[name])
        assert parameter.requires_grad == held[name].requires_grad
        resized = "embed_tokens" in name or "lm_head" in name
        assert (parameter.data_ptr() == held[name].data_ptr()) != resized, name


def test_rows_that_no_token_used_are_taken_first() -> None:
    model = tiny_model()
    origins = ((3,), (7, 9))
    grown = with_more_tokens(model, origins, start=57)  # rows 57 to 60 are padding
    assert grown.config.vocab_size == 61
    table, old = grown.model.embed_tokens.weight, model.model.embed_tokens.weight
    assert torch.equal(table[:57], old[:57]) and torch.equal(table[59:], old[59:])
    assert torch.equal(table[57], old[3])
    assert with_more_tokens(model, ORIGINS[:2] * 3, start=57).config.vocab_size == 63


def test_nothing_new_changes_nothing() -> None:
    model = tiny_model()
    grown = with_more_tokens(model, ())
    assert torch.equal(grown(token_ids(1, 5)), model(token_ids(1, 5)))


def test_parts_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    whole = with_more_tokens(model, ORIGINS).lm_head.weight
    monkeypatch.setattr(resizing_module, "_CHUNK_TOKENS", 2)
    assert torch.equal(with_more_tokens(model, ORIGINS).lm_head.weight, whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_dtype_is_kept_and_means_are_not_rounded_twice(dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    grown = with_more_tokens(model, ORIGINS)
    table = model.model.embed_tokens.weight
    wide = torch.float32 if dtype == torch.bfloat16 else torch.float64
    expected = torch.stack([table[list(origin)].to(wide).mean(0) for origin in ORIGINS]).to(dtype)
    found = grown.model.embed_tokens.weight[61:]
    assert found.dtype == dtype
    assert_close(found, expected, "linear", dtype if dtype == torch.bfloat16 else torch.float32)


@pytest.mark.parametrize(
    ("origins", "start", "message"),
    [
        (((1,), ()), None, "new token 62 has no old token to begin as"),
        (((61,),), None, "new token 61 begins as token 61; expected an old id, from 0 to 60"),
        (((-1,),), None, "begins as token -1"),
        (((58,),), 57, "new token 57 begins as token 58; expected an old id, from 0 to 56"),
        (((1,),), 62, "from the id 62 on: the model has 61 rows"),
        (((1,),), 0, "from the id 0 on"),
    ],
)
def test_what_cannot_be_is_refused(
    origins: tuple[tuple[int, ...], ...], start: int | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        with_more_tokens(tiny_model(), origins, start=start)


def test_a_model_that_surgery_has_changed_is_refused() -> None:
    class Wrapped(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base = base

    model: LlamaModel = tiny_model()
    model.model.layers[0].mlp.up_proj = Wrapped(model.model.layers[0].mlp.up_proj)
    with pytest.raises(InputError, match="is not where a LLaMA has it"):
        with_more_tokens(model, ORIGINS)
