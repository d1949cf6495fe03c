"""Muon against torch's, step by step; what it takes and what it leaves to AdamW; its state."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from puna.errors import InputError
from puna.scale.world import World
from puna.train import OptimConfig
from puna.train.masters import Moved
from puna.train.optimizers import Muon
from puna.train.stepping import Stepper
from train.stub import assert_same, job

TESTS = Path(__file__).resolve().parent.parent
CONFIGURED = OptimConfig(kind="muon", learning_rate=0.02, weight_decay=0.1)
MATRICES = ("tall", "wide")


def parameters() -> dict[str, nn.Parameter]:
    own = torch.Generator().manual_seed(0)
    shapes = {"tall": (9, 4), "wide": (4, 11), "embedding": (13, 4), "norm": (4,)}
    return {name: nn.Parameter(torch.randn(s, generator=own)) for name, s in shapes.items()}


def give(found: dict[str, nn.Parameter], step: int) -> None:
    own = torch.Generator().manual_seed(step)
    for parameter in found.values():
        parameter.grad = torch.randn(parameter.shape, generator=own)


@pytest.mark.parametrize("scale", ["match_rms_adamw", "original"])
def test_as_torch_has_it(scale: Literal["match_rms_adamw", "original"]) -> None:
    config = replace(CONFIGURED, muon_scale=scale, muon_momentum=0.9)
    mine, theirs = parameters(), parameters()
    ours = Muon(mine, config, MATRICES)
    turned = torch.optim.Muon(
        [theirs[name] for name in MATRICES],
        lr=0.02,
        weight_decay=0.1,
        momentum=0.9,
        adjust_lr_fn=scale,
    )
    groups = [
        {"params": [theirs["embedding"]], "weight_decay": 0.1},
        {"params": [theirs["norm"]], "weight_decay": 0.0},
    ]
    rest = torch.optim.AdamW(groups, lr=0.02, fused=True)
    for step in range(5):
        give(mine, step)
        give(theirs, step)
        ours.step(0.02)
        turned.step()
        rest.step()
        for name in mine:
            assert torch.equal(mine[name], theirs[name]), (step, name)


def test_steps_are_nearly_orthogonal() -> None:
    found = parameters()
    give(found, 0)
    before = {name: p.detach().clone() for name, p in found.items()}
    config = replace(CONFIGURED, weight_decay=0.0, muon_scale="original")
    Muon(found, config, MATRICES).step(1.0)
    for name in MATRICES:
        moved = found[name].detach() - before[name]
        scale = max(1.0, moved.shape[0] / moved.shape[1]) ** 0.5
        stretched = torch.linalg.svdvals(moved / scale)
        assert 0.5 < float(stretched.min()) <= float(stretched.max()) < 1.5


def test_a_parameter_without_gradient_stays() -> None:
    found = parameters()
    give(found, 0)
    found["tall"].grad = found["norm"].grad = None
    before = {name: p.detach().clone() for name, p in found.items()}
    optimizer = Muon(found, CONFIGURED, MATRICES)
    optimizer.step(0.1)
    for name in found:
        assert torch.equal(found[name], before[name]) == (name in ("tall", "norm"))
    assert {key.rpartition("/")[0] for key in optimizer.tensors()} == {"wide", "embedding"}


def test_state_goes_out_and_comes_back() -> None:
    first, second = parameters(), parameters()
    one, two = Muon(first, CONFIGURED, MATRICES), Muon(second, CONFIGURED, MATRICES)
    for step in range(3):
        give(first, step)
        one.step(0.1)
    state = one.tensors()
    wanted = {f"{name}/momentum_buffer" for name in MATRICES}
    for name in ("embedding", "norm"):
        wanted |= {f"{name}/{field}" for field in ("step", "exp_avg", "exp_avg_sq")}
    assert state.keys() == wanted
    two.load(state)
    with torch.no_grad():
        for name, parameter in second.items():
            parameter.copy_(first[name])
    for found, optimizer in ((first, one), (second, two)):
        give(found, 7)
        optimizer.step(0.1)
        optimizer.forget_gradients()
        assert all(parameter.grad is None for parameter in found.values())
    for name in first:
        assert torch.equal(first[name], second[name])


@pytest.mark.parametrize("key", ["tall/exp_avg", "other/momentum_buffer", "norm/momentum_buffer"])
def test_a_state_of_something_else_changes_nothing(key: str) -> None:
    found = parameters()
    optimizer = Muon(found, CONFIGURED, MATRICES)
    give(found, 0)
    optimizer.step(0.1)
    before: dict[str, Tensor] = {name: t.clone() for name, t in optimizer.tensors().items()}
    changed = {name: tensor + 1 for name, tensor in before.items()}
    with pytest.raises(InputError, match="or of another optimizer"):
        optimizer.load({**changed, key: torch.zeros(4)})
    assert_same(optimizer.tensors(), before)


def test_a_run_turns_the_matrices_of_its_blocks() -> None:
    """The embedding and the head are matrices, too, but their rows are tokens."""
    made = job()
    learning = dict(made.model.requires_grad_().named_parameters())
    moved = Moved(learning)
    stepper = Stepper(replace(made, parameters=learning), CONFIGURED, World.single(), moved)
    for parameter in learning.values():
        parameter.grad = torch.ones_like(parameter)
    stepper.optimizer.step(0.0)
    turned = {key for key in stepper.optimizer.tensors() if key.endswith("/momentum_buffer")}
    assert turned == {
        f"model.layers.{layer}.{inner}.weight/momentum_buffer"
        for layer in (0, 1)
        for inner in (
            *(f"self_attn.{name}_proj" for name in "qkvo"),
            *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
        )
    }


def test_a_run_imports_no_compiler(tmp_path: Path) -> None:
    """torch's own class would: seconds, and 75 MB."""
    code = (
        "import pathlib, sys\nfrom dataclasses import replace\nfrom train.stub import *\n"
        "from puna.train import OptimConfig\n"
        "config = replace(CONFIG, optim=OptimConfig(kind='muon'))\n"
        "train(job(), pathlib.Path(sys.argv[1]), config)\n"
        "print('torch._dynamo' in sys.modules, 'sympy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.stdout.split() == ["False", "False"], done.stderr
