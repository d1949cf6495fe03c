"""LAMB against an implementation written from the paper; its trust ratios, its state."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from puna.errors import InputError
from puna.train import OptimConfig
from puna.train.optimizers import Lamb
from train.stub import CONFIG, assert_same, job, train, values

CONFIGURED = OptimConfig(kind="lamb", learning_rate=0.02, weight_decay=0.2, eps=1e-6)


def parameters() -> dict[str, nn.Parameter]:
    own = torch.Generator().manual_seed(0)
    return {
        "matrix": nn.Parameter(torch.randn(7, 5, generator=own)),
        "wide": nn.Parameter(torch.randn(3, 40, generator=own) * 5),
        "norm": nn.Parameter(1 + torch.randn(5, generator=own) / 10),
    }


def gradients(steps: int) -> list[dict[str, Tensor]]:
    own = torch.Generator().manual_seed(1)
    shapes = {name: p.shape for name, p in parameters().items()}
    return [
        {name: torch.randn(shape, generator=own) for name, shape in shapes.items()}
        for _ in range(steps)
    ]


def by_the_paper(
    start: Tensor, given: list[Tensor], config: OptimConfig, decay: float
) -> tuple[Tensor, list[float]]:
    """You et al. 2020, algorithm 2, for one layer, in float64; phi is the identity."""
    x = start.detach().double()
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    ratios = []
    for t, g in enumerate([gradient.double() for gradient in given], 1):
        m = config.beta1 * m + (1 - config.beta1) * g
        v = config.beta2 * v + (1 - config.beta2) * g**2
        m_hat, v_hat = m / (1 - config.beta1**t), v / (1 - config.beta2**t)
        r = m_hat / (v_hat.sqrt() + config.eps)
        direction = r + decay * x
        ratio = (x**2).sum().sqrt() / (direction**2).sum().sqrt()
        x = x - config.learning_rate * ratio * direction
        ratios.append(float(ratio))
    return x.float(), ratios


def give(found: dict[str, nn.Parameter], given: dict[str, Tensor]) -> None:
    for name, parameter in found.items():
        parameter.grad = given[name].clone()


def test_as_the_paper_has_it() -> None:
    found, steps = parameters(), gradients(6)
    config = replace(CONFIGURED, log_trust_ratios=True)
    optimizer = Lamb(found, config)
    told = []
    for given in steps:
        give(found, given)
        optimizer.step(config.learning_rate)
        told.append(optimizer.figures())
    for name, start in parameters().items():
        decay = 0.0 if name == "norm" else config.weight_decay
        wanted, ratios = by_the_paper(start, [step[name] for step in steps], config, decay)
        torch.testing.assert_close(found[name].detach(), wanted)
        assert [row["trust_ratios"][name] for row in told] == pytest.approx(ratios, rel=1e-5)
    first = sorted(told[0]["trust_ratios"].values())
    assert told[0]["trust_ratio"] == {"min": first[0], "median": first[1], "max": first[2]}


def test_the_step_is_as_long_as_the_weights() -> None:
    """That is what the trust ratio is for: gradients of any size, the same relative step."""
    for scale in (1e-3, 1e3):
        found = parameters()
        give(found, {name: g * scale for name, g in gradients(1)[0].items()})
        before = {name: p.detach().clone() for name, p in found.items()}
        Lamb(found, replace(CONFIGURED, weight_decay=0.0, eps=1e-12)).step(0.01)
        for name, parameter in found.items():
            moved = (parameter.detach() - before[name]).norm() / before[name].norm()
            assert float(moved) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("what", ["weights", "gradient"])
def test_the_ratio_of_nothing_is_one(what: str) -> None:
    parameter = nn.Parameter(torch.zeros(4, 4) if what == "weights" else torch.ones(4, 4))
    parameter.grad = torch.zeros(4, 4) if what == "gradient" else torch.ones(4, 4)
    before = parameter.detach().clone()
    optimizer = Lamb({"a": parameter}, replace(CONFIGURED, weight_decay=0.0))
    optimizer.step(0.5)
    assert optimizer.figures()["trust_ratio"] == {"min": 1.0, "median": 1.0, "max": 1.0}
    moved = 0.0 if what == "gradient" else -0.5
    torch.testing.assert_close(parameter.detach(), before + moved)


def test_ratios_of_each_tensor_are_told_on_request_only() -> None:
    found = parameters()
    optimizer = Lamb(found, CONFIGURED)
    assert optimizer.figures() == {}
    give(found, gradients(1)[0])
    optimizer.step(0.1)
    assert optimizer.figures().keys() == {"trust_ratio"}


def test_a_parameter_without_gradient_stays() -> None:
    found = parameters()
    before = found["norm"].detach().clone()
    found["matrix"].grad = torch.ones(7, 5)
    optimizer = Lamb(found, CONFIGURED)
    optimizer.step(0.1)
    assert torch.equal(found["norm"], before)
    assert {key.rpartition("/")[0] for key in optimizer.tensors()} == {"matrix"}


def test_state_goes_out_and_comes_back() -> None:
    first, second = parameters(), parameters()
    one, two = Lamb(first, CONFIGURED), Lamb(second, CONFIGURED)
    *before, last = gradients(4)
    for given in before:
        give(first, given)
        one.step(0.1)
    two.load(one.tensors())
    with torch.no_grad():
        for name, parameter in second.items():
            parameter.copy_(first[name])
    for found, optimizer in ((first, one), (second, two)):
        give(found, last)
        optimizer.step(0.1)
        optimizer.forget_gradients()
        assert all(parameter.grad is None for parameter in found.values())
    for name in first:
        assert torch.equal(first[name], second[name])
    with pytest.raises(InputError, match="or of another optimizer"):
        two.load({"matrix/momentum_buffer": torch.zeros(7, 5)})
    assert_same(two.tensors(), one.tensors())


def test_a_run_logs_its_trust_ratios(tmp_path: Path) -> None:
    made = job()
    before = values(made)
    config = replace(CONFIG, optim=replace(CONFIGURED, log_trust_ratios=True))
    result = train(made, tmp_path, config)
    for row in result.history:
        told = row["optimizer"]
        assert told["trust_ratios"].keys() == made.parameters.keys()
        spread = told["trust_ratio"]
        assert 0 < spread["min"] <= spread["median"] <= spread["max"] < math.inf
    assert any(not torch.equal(before[name], value) for name, value in values(made).items())


def test_adamw_logs_nothing_of_its_own(tmp_path: Path) -> None:
    result = train(job(), tmp_path)
    assert all("optimizer" not in row for row in result.history)
