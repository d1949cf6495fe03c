"""Parameters, FLOPs and cache bytes: exact, and the same as what runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.reference import TINY, tiny_model, token_ids
from puna.errors import InputError
from puna.model import (
    PRESETS,
    AttentionSpec,
    ContiguousCache,
    LlamaConfig,
    LlamaModel,
    count,
    preset,
)

PUBLISHED = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.3-70b": 70_553_706_496,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "stories260k": 260_032,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name: str) -> None:
    assert count(preset(name)).parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_tensors_of_transformers(name: str) -> None:
    """Every name and every shape, both models on the meta device."""
    transformers = pytest.importorskip("transformers")
    config = preset(name)
    small = replace(config, num_hidden_layers=min(2, config.num_hidden_layers))
    with torch.device("meta"):
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(small.to_hf()))
        mine = LlamaModel(small)
    expected = {key: p.shape for key, p in theirs.named_parameters()}
    assert {key: p.shape for key, p in mine.named_parameters()} == expected
    missing = (config.num_hidden_layers - small.num_hidden_layers) * count(small).block_parameters
    whole = theirs.num_parameters() + missing
    assert count(config).parameters == whole


@pytest.mark.parametrize("name", ["laptop-10m", "laptop-30m", "laptop-60m"])
def test_laptop_presets_are_as_large_as_they_say(name: str) -> None:
    said = int(name.removeprefix("laptop-").removesuffix("m"))
    assert count(preset(name)).parameters / 1e6 == pytest.approx(said, rel=0.25)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no preset 'llama3-8b'\n  fix: nearest: llama-3-8b"):
        preset("llama3-8b")
    with pytest.raises(InputError, match=r"nearest: smollm2-135m"):
        preset("SmolLM2-135M-Instruct")
    with pytest.raises(InputError, match=r"no preset '\?'\n  fix: known: llama-7b, llama-13b"):
        preset("?")


SHAPES: dict[str, LlamaConfig] = {
    "tiny": TINY,
    "tied": replace(TINY, tie_word_embeddings=True),
    "free head_dim": replace(TINY, head_dim=12, num_key_value_heads=1),
    "deep": replace(TINY, num_hidden_layers=5, num_key_value_heads=4),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_parts_add_up(name: str) -> None:
    config = SHAPES[name]
    counts = count(config)
    blocks = counts.block_parameters * config.num_hidden_layers
    rest = counts.embedding_parameters + counts.head_parameters + config.hidden_size
    assert counts.parameters == blocks + rest
    assert counts.parameters == sum(p.numel() for p in LlamaModel(config).parameters())
    assert (counts.head_parameters == 0) == config.tie_word_embeddings


@pytest.fixture
def torchs_own_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's products are of a kind that torch's counter does not know."""
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.usefixtures("torchs_own_products")
def test_flops_equal_those_that_torch_counts(name: str) -> None:
    """Bidirectional, so that each of T tokens attends to all T; then one step over a cache."""
    model, counts, tokens = tiny_model(SHAPES[name]), count(SHAPES[name]), 10
    ids = token_ids(1, tokens)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        logits = model(ids, AttentionSpec("bidirectional"))
    assert forward.get_total_flops() == tokens * counts.flops_per_token(tokens)
    with FlopCounterMode(display=False) as linear:
        model.head(model.embed(ids))
    head = 2 * model.lm_head.weight.numel()
    assert linear.get_total_flops() == tokens * head
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    trained = tokens * counts.training_flops_per_token(tokens)
    assert forward.get_total_flops() + backward.get_total_flops() == trained


@pytest.mark.usefixtures("torchs_own_products")
def test_flops_of_a_step_over_a_cache() -> None:
    model, counts, tokens = tiny_model(), count(TINY), 10
    cache = ContiguousCache(TINY, batch=1, max_tokens=tokens)
    model(token_ids(1, tokens - 1), cache=cache)
    for keys, values in zip(cache.keys, cache.values, strict=True):
        keys.detach_()
        values.detach_()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as step:
        model(token_ids(1, 1), cache=cache)
    assert step.get_total_flops() == counts.flops_per_token(tokens)


def test_training_is_three_times_the_forward() -> None:
    counts = count(preset("llama-7b"))
    assert counts.flops_per_token() == 2 * (6_738_415_616 - 32000 * 4096 - 65 * 4096)
    assert counts.training_flops_per_token(2048) == 3 * counts.flops_per_token(2048)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cache_bytes_equal_those_of_a_cache(name: str, dtype: torch.dtype) -> None:
    cache = ContiguousCache(SHAPES[name], batch=3, max_tokens=7, dtype=dtype)
    assert cache.nbytes == 3 * 7 * count(SHAPES[name]).kv_bytes_per_token(dtype.itemsize)


def test_cache_bytes_of_a_published_model() -> None:
    """Llama-2-7B in 16 bits takes half a mebibyte per token."""
    assert count(preset("llama-2-7b")).kv_bytes_per_token() == 2**19
