"""bfloat16 computes, float32 learns: against a loop of its own, in checkpoints, and afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.reference import TINY, tiny_model
from puna.errors import InputError
from puna.model import LlamaModel
from puna.store.safetensors import read_safetensors
from puna.train import Job, OptimConfig, TrainConfig, load_trained
from puna.train.masters import Masters, what_moves
from puna.train.objectives import Embedded, NextToken
from train.stub import CONFIG, Heard, Loader, assert_same, batch, train, values

OPTIM = OptimConfig(learning_rate=2e-3, weight_decay=0.1, max_grad_norm=None)
BFLOAT16 = replace(CONFIG, compute_dtype="bfloat16", micro_batches=2, optim=OPTIM)


def whole(tied: bool = False, **changes: Any) -> Job:
    """A job whose whole model learns."""
    model = tiny_model(replace(TINY, tie_word_embeddings=tied), seed=3)
    learning = dict(model.named_parameters())
    made = Job(model, learning, NextToken(), Loader(), Embedded(model), "a recipe")
    return replace(made, **changes)


def by_hand(config: TrainConfig) -> dict[str, Tensor]:
    """The same run as a plain loop over torch's AdamW: weights in float32, a model in bfloat16."""
    model: LlamaModel = tiny_model(TINY, seed=3)
    weights = {n: nn.Parameter(p.detach().clone()) for n, p in model.named_parameters()}
    model = model.bfloat16()
    matrices = [p for p in weights.values() if p.dim() >= 2]
    others = [p for p in weights.values() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": config.optim.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.optim.learning_rate, fused=True)
    loader = Loader()
    for epoch in range(2):
        plan = loader.plan(epoch)
        for pair in (plan[:2], plan[2:]):
            given = [batch(members) for members in pair]
            count = sum(one.trained for one in given)
            for one in given:
                model.zero_grad()
                hidden = model.run(model.embed(one.ids))
                (model.head_loss(hidden, one.targets) * (1.0 / count)).backward()
                for name, parameter in model.named_parameters():
                    assert parameter.grad is not None
                    own, new = weights[name].grad, parameter.grad.float()
                    weights[name].grad = new if own is None else own + new
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(weights[name].bfloat16())
    return {name: weight.detach() for name, weight in weights.items()}


def test_as_a_loop_by_hand_has_it(tmp_path: Path) -> None:
    config = replace(BFLOAT16, schedule=replace(CONFIG.schedule, kind="constant", warmup_share=0.0))
    made = whole()
    result = train(made, tmp_path, config)
    assert result.steps == 4
    assert_same(values(made), by_hand(config))


def test_the_model_computes_in_bfloat16_and_is_float32_afterwards(tmp_path: Path) -> None:
    made, seen = whole(tied=True), []

    def look() -> None:
        seen.append({p.dtype for p in made.model.parameters()})
        assert made.model.lm_head.weight is made.model.model.embed_tokens.weight
        assert all(p.grad is None for p in made.model.parameters())

    result = train(made, tmp_path, BFLOAT16, Heard({1: look, 3: look}))
    assert seen == [{torch.bfloat16}] * 2
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}
    assert all(p.is_leaf and p.requires_grad for p in made.model.parameters())
    ended = values(made)
    assert any(not torch.equal(v, v.bfloat16().float()) for v in ended.values()), "rounded"
    load_trained(tmp_path, result.steps, made.parameters)
    assert_same(values(made), ended)


def test_checkpoints_hold_the_masters(tmp_path: Path) -> None:
    train(whole(), tmp_path, BFLOAT16)
    (path,) = (tmp_path / "checkpoints" / "step-4").glob("trained*.safetensors")
    kept = read_safetensors(path)
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_run_goes_on_with_the_same_bits(tmp_path: Path, step: int) -> None:
    class Cut(Exception):
        pass

    def cut() -> None:
        raise Cut

    ends = []
    config = replace(BFLOAT16, checkpoint_every_steps=1)
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
        made = whole()
        if name == "cut":
            with pytest.raises(Cut):
                train(made, tmp_path / name, config, Heard({step: cut}))
            assert {p.dtype for p in made.model.parameters()} == {torch.float32}
            made = whole()
        train(made, tmp_path / name, config)
        ends.append(values(made))
    assert_same(*ends)


def test_a_short_step_is_not_lost() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    with Masters(layer, dict(layer.named_parameters()), torch.bfloat16) as masters:
        for _ in range(100):
            with torch.no_grad():
                masters.parameters["weight"] -= 1e-4  # bfloat16 has nothing between 1 and 0.996
            masters.spread()
        assert layer.weight.item() == pytest.approx(0.99, abs=2e-3)
    assert layer.weight.item() == pytest.approx(0.99, abs=1e-4)


def test_gradients_are_added_up_in_float32() -> None:
    layer = nn.Linear(1, 1, bias=False)
    with Masters(layer, dict(layer.named_parameters()), torch.bfloat16) as masters:
        for value in (1.0, 2**-9, 2**-9):
            layer(torch.full((1, 1), value, dtype=torch.bfloat16)).sum().backward()
            assert layer.weight.grad is None
        gradient = masters.parameters["weight"].grad
        assert gradient is not None
        assert (gradient.dtype, gradient.item()) == (torch.float32, 1 + 2**-8)
    layer(torch.ones(1, 1)).sum().backward()
    assert layer.weight.grad is not None, "the hook is gone with the context"


def test_without_a_dtype_the_parameters_themselves_move() -> None:
    made = whole()
    with what_moves(made.model, made.parameters, None) as moved:
        assert all(moved.parameters[name] is p for name, p in made.parameters.items())


def test_what_cannot_compute_together_is_refused(tmp_path: Path) -> None:
    made = whole()
    frozen = made.parameters["model.norm.weight"].requires_grad_(False)
    learning = {n: p for n, p in made.parameters.items() if p is not frozen}
    with pytest.raises(InputError, match=r"'model.norm.weight' does not learn and is in") as told:
        train(replace(made, parameters=learning), tmp_path, BFLOAT16)
    assert told.value.fix == "open the model in bfloat16, or set train.compute_dtype to null"
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}
    with torch.no_grad():
        frozen.data = frozen.data.bfloat16()
    train(replace(made, parameters=learning), tmp_path, BFLOAT16)  # as it should be
    assert frozen.dtype == torch.bfloat16


def test_masters_of_other_dtypes_are_refused() -> None:
    layer = nn.Linear(1, 1).bfloat16()
    with pytest.raises(InputError, match=r"'weight' learns in torch.bfloat16; masters are in fl"):
        Masters(layer, dict(layer.named_parameters()), torch.bfloat16)
