"""Logits and gradients equal transformers' over the matrix of what a LLaMA can be."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from model.reference import as_puna, reference_model, token_ids
from model.tolerances import assert_close
from puna.model import AttentionSpec, LlamaConfig

transformers = pytest.importorskip("transformers")

BATCH, TOKENS = 3, 11
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
    "llama3": {  # short wavelengths for a tiny head: all three bands of the formula are met
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_theta": 1000.0,
    },
}
KV_HEADS = {"H=K": 4, "K<H": 2, "K=1": 1}
BIASES = {"plain": (False, False), "attention": (True, False), "mlp": (False, True)}
BIASES["both"] = (True, True)
HEAD_DIMS = {"derived": None, "free": 12}
PADDINGS = {"none": None, "left": -1, "right": 1}

Case = tuple[str, bool, str, str, str]
MATRIX: list[Case] = list(itertools.product(KV_HEADS, (False, True), BIASES, HEAD_DIMS, ROPES))
REDUCED = MATRIX[::7]  # 7 is prime to every axis: each value of each axis is met


def name(case: Case) -> str:
    heads, tied, biases, head_dim, rope = case
    return f"{heads}-{'tied' if tied else 'untied'}-{biases}-{head_dim}-{rope}"


def hf_config(case: Case) -> Any:
    heads, tied, biases, head_dim, rope = case
    return transformers.LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=KV_HEADS[heads],
        head_dim=HEAD_DIMS[head_dim],
        tie_word_embeddings=tied,
        attention_bias=BIASES[biases][0],
        mlp_bias=BIASES[biases][1],
        rope_parameters=dict(ROPES[rope]),
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        architectures=["LlamaForCausalLM"],
    )


def valid_tokens(padding: str) -> Tensor:
    """[B, T] bool: rows of 11, 7 and 1 real tokens."""
    lengths = torch.tensor([TOKENS, 7, 1] if padding != "none" else [TOKENS] * BATCH)[:, None]
    count = torch.arange(TOKENS)[None]
    return count >= TOKENS - lengths if padding == "left" else count < lengths


def reference_logits(model: Any, ids: Tensor, valid: Tensor) -> Tensor:
    positions = (valid.long().cumsum(1) - 1).clamp_min(0)
    answer = model(
        ids, attention_mask=valid.long(), position_ids=positions, use_cache=False, return_dict=True
    )
    logits: Tensor = answer.logits
    return logits


@pytest.mark.parametrize("case", MATRIX, ids=name)
def test_logits(case: Case) -> None:
    reference = reference_model(hf_config(case))
    model = as_puna(reference)
    ids = token_ids(BATCH, TOKENS)
    for padding in PADDINGS:
        valid = valid_tokens(padding)
        spec = None if padding == "none" else AttentionSpec(valid=valid)
        with torch.inference_mode():
            expected = reference_logits(reference, ids, valid)[valid]
            assert_close(model(ids, spec)[valid], expected, "logits")


@pytest.mark.parametrize("case", REDUCED, ids=name)
@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients(case: Case, padding: str) -> None:
    reference = reference_model(hf_config(case))
    model = as_puna(reference).requires_grad_(True)
    ids, valid = token_ids(BATCH, TOKENS), valid_tokens(padding)
    weight = torch.randn(BATCH, TOKENS, 61, generator=torch.Generator().manual_seed(5))
    spec = None if padding == "none" else AttentionSpec(valid=valid)
    (model(ids, spec) * weight)[valid].sum().backward()
    mine = {key: p.grad for key, p in model.named_parameters()}
    assert all(gradient is not None for gradient in mine.values())
    # The two models share their memory, not their gradients.
    (reference_logits(reference, ids, valid) * weight)[valid].sum().backward()
    theirs = {key: p.grad for key, p in reference.named_parameters()}
    assert mine.keys() == theirs.keys()
    for key, expected in theirs.items():
        assert_close(mine[key], expected, "gradient")


@pytest.mark.parametrize("case", REDUCED, ids=name)
def test_bfloat16(case: Case) -> None:
    exact = as_puna(reference_model(hf_config(case)))
    reference = reference_model(hf_config(case)).bfloat16()
    model = as_puna(reference).requires_grad_(True)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    ids, valid = token_ids(BATCH, TOKENS), valid_tokens("left")
    logits = model(ids, AttentionSpec(valid=valid))
    assert logits.dtype == torch.bfloat16
    expected = reference_logits(reference, ids, valid)
    assert_close(logits[valid], expected[valid], "logits", torch.bfloat16)
    with torch.no_grad():
        wide = exact(ids, AttentionSpec(valid=valid))
    assert_close(logits[valid], wide[valid], "against float32", torch.bfloat16)
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5))
    (logits.float() * weight)[valid].sum().backward()
    (expected.float() * weight)[valid].sum().backward()
    theirs = dict(reference.named_parameters())
    for key, parameter in model.named_parameters():
        assert_close(parameter.grad, theirs[key].grad, "gradient", torch.bfloat16)


@pytest.mark.parametrize("window", [1, 4, 10, 64])
@pytest.mark.parametrize("padding", PADDINGS)
def test_mistral_window(window: int, padding: str) -> None:
    reference = reference_model(
        transformers.MistralConfig(
            vocab_size=61,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=window,
            architectures=["MistralForCausalLM"],
        )
    )
    model = as_puna(reference)
    assert model.config.window_tokens == window
    ids, valid = token_ids(BATCH, TOKENS), valid_tokens(padding)
    spec = None if padding == "none" else AttentionSpec(valid=valid)
    with torch.inference_mode():
        expected = reference_logits(reference, ids, valid)[valid]
        assert_close(model(ids, spec)[valid], expected, "logits")


@pytest.mark.parametrize("case", REDUCED, ids=name)
def test_config_both_ways(case: Case) -> None:
    """Ours from theirs, theirs from ours: the same config, and the same logits."""
    reference = reference_model(hf_config(case))
    mine = LlamaConfig.from_hf(reference.config.to_dict())
    again = transformers.LlamaConfig.from_dict(mine.to_hf())
    assert LlamaConfig.from_hf(again.to_dict()) == mine == LlamaConfig.from_hf(mine.to_hf())
    twin = reference_model(again)
    twin.load_state_dict(reference.state_dict())
    ids, valid = token_ids(2, 9), torch.ones(2, 9, dtype=torch.bool)
    with torch.inference_mode():
        expected = reference_logits(reference, ids, valid)
        assert torch.equal(reference_logits(twin, ids, valid), expected)


def test_the_reduced_matrix_meets_every_value() -> None:
    for axis in range(5):
        assert {case[axis] for case in REDUCED} == {case[axis] for case in MATRIX}
