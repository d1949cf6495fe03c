"""Configs: what completing adds and keeps, what it refuses; generation configs in every format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from puna.errors import InputError
from puna.store import open_checkpoint, write_gguf, write_hf, write_meta
from puna.store.config import complete_config

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GENERATION = {"eos_token_id": [2, 7], "bos_token_id": 1, "temperature": 0.6, "note": "å"}


@pytest.mark.parametrize("window", [None, 16, "absent"])
def test_completing_twice_is_completing_once(window, make_config):
    changes = {} if window == "absent" else {"sliding_window": window}
    config = make_config(model_type="mistral", eos_token_id=None, **changes)
    assert config["sliding_window"] == (4096 if window == "absent" else window)
    assert config["eos_token_id"] is None
    assert complete_config(config, Path("config.json")) == config


@pytest.mark.parametrize("layout", ["hf", "meta", "gguf"])
def test_a_mistral_without_a_window_stays_without(
    layout, tmp_path, make_config, make_tensors, lazy
):
    config = make_config(model_type="mistral", sliding_window=None, max_position_embeddings=32768)
    tensors = lazy(make_tensors(config))
    path = tmp_path / ("model.gguf" if layout == "gguf" else "model")
    if layout == "gguf":
        write_gguf(path, config=config, tensors=tensors, metadata={})
    else:
        path.mkdir()
        write = {"hf": write_hf, "meta": write_meta}[layout]
        write(path, config=config, tensors=tensors, files={})
    assert open_checkpoint(path).config.get("sliding_window") is None
    if layout == "hf":
        theirs = AutoModelForCausalLM.from_pretrained(path).config
        assert (theirs.model_type, theirs.sliding_window) == ("mistral", None)


def test_a_llama_has_no_window(make_config):
    assert "sliding_window" not in make_config(sliding_window=4)
    named = {"model_type": None, "architectures": ["MistralForCausalLM"], "sliding_window": 4}
    assert make_config(**named)["sliding_window"] == 4


MISTRAL = {"model_type": "mistral"}
BAD = [
    *(({**MISTRAL, "sliding_window": v}, "'sliding_window'") for v in (0, "4096", 4.5, [1], True)),
    ({"rope_scaling": {"rope_type": "linear"}}, "the field 'rope_scaling.factor' is missing"),
    ({"rope_scaling": {"type": "linear", "factor": "2"}}, "'rope_scaling.factor': expected a pos"),
    ({"rope_scaling": {"rope_type": ["linear"]}}, "'rope_scaling.rope_type': expected a name"),
    ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "expected more than low_freq_factor"),
    ({"rope_theta": 0}, "'rope_theta': expected a positive number, found '0'"),
    *(
        ({"rope_scaling": LLAMA3 | {key: value}}, f"'rope_scaling.{key}'")
        for key in LLAMA3
        if key != "rope_type"
        for value in (None, 0, "8", float("nan"))
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_values_of_the_wrong_kind(changes, message, make_config):
    with pytest.raises(InputError) as caught:
        make_config(**changes)
    assert str(caught.value).startswith("config.json: ") and message in str(caught.value)


def test_an_unknown_rope_type_is_kept(make_config):
    yarn = {"rope_type": "yarn", "factor": 4.0}
    assert make_config(rope_scaling=yarn)["rope_scaling"] == yarn


@pytest.mark.parametrize("layout", ["hf", "meta", "gguf"])
def test_a_generation_config_goes_through_every_format(
    layout, tmp_path, make_config, make_tensors, lazy
):
    config = make_config()
    tensors = lazy(make_tensors(config))
    path = tmp_path / ("model.gguf" if layout == "gguf" else "model")
    if layout == "gguf":
        write_gguf(path, config=config, tensors=tensors, metadata={}, generation_config=GENERATION)
    else:
        path.mkdir()
        write = {"hf": write_hf, "meta": write_meta}[layout]
        write(path, config=config, tensors=tensors, files={}, generation_config=GENERATION)
    assert open_checkpoint(path).generation_config == GENERATION


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[1]", "puna.generation_config: expected an object, found a list"),
        ("{", "puna.generation_config: is not JSON"),
        ("{" + " " * (1 << 16) + "}", "expected a text of up to 65536 characters"),
        (7, "expected a text of up to 65536 characters"),
    ],
)
def test_a_broken_generation_config_in_gguf(
    value, message, tmp_path, make_config, make_tensors, lazy
):
    config = make_config()
    path = tmp_path / "model.gguf"
    metadata = {"puna.generation_config": value}
    write_gguf(path, config=config, tensors=lazy(make_tensors(config)), metadata=metadata)
    with pytest.raises(InputError) as caught:
        open_checkpoint(path)
    assert message in str(caught.value) and "model.gguf" in str(caught.value)
    with pytest.raises(InputError, match="is over the limit of 65536"):
        write_gguf(
            path,
            config=config,
            tensors=[],
            metadata={},
            generation_config={"note": "a" * (1 << 16)},
        )


@pytest.mark.parametrize("ends", [50, [50, 7], None])
def test_without_generation_config_json_the_config_says_it(ends, tmp_path, make_config):
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=3,
        eos_token_id=ends,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config
    ours = open_checkpoint(tmp_path).generation_config
    assert ours.get("eos_token_id") == theirs.eos_token_id == ends
    assert ours["bos_token_id"] == theirs.bos_token_id == 3


def test_ids_that_are_none(write_folder):
    folder = write_folder(pad_token_id=-1, eos_token_id=2)
    assert open_checkpoint(folder).generation_config == {"eos_token_id": 2}
    value = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(value | {"eos_token_id": "</s>"}))
    with pytest.raises(InputError, match=r"config\.json: .*'eos_token_id': expected an id, a list"):
        open_checkpoint(folder)
