"""Weights in: given ones strictly by name and shape, fresh ones the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.reference import TINY, token_ids
from puna.errors import InputError
from puna.model import LlamaConfig, LlamaModel, build, init_weights, load_weights

TIED = replace(TINY, tie_word_embeddings=True)
WIDE = replace(TINY, vocab_size=997, hidden_size=128, intermediate_size=256, attention_bias=True)
Tensors = list[tuple[str, Tensor]]


def tensors(config: LlamaConfig = TINY) -> Tensors:
    model = init_weights(LlamaModel(config))
    return [(name, p.detach().clone()) for name, p in model.named_parameters()]


# --- build --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY, TIED], ids=["untied", "tied"])
def test_build_takes_the_tensors_as_they_are(config: LlamaConfig) -> None:
    given = tensors(config)
    model = build(config, iter(given))
    held = dict(model.named_parameters())
    assert held.keys() == dict(given).keys()
    for name, tensor in given:
        assert held[name].data_ptr() == tensor.data_ptr(), f"{name} was copied"
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == config.tie_word_embeddings
    expected = init_weights(LlamaModel(config)).eval()
    ids = token_ids(2, 5)
    with torch.no_grad():
        assert torch.equal(model(ids), expected(ids))


def test_build_casts_what_has_another_dtype_and_nothing_else() -> None:
    given = tensors()
    given[0] = (given[0][0], given[0][1].bfloat16())
    held = dict(build(TINY, given, dtype=torch.bfloat16).named_parameters())
    assert {p.dtype for p in held.values()} == {torch.bfloat16}
    assert held[given[0][0]].data_ptr() == given[0][1].data_ptr()
    mixed = dict(build(TINY, given).named_parameters())
    assert mixed[given[0][0]].dtype == torch.bfloat16
    assert mixed[given[1][0]].dtype == torch.float32


def test_build_reads_one_tensor_at_a_time() -> None:
    """A generator is never run ahead of what is assigned."""
    alive: list[str] = []

    def stream() -> object:
        for name, tensor in tensors():
            alive.append(name)
            yield name, tensor
            alive.remove(name)
            assert not alive

    build(TINY, stream())  # type: ignore[arg-type]
    assert not alive


def test_a_head_beside_a_tied_embedding_is_the_embedding() -> None:
    given = tensors(TIED)
    embedding = dict(given)["model.embed_tokens.weight"]
    model = build(TIED, [*given, ("lm_head.weight", embedding.clone())])
    assert model.lm_head.weight.data_ptr() == embedding.data_ptr()


def lose(found: Tensors) -> Tensors:
    return [pair for pair in found if "layers.1.mlp" not in pair[0]]


def rename(found: Tensors) -> Tensors:
    return [(name.replace("q_proj", "query"), tensor) for name, tensor in found]


def reshape(found: Tensors) -> Tensors:
    return [(n, t.reshape(-1, 2) if "k_proj" in n else t) for n, t in found]


FAULTS: list[tuple[Callable[[Tensors], Tensors], str]] = [
    (
        lose,
        "3 tensors are missing, among them model.layers.1.mlp.down_proj.weight, "
        "model.layers.1.mlp.gate_proj.weight, model.layers.1.mlp.up_proj.weight",
    ),
    (
        rename,
        "tensor 'model.layers.0.self_attn.query.weight' has no place in this model, or came twice",
    ),
    (
        reshape,
        "tensor 'model.layers.0.self_attn.k_proj.weight': expected the shape [16, 32], "
        "found [256, 2]",
    ),
    (
        lambda found: [*found, found[3]],
        "tensor 'model.layers.0.self_attn.k_proj.weight' has no place in this model, or came twice",
    ),
    (lambda found: [], "21 tensors are missing, among them lm_head.weight, model.embed_tokens"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS)
def test_every_name_and_shape_is_accounted_for(
    spoil: Callable[[Tensors], Tensors], message: str
) -> None:
    with pytest.raises(InputError) as raised:
        build(TINY, spoil(tensors()))
    assert str(raised.value).startswith(message)


def test_load_weights_into_a_model_that_is_there() -> None:
    model = LlamaModel(TIED)
    load_weights(model, tensors(TIED))
    fresh = init_weights(LlamaModel(TIED))
    for (name, mine), theirs in zip(model.named_parameters(), fresh.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    assert model.lm_head.weight is model.model.embed_tokens.weight


# --- init ---------------------------------------------------------------------------------------


def drawn(config: LlamaConfig, seed: int) -> dict[str, Tensor]:
    model = init_weights(LlamaModel(config), seed)
    return {name: p.detach() for name, p in model.named_parameters()}


def test_the_same_seed_gives_the_same_weights() -> None:
    torch.manual_seed(1)
    first, other = drawn(WIDE, 7), drawn(WIDE, 8)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    again = drawn(WIDE, 7)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    matrices = [name for name, p in first.items() if p.dim() == 2]
    assert not any(torch.equal(first[name], other[name]) for name in matrices)
    assert state.shape == torch.get_rng_state().shape


def test_drawing_does_not_touch_the_global_generator() -> None:
    model = LlamaModel(TINY)
    before = torch.get_rng_state()
    init_weights(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_spread_of_fresh_weights() -> None:
    """N(0, initializer_range), what writes into the residual stream divided by sqrt(2 layers)."""
    config = replace(WIDE, num_hidden_layers=8, initializer_range=0.05)
    weights = drawn(config, 0)
    for name, weight in weights.items():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif weight.dim() == 1:
            assert torch.all(weight == 1), name
        else:
            writes = "o_proj" in name or "down_proj" in name
            expected = 0.05 / math.sqrt(16) if writes else 0.05
            spread = expected / math.sqrt(weight.numel())
            assert abs(float(weight.mean())) < 5 * spread, name
            assert abs(float(weight.std()) - expected) < 5 * spread / math.sqrt(2), name


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_head_is_drawn_once(tied: bool) -> None:
    model = init_weights(LlamaModel(replace(TINY, tie_word_embeddings=tied)))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    embedding = drawn(TINY, 0)["model.embed_tokens.weight"]
    assert torch.equal(model.model.embed_tokens.weight, embedding)


def test_a_fresh_model_predicts_about_evenly() -> None:
    model = init_weights(LlamaModel(WIDE)).eval()
    ids = token_ids(4, 32, vocab=WIDE.vocab_size)
    with torch.no_grad():
        loss = model.head_loss(model.run(model.embed(ids)), ids.roll(-1, 1)) / ids.numel()
    assert float(loss) == pytest.approx(math.log(WIDE.vocab_size), rel=0.05)
