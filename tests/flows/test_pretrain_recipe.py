"""What a pretraining recipe takes and refuses, and the shapes that it stands for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from house.source import REPOSITORY
from puna.config import from_dict, load_recipe, to_dict
from puna.errors import InputError
from puna.flows.pretrain_recipe import ModelShape, PretrainRecipe, PretrainTrain
from puna.model import PRESETS, preset
from puna.train.optimizers import LLAMA_OPTIM

FOLDER = REPOSITORY / "recipes"


def read(**given_: Any) -> PretrainRecipe:
    return from_dict(PretrainRecipe, {"shards": "s", **given_}, "recipe")


def test_the_defaults_are_llamas() -> None:
    train = read().train
    optim, schedule = train.optim, train.schedule
    assert (optim.beta1, optim.beta2, optim.weight_decay, optim.max_grad_norm) == (
        0.9,
        0.95,
        0.1,
        1.0,
    )
    assert (schedule.kind, schedule.final_share) == ("cosine", 0.1)
    for name in ("beta1", "beta2", "eps", "weight_decay", "max_grad_norm"):
        assert getattr(optim, name) == getattr(LLAMA_OPTIM, name), name
    assert (train.guard.spike_factor, train.guard.max_rollbacks) == (10.0, 3)
    assert train.epochs is None
    changed = read(train={"optim": {"learning_rate": 1e-3}}).train.optim
    assert (changed.learning_rate, changed.beta2, changed.weight_decay) == (1e-3, 0.95, 0.1)


def test_plain_data_come_back() -> None:
    recipe = read(model={"hidden_size": 64, "layers": 2, "heads": 4}, tokens=1000)
    assert from_dict(PretrainRecipe, to_dict(recipe), "again") == recipe


@pytest.mark.parametrize(
    ("given_", "said", "fix"),
    [
        ({"shards": []}, "shards names no folder", "puna tokenize"),
        ({"tokens": 0}, "tokens must be at least 1", ""),
        ({"z_loss": -1.0}, "z_loss must not be negative", ""),
        ({"peak_flops_per_second": 0.0}, "peak_flops_per_second must be positive", ""),
        ({"tokens": 9, "train": {"max_steps": 3}}, "both say how long the run is", "one of them"),
        ({"train": {"epochs": 3}}, "epochs is not for pretraining", "mixture.epochs"),
        ({"train": {"micro_batches": 2}}, "micro_batches is not for pre", "rows.step_rows"),
        ({"train": {"evaluate_every_steps": 5}}, "evaluate_every_steps is", "evaluation.every"),
        ({"train": {"compute_dtype": "bfloat16"}}, "compute_dtype is not for", "set dtype"),
        ({"train": {"max_steps": 0}}, "max_steps must be at least 1", ""),
        ({"train": {"keep_checkpoints": 0}}, "keep_checkpoints must be at least 1", ""),
        ({"evaluation": {"max_tokens": 0}}, "max_tokens must be at least 1", ""),
        ({"samples": {"every_steps": 0}}, "every_steps must be at least 1", ""),
        ({"samples": {"temperature": -1.0}}, "temperature must be", ""),
        ({"model": "laptop-11m"}, "there is no preset 'laptop-11m'", "laptop-10m"),
        ({"model": {"layers": 2}}, "the shape lacks hidden_size, heads", "laptop-10m"),
        ({"model": {"preset": "tinny"}}, "there is no preset 'tinny'", "tiny"),
        ({"dtype": "float16"}, "expected one of 'auto', 'float32', 'bfloat16'", ""),
    ],
)
def test_what_is_refused(given_: dict[str, Any], said: str, fix: str) -> None:
    with pytest.raises(InputError) as told:
        read(**given_)
    assert said in told.value.what
    assert fix in (told.value.fix or "")


def test_a_preset_takes_the_vocabulary_of_the_shards_and_the_length_of_a_row() -> None:
    found = read(model="laptop-10m").shape.config(5000, 512)
    expected = dataclasses.replace(
        preset("laptop-10m"), vocab_size=5000, max_position_embeddings=512
    )
    assert found == expected


def test_a_preset_with_changes() -> None:
    shape = ModelShape(preset="laptop-10m", hidden_size=128, layers=3, tie_embeddings=False)
    found = shape.config(300, 64)
    assert (found.hidden_size, found.num_hidden_layers, found.head_dim) == (128, 3, 16)
    assert (found.num_attention_heads, found.num_key_value_heads) == (8, 4)
    assert not found.tie_word_embeddings


@given(st.integers(1, 8), st.integers(1, 64), st.integers(1, 4))
def test_a_shape_of_its_own(heads: int, half_side: int, layers: int) -> None:
    width = 2 * half_side * heads
    found = ModelShape(hidden_size=width, layers=layers, heads=heads).config(300, 16)
    assert found.head_dim * heads == width
    assert found.num_key_value_heads == heads
    assert 8 * width / 3 <= found.intermediate_size < 8 * width / 3 + 64
    assert found.intermediate_size % 64 == 0
    assert not found.tie_word_embeddings


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"hidden_size \(65\) is not a multiple of heads \(4\)"):
        ModelShape(hidden_size=65, layers=2, heads=4).config(300, 16)
    with pytest.raises(InputError, match="rows of 64 tokens do not fit a context of 32") as told:
        ModelShape(preset="tiny", context_tokens=32).config(300, 64)
    assert told.value.fix == "lower rows.row_tokens, or raise model.context_tokens"
    assert (
        ModelShape(preset="tiny", context_tokens=128).config(9, 64).max_position_embeddings == 128
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_pretrained(name: str) -> None:
    assert ModelShape(preset=name).config(1000, 256).num_hidden_layers >= 4


def test_the_loop_is_told_the_rest() -> None:
    train = PretrainTrain(max_steps=7, patience=3).bounded(12, 4, 5)
    assert (train.max_steps, train.micro_batches, train.evaluate_every_steps) == (12, 4, 5)
    assert (train.epochs, train.patience) == (None, 3)


def test_llamas_mixture_is_a_recipe() -> None:
    recipe = load_recipe(FOLDER / "llama-mixture.yaml", PretrainRecipe)
    shares = recipe.mixture.weights
    total = sum(shares.values())
    expected = {
        "commoncrawl": 0.67,
        "c4": 0.15,
        "github": 0.045,
        "wikipedia": 0.045,
        "books": 0.045,
        "arxiv": 0.025,
        "stackexchange": 0.02,
    }
    assert {name: share / total for name, share in shares.items()} == pytest.approx(expected)
    text = (FOLDER / "llama-mixture.yaml").read_text()
    for source, epochs in (("wikipedia", "2.45"), ("books", "2.23"), ("github", "0.64")):
        assert f"{source}: {epochs}" in text
    assert recipe.step_tokens == 4 * 2**20
    assert recipe.shape.config(32000, recipe.rows.row_tokens) == preset("llama-7b")


def test_the_laptop_recipe() -> None:
    recipe = load_recipe(FOLDER / "pretrain-laptop.yaml", PretrainRecipe)
    shape = recipe.shape.config(4096, recipe.rows.row_tokens)
    assert (shape.hidden_size, shape.tie_word_embeddings) == (192, True)
    assert recipe.samples.prompts
