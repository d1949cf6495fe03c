"""The forward pass block by block equals the model's own, and holds one block at a time."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.reference import TINY, tiny_model, token_ids
from model.tolerances import assert_close
from puna.model import AttentionSpec, LlamaConfig
from puna.model.streamed import forward_by_block

SHAPES: dict[str, LlamaConfig] = {
    "untied": replace(TINY, num_hidden_layers=3),
    "tied": replace(TINY, tie_word_embeddings=True),
    "biases": replace(TINY, attention_bias=True, mlp_bias=True, window_tokens=3),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_stages_are_those_of_the_model(name: str, mode: str) -> None:
    model, ids = tiny_model(SHAPES[name]), token_ids(2, 7)
    spec = AttentionSpec(mode)  # type: ignore[arg-type]
    weights = model.state_dict()
    stages = list(forward_by_block(model.config, lambda key: weights[key], ids, spec))
    layers = model.config.num_hidden_layers
    names = ["embedding", *(f"block {layer}" for layer in range(layers)), "logits"]
    assert [stage.name for stage in stages] == names
    with torch.no_grad():
        assert torch.equal(stages[0].values, model.embed(ids))
        for layer in range(layers):
            hidden = model.run(model.embed(ids), 0, layer + 1, spec)
            assert_close(stages[layer + 1].values, hidden, "logits")
        assert_close(stages[-1].values, model(ids, spec), "logits")


def test_weights_are_cast_to_float32() -> None:
    model, ids = tiny_model().bfloat16(), token_ids(1, 5)
    weights = model.state_dict()
    *_, logits = forward_by_block(model.config, lambda key: weights[key], ids)
    assert logits.values.dtype == torch.float32
    with torch.no_grad():
        assert_close(logits.values, model.float()(ids), "logits")


def test_one_block_is_held_at_a_time() -> None:
    config = replace(TINY, num_hidden_layers=5)
    weights = tiny_model(config).state_dict()
    given: list[tuple[str, weakref.ref[Any]]] = []

    def load(key: str) -> Tensor:
        memory = weights[key].numpy().copy()  # lives as long as a tensor looks at it
        given.append((key, weakref.ref(memory)))
        return torch.from_numpy(memory)

    most = 0
    for stage in forward_by_block(config, load, token_ids(1, 5)):
        held = {key.rpartition(".layers.")[2][0] for key, ref in given if ref() is not None}
        most = max(most, len(held))
        assert len(held) <= 1, f"after {stage.name}: {sorted(held)}"
    assert {key for key, _ in given} == set(weights)
    assert most == 1, "the norm is held to the end: the meter sees what is alive"
