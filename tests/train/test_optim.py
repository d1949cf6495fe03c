"""AdamW against its definition, clipping, its state by the names of parameters, and choosing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from puna.errors import InputError
from puna.train.optimizers import (
    LLAMA_OPTIM,
    AdamW,
    Lamb,
    Muon,
    OptimConfig,
    clip,
    make_optimizer,
)


def parameters() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {"matrix": nn.Parameter(torch.randn(3, 5)), "norm": nn.Parameter(torch.randn(5))}


def by_definition(start: Tensor, gradients: list[Tensor], config: OptimConfig, decay: float):
    """Loshchilov & Hutter 2019, algorithm 2, in float64."""
    value, mean, square = start.detach().double(), torch.zeros(()), torch.zeros(())
    for step, gradient in enumerate(gradients, 1):
        g = gradient.double()
        mean = config.beta1 * mean + (1 - config.beta1) * g
        square = config.beta2 * square + (1 - config.beta2) * g * g
        hat = mean / (1 - config.beta1**step)
        root = (square / (1 - config.beta2**step)).sqrt()
        rate = config.learning_rate
        value = value - rate * decay * value - rate * hat / (root + config.eps)
    return value.float()


def test_decay_is_on_matrices_only() -> None:
    config = OptimConfig(learning_rate=0.05, weight_decay=0.3)
    found = parameters()
    start = {name: p.detach().clone() for name, p in found.items()}
    optimizer = AdamW(found, config)
    gradients = [{name: torch.randn_like(p) for name, p in found.items()} for _ in range(4)]
    for step in gradients:
        for name, parameter in found.items():
            parameter.grad = step[name].clone()
        optimizer.step(config.learning_rate)
    for name, decay in (("matrix", 0.3), ("norm", 0.0)):
        wanted = by_definition(start[name], [step[name] for step in gradients], config, decay)
        torch.testing.assert_close(found[name].detach(), wanted)


def test_as_torch_has_it() -> None:
    config = OptimConfig(learning_rate=0.02, weight_decay=0.1)
    mine, theirs = parameters(), parameters()
    groups = [
        {"params": [theirs["matrix"]], "weight_decay": 0.1},
        {"params": [theirs["norm"]], "weight_decay": 0.0},
    ]
    ours, reference = AdamW(mine, config), torch.optim.AdamW(groups, lr=0.02, fused=True)
    for _ in range(3):
        for name in mine:
            mine[name].grad = torch.randn_like(mine[name])
            theirs[name].grad = mine[name].grad.clone()
        ours.step(0.02)
        reference.step()
    for name in mine:
        assert torch.equal(mine[name], theirs[name])


def test_state_goes_out_and_comes_back() -> None:
    config = OptimConfig()
    first, second = parameters(), parameters()
    one, two = AdamW(first, config), AdamW(second, config)
    assert one.tensors() == {}
    gradients = {name: torch.randn_like(p) for name, p in first.items()}
    for repeat in range(2):
        for name, parameter in first.items():
            parameter.grad = gradients[name] * (repeat + 1)
        one.step(0.1)
    one.forget_gradients()
    assert first["norm"].grad is None
    state = one.tensors()
    assert set(state) == {f"{n}/{f}" for n in first for f in ("step", "exp_avg", "exp_avg_sq")}
    two.load(state)
    assert two.tensors()["norm/exp_avg"] is not state["norm/exp_avg"]
    for name in first:
        second[name].data.copy_(first[name].data)
        first[name].grad = second[name].grad = gradients[name]
    one.step(0.1)
    two.step(0.1)
    for name in first:
        assert torch.equal(first[name], second[name])


def test_a_parameter_without_gradient_stays() -> None:
    found = parameters()
    before = found["norm"].detach().clone()
    found["matrix"].grad = torch.ones(3, 5)
    optimizer = AdamW(found, OptimConfig(weight_decay=1.0))
    optimizer.step(0.1)
    assert torch.equal(found["norm"], before)
    assert "norm/step" not in optimizer.tensors()


def test_a_state_of_other_parameters_is_refused() -> None:
    optimizer = AdamW(parameters(), OptimConfig())
    state = {f"norm/{field}": torch.zeros(5) for field in ("step", "exp_avg", "exp_avg_sq")}
    with pytest.raises(InputError, match="state of 'norm' has another shape"):
        optimizer.load(state)
    for key in ("norm/step", "norm/exp_avg"):
        with pytest.raises(InputError, match="state is of other parameters"):
            optimizer.load({k: v for k, v in state.items() if k != key})
    with pytest.raises(InputError, match="state is of other parameters, or of another optimizer"):
        optimizer.load({f"bias/{key}": value for key, value in state.items()})
    with pytest.raises(InputError, match="or of another optimizer"):
        optimizer.load({"matrix/momentum_buffer": torch.zeros(3, 5)})
    assert optimizer.tensors() == {}


def test_clipping_is_over_all_gradients_together() -> None:
    gradients = [torch.full((4,), 3.0), torch.full((9,), 4.0)]
    norm = math.sqrt(4 * 9 + 9 * 16)
    clip(gradients, norm, 2 * norm)
    assert gradients[0].tolist() == [3.0] * 4
    clip(gradients, norm, None)
    assert gradients[0].tolist() == [3.0] * 4
    clip(gradients, norm, 1.0)
    assert float(torch.cat(gradients).norm()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, found 0.0"),
        ({"beta2": 1.0}, r"beta2 must lie in \[0, 1\), found 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive"),
        ({"muon_momentum": 1.0}, r"muon_momentum must lie in \[0, 1\), found 1.0"),
        ({"weight_decay": math.nan}, "weight_decay must not be negative"),
    ],
)
def test_impossible_figures_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OptimConfig(**fields)


def test_the_configuration_chooses() -> None:
    made = {
        kind: type(make_optimizer(parameters(), OptimConfig(kind=kind), matrices=["matrix"]))
        for kind in ("adamw", "lamb", "muon")
    }
    assert made == {"adamw": AdamW, "lamb": Lamb, "muon": Muon}
    assert (LLAMA_OPTIM.beta1, LLAMA_OPTIM.beta2, LLAMA_OPTIM.weight_decay) == (0.9, 0.95, 0.1)
    assert (LLAMA_OPTIM.kind, LLAMA_OPTIM.max_grad_norm, LLAMA_OPTIM.eps) == ("adamw", 1.0, 1e-8)


@pytest.mark.parametrize("kind", ["lamb", "muon"])
def test_parts_of_matrices_are_refused_where_they_would_be_wrong(kind: str) -> None:
    config = OptimConfig(kind=kind)
    message = f"{kind} takes each matrix as a whole, and the model is spread over the ranks"
    with pytest.raises(InputError, match=message) as caught:
        make_optimizer(parameters(), config, sharded=True)
    assert caught.value.fix == (
        "set train.optim.kind to adamw, or keep the model whole on each rank"
    )
    spread = parameters()
    spread["matrix"].device_mesh = "a mesh"  # what a tensor that is spread has
    with pytest.raises(InputError, match=message):
        make_optimizer(spread, config)
    assert isinstance(make_optimizer(parameters(), OptimConfig(), sharded=True), AdamW)
