"""Hugging Face's config.json both ways: absent keys, old and new spellings, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.reference import TINY
from puna.errors import InputError
from puna.model import PRESETS, LlamaConfig, RopeScaling

transformers = pytest.importorskip("transformers")

MINIMAL = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_an_absent_key_means_what_it_means_to_transformers() -> None:
    theirs = transformers.LlamaConfig.from_dict(dict(MINIMAL)).to_dict()
    assert LlamaConfig.from_hf(MINIMAL) == LlamaConfig.from_hf(theirs)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_goes_to_transformers_and_back(name: str) -> None:
    config = PRESETS[name]
    theirs = transformers.LlamaConfig.from_dict(config.to_hf())
    assert LlamaConfig.from_hf(theirs.to_dict()) == config
    assert LlamaConfig.from_hf(config.to_hf()) == config


FULL = replace(
    TINY,
    head_dim=12,
    rms_norm_eps=3e-6,
    rope_theta=777.0,
    rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 64),
    tie_word_embeddings=True,
    attention_bias=True,
    mlp_bias=True,
    initializer_range=0.03,
    max_position_embeddings=99,
)
WINDOWED = replace(TINY, window_tokens=5, rope_theta=777.0)


@pytest.mark.parametrize("config", [TINY, FULL, WINDOWED], ids=["plain", "full", "windowed"])
def test_a_config_written_to_disk_by_transformers(config: LlamaConfig, tmp_path: Path) -> None:
    """transformers leaves out what equals its defaults; ours reads the file all the same."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.json").write_text(json.dumps(config.to_hf()), encoding="utf-8")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert theirs.model_type == ("mistral" if config.window_tokens else "llama")
    theirs.save_pretrained(tmp_path / "theirs")
    read = json.loads((tmp_path / "theirs" / "config.json").read_text(encoding="utf-8"))
    assert LlamaConfig.from_hf(read) == config


SPELLINGS: list[dict[str, Any]] = [
    {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}},
]


@pytest.mark.parametrize("rope", SPELLINGS, ids=["oldest", "4", "5"])
def test_every_spelling_of_rope(rope: dict[str, Any]) -> None:
    config = LlamaConfig.from_hf({**MINIMAL, **rope})
    assert (config.rope_theta, config.rope_scaling) == (5e5, RopeScaling("linear", 2.0))


def test_llama3_scaling_is_read_whole() -> None:
    config = LlamaConfig.from_hf({**MINIMAL, "rope_scaling": {"rope_type": "llama3", **LLAMA3}})
    assert config.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 64)


def test_null_keys_are_absent_keys() -> None:
    nulls = dict.fromkeys(("num_key_value_heads", "head_dim", "rope_scaling", "sliding_window"))
    config = LlamaConfig.from_hf({**MINIMAL, **nulls})
    assert (config.num_key_value_heads, config.head_dim, config.window_tokens) == (4, 8, None)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not known; a LLaMA uses 'silu'"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope scaling 'yarn' is not known"),
    ({"num_key_value_heads": 3}, r"num_attention_heads \(4\) must be a multiple of"),
    ({"hidden_size": 0}, "hidden_size must be a positive integer, not 0"),
    ({"vocab_size": "many"}, "vocab_size must be a positive integer, not 'many'"),
    ({"num_hidden_layers": True}, "num_hidden_layers must be a positive integer, not True"),
    ({"rope_scaling": {"rope_type": "dynamic"}}, "rope scaling 'dynamic' is not known"),
    ({"rope_scaling": "linear"}, "rope_scaling must be an object or null, not 'linear'"),
    ({"rope_scaling": {"rope_type": "linear"}}, "the config lacks 'rope_scaling.factor'"),
    ({"rope_scaling": {"rope_type": "linear", "factor": -1.0}}, "rope_scaling.factor must be a p"),
    ({"rope_scaling": {"rope_type": "linear", "factor": "2"}}, "factor must be a positive number"),
    ({"rope_parameters": {"rope_theta": "x"}}, "rope_theta must be a positive number, not 'x'"),
    ({"hidden_size": 33}, "hidden_size = 33 is no multiple of num_attention_heads = 4"),
    *(
        ({"model_type": "mistral", "num_key_value_heads": 4, "sliding_window": value}, "window")
        for value in (0, "4096", 4.5, [1], True)
    ),
    *(
        ({"rope_scaling": {"rope_type": "llama3", **LLAMA3, key: value}}, f"rope_scaling.{key}")
        for key in LLAMA3
        for value in (None, 0, "8")
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_this_model_does_not_do_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LlamaConfig.from_hf({**MINIMAL, **change})


@pytest.mark.parametrize("key", MINIMAL)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(InputError, match=f"the config lacks '{key}'"):
        LlamaConfig.from_hf({name: value for name, value in MINIMAL.items() if name != key})


@pytest.mark.parametrize("bias", ["attention_bias", "mlp_bias"])
def test_a_window_with_biases_has_no_config_in_transformers(bias: str) -> None:
    """Its model with a window has no biases, and would drop them."""
    with pytest.raises(InputError, match=f"a window together with {bias} has no name"):
        replace(WINDOWED, **{bias: True}).to_hf()


def test_only_a_mistral_has_a_window() -> None:
    """transformers ignores the key in a config of type llama, and assumes 4096 in a mistral's."""
    assert LlamaConfig.from_hf({**MINIMAL, "sliding_window": 4}).window_tokens is None
    mistral = {**MINIMAL, "model_type": "mistral", "num_key_value_heads": 4}
    assert LlamaConfig.from_hf({**mistral, "sliding_window": 4}).window_tokens == 4
    assert LlamaConfig.from_hf({**mistral, "sliding_window": None}).window_tokens is None
    theirs = transformers.MistralConfig.from_dict(dict(mistral))
    assert LlamaConfig.from_hf(mistral).window_tokens == theirs.sliding_window == 4096
    assert LlamaConfig.from_hf(mistral).max_position_embeddings == theirs.max_position_embeddings
