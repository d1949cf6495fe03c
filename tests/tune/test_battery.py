"""Every tuning method against the same list of promises (rule 10 of the design)."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.tolerances import assert_close
from puna.config import to_dict
from puna.errors import InputError
from puna.generate.stepping import kernels_missing
from puna.model.linear import Linear
from puna.tune import (
    BaseReference,
    FullConfig,
    active,
    attach,
    load_tuned,
    method_config,
    method_of,
    save_tuned,
)
from tune.battery import (
    LAYERS,
    METHODS,
    base,
    logits,
    loss,
    perturb,
    perturbed,
    same,
    snapshot,
    train,
)

every = pytest.mark.parametrize("name", METHODS)
mergeable = [name for name, config in METHODS.items() if method_of(config).mergeable]
detachable = [name for name, config in METHODS.items() if method_of(config).detachable]
bfloat16 = [name for name in METHODS if name not in ("lora_top", "dora_top", "rslora")]


def test_the_battery_covers_every_method_and_claim() -> None:
    kinds = {config.method for config in METHODS.values()}
    assert kinds == {"full", "top_layers", "lora", "dora", "adapter"}
    assert 0 < len(mergeable) < len(METHODS)
    assert 0 < len(detachable) < len(METHODS)


@every
def test_configs_survive_plain_data(name: str) -> None:
    assert method_config(to_dict(METHODS[name])) == METHODS[name]


@every
def test_only_its_parameters_get_gradients(name: str) -> None:
    model = base()
    tuned = perturbed(METHODS[name], model)
    own = {id(p) for p in tuned.parameters().values()}
    loss(model).backward()
    for path, parameter in model.named_parameters():
        learns = id(parameter) in own
        assert parameter.requires_grad == learns, path
        assert (parameter.grad is not None) == learns, path
    assert {id(p) for p in model.parameters()} >= own
    for path, parameter in tuned.parameters().items():
        assert parameter.dtype is torch.float32
        assert parameter.grad is not None, path
        assert parameter.grad.abs().max() > 0, path
    assert tuned.trainable_count() == sum(p.numel() for p in tuned.parameters().values())


@every
def test_the_start_is_the_base(name: str) -> None:
    assert method_of(METHODS[name]).identity_start
    model = base()
    expected = logits(model)
    attach(model, METHODS[name])
    assert torch.equal(logits(model), expected)


@every
def test_it_learns_and_the_frozen_rest_stays(name: str) -> None:
    model = base()
    before = snapshot(model)
    tuned = attach(model, METHODS[name])
    frozen = {id(p): p.clone() for p in model.parameters() if not p.requires_grad}
    losses = train(tuned, steps=6)
    assert losses[-1] < losses[0]
    for parameter in model.parameters():
        if id(parameter) in frozen:
            assert torch.equal(parameter, frozen[id(parameter)])
    if method_of(METHODS[name]).detachable:
        tuned.detach()
        assert same(model, before)


@every
def test_perturbed_it_differs_from_the_base(name: str) -> None:
    model = base()
    expected = logits(model)
    perturbed(METHODS[name], model)
    assert (logits(model) - expected).abs().max() > 1e-3


@every
def test_the_seed_decides_the_start(name: str) -> None:
    def start(seed: int) -> dict[str, torch.Tensor]:
        return attach(base(), METHODS[name], seed=seed).tensors()

    first, again, other = start(1), start(1), start(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    if name not in ("full", "top_layers"):
        assert any(not torch.equal(first[key], other[key]) for key in first)


@every
def test_saved_and_loaded_it_is_itself(name: str, tmp_path: Path) -> None:
    model = base()
    tuned = perturbed(METHODS[name], model)
    reference = BaseReference("tiny", "a" * 64, "b" * 64)
    if isinstance(METHODS[name], FullConfig):
        with pytest.raises(InputError, match="written as a checkpoint"):
            save_tuned(tmp_path, tuned, base=reference)
        return
    save_tuned(tmp_path, tuned, base=reference)
    again = load_tuned(base(), tmp_path, check_identity="a" * 64)
    assert again.config == tuned.config
    assert torch.equal(logits(again.model), logits(model))
    assert list(again.tensors()) == list(tuned.tensors())


@every
def test_values_loaded_into_it_are_its_own(name: str) -> None:
    first, second = perturbed(METHODS[name], base()), attach(base(), METHODS[name])
    second.load(first.tensors())
    assert torch.equal(logits(second.model), logits(first.model))


@pytest.mark.parametrize("name", mergeable)
@pytest.mark.parametrize("tied", [False, True])
def test_merged_is_unmerged(name: str, tied: bool) -> None:
    model = base(tie_word_embeddings=tied)
    names = list(model.state_dict())
    tuned = perturbed(METHODS[name], model)
    expected, values = logits(model), {n: t.clone() for n, t in tuned.tensors().items()}
    with tuned.merged():
        assert_close(logits(model), expected, "logits")
        assert kernels_missing(model) is None or "bias" in name
        assert list(model.state_dict()) == names or "bias" in name
    assert torch.equal(logits(model), expected)
    assert all(torch.equal(t, values[n]) for n, t in tuned.tensors().items())
    tuned.merge()
    assert_close(logits(model), expected, "logits")
    assert active(model) is None
    assert list(model.state_dict()) == names or "bias" in name
    assert type(model.model.layers[-1].self_attn.q_proj) is Linear
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", [n for n in METHODS if n not in mergeable])
def test_what_is_not_mergeable_says_so(name: str) -> None:
    tuned = perturbed(METHODS[name], base())
    expected = logits(tuned.model)
    with pytest.raises(InputError, match="'adapter' cannot be merged"):
        tuned.merge()
    with pytest.raises(InputError, match="'adapter' cannot be merged"), tuned.merged():
        pass
    assert torch.equal(logits(tuned.model), expected)


@pytest.mark.parametrize("name", detachable)
def test_off_is_the_base_exactly(name: str) -> None:
    model = base()
    before, expected = snapshot(model), logits(model)
    modules = dict(model.named_modules())
    tuned = perturbed(METHODS[name], model)
    tuning = logits(model)
    with tuned.disabled():
        assert same(model, before)
        assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model), tuning)
    tuned.detach()
    assert same(model, before)
    assert torch.equal(logits(model), expected)
    assert dict(model.named_modules()) == modules
    with pytest.raises(InputError, match="no longer on its model"):
        tuned.detach()


@pytest.mark.parametrize("name", [n for n in METHODS if n not in detachable])
def test_what_is_not_detachable_says_so(name: str) -> None:
    tuned = perturbed(METHODS[name], base())
    with pytest.raises(InputError, match="'full' cannot be taken off"):
        tuned.detach()
    with pytest.raises(InputError, match="'full' cannot be taken off"), tuned.disabled():
        pass


@pytest.mark.parametrize("name", detachable)
def test_detaching_restores_what_learned_before(name: str) -> None:
    model = base()
    model.model.norm.weight.requires_grad_(True)
    learning = {n: p.requires_grad for n, p in model.named_parameters()}
    attach(model, METHODS[name]).detach()
    assert {n: p.requires_grad for n, p in model.named_parameters()} == learning


@every
def test_the_trunk_is_what_it_says(name: str) -> None:
    model = base()
    tuned = attach(model, METHODS[name])
    layers = getattr(METHODS[name], "layers", None)
    assert tuned.start == (0 if layers is None else LAYERS - layers)
    assert tuned.has_trunk == (name != "full")
    below, above = model.model.layers[: tuned.start], model.model.layers[tuned.start :]
    assert not any(p.requires_grad for p in below.parameters())
    assert any(p.requires_grad for p in above[0].parameters())


@pytest.mark.parametrize("name", bfloat16)
def test_a_bfloat16_base_keeps_its_dtype(name: str) -> None:
    model = base(dtype=torch.bfloat16)
    expected = logits(model)
    tuned = attach(model, METHODS[name])
    own = {id(p) for p in tuned.parameters().values()}
    for parameter in model.parameters():
        assert parameter.dtype is (torch.float32 if id(parameter) in own else torch.bfloat16)
    assert_close(logits(model), expected, "logits", torch.bfloat16)
    assert logits(model).dtype is torch.bfloat16
    perturb(tuned)
    loss(model).backward()
    assert all(p.grad is not None for p in tuned.parameters().values())
    if name in mergeable:
        tuning = logits(model)
        tuned.merge()
        assert all(p.dtype is torch.bfloat16 for p in model.parameters())
        assert_close(logits(model), tuning, "against float32", torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tied_weight_learns_once_and_stays_tied(dtype: torch.dtype) -> None:
    model = base(tie_word_embeddings=True, dtype=dtype)
    count = sum(p.numel() for p in model.parameters())
    tuned = perturbed(METHODS["full"], model)
    assert tuned.trainable_count() == count
    expected = logits(model)
    tuned.merge()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert_close(logits(model), expected, "logits", dtype)


@every
def test_a_copied_model_has_its_own_tuning(name: str) -> None:
    model = base()
    tuned = perturbed(METHODS[name], model)
    expected = logits(model)
    copied = copy.deepcopy(model)
    perturb(tuned, seed=2)
    assert torch.equal(logits(copied), expected)
    assert active(copied) == "default"


def test_dropout_acts_in_training_only() -> None:
    for name in ("lora", "dora", "houlsby"):
        model = base()
        tuned = perturbed(replace(METHODS[name], dropout=0.5), model)
        expected = logits(model)
        tuned.set_train(True)
        assert (logits(model) - expected).abs().max() > 1e-3
        tuned.set_train(False)
        assert torch.equal(logits(model), expected)
