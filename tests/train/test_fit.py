"""The loop: what a step is divided by, when it judges, what it keeps, when it stops."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.tolerances import assert_close
from puna.errors import InputError
from puna.model import LlamaModel
from puna.tokens.batches import Batch
from puna.train import (
    GuardConfig,
    MetricsLog,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
    load_trained,
)
from puna.train.objectives import Backward, FrozenTrunk, NextToken, Term, Trunk
from train.stub import CONFIG, Dropped, Heard, Loader, assert_same, batch, job, train, values

TESTS = Path(__file__).resolve().parent.parent
STEPS = TrainConfig(epochs=None, max_steps=4)


def scripted(figures: list[float], name: str = "validation_loss") -> Any:
    """An evaluation that gives these figures, one after the other."""
    left: Iterator[float] = iter(figures)
    return lambda: {name: next(left), "other": 1.0}


@pytest.mark.parametrize(("size", "micro"), [(8, 1), (1, 8), (3, 3), (2, 5)])
def test_a_step_is_the_same_however_it_is_cut(tmp_path: Path, size: int, micro: int) -> None:
    """Trained parts are uneven, so a mean of means would differ."""
    made = job(Loader(8, size, shuffle=False))
    config = TrainConfig(epochs=1, micro_batches=micro, optim=OptimConfig(max_grad_norm=None))
    heard = Heard()
    result = train(made, tmp_path, config, heard)
    assert result.steps == 1
    whole = batch(list(range(8)))
    reference = job()
    hidden = reference.model.run(reference.model.embed(whole.ids))
    loss = reference.model.head_loss(hidden, whole.targets) / whole.trained
    loss.backward()
    gradients = [p.grad for p in reference.parameters.values() if p.grad is not None]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    (metrics,) = heard.steps
    assert (metrics.tokens, metrics.trained_tokens) == (whole.tokens, whole.trained)
    assert metrics.loss == pytest.approx(loss.item(), rel=1e-5)
    assert metrics.grad_norm == pytest.approx(float(norm), rel=1e-4)


def test_an_epoch_ends_with_a_short_step(tmp_path: Path) -> None:
    heard = Heard()
    config = TrainConfig(epochs=2, micro_batches=3)
    result = train(job(Loader(8, 2)), tmp_path, config, heard)
    assert (result.steps, result.stopped) == (4, "finished")
    assert [m.epoch for m in heard.steps] == [0.5, 1.0, 1.5, 2.0]
    tokens = batch(list(range(8))).tokens
    assert heard.steps[0].tokens + heard.steps[1].tokens == tokens
    assert result.tokens == 2 * tokens
    assert heard.began == [(0, 4)]
    assert heard.ended == 1


def test_only_what_should_learn_does(tmp_path: Path) -> None:
    made = job()
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    train(made, tmp_path)
    for name, parameter in made.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in made.parameters), name
        assert parameter.grad is None


def test_a_frozen_trunk_gives_the_same_run(tmp_path: Path) -> None:
    runs = []
    for name, trunk in (("live", None), ("frozen", lambda model: FrozenTrunk(model, 1))):
        (tmp_path / name).mkdir()
        made = job() if trunk is None else job(trunk=trunk)
        train(made, tmp_path / name)
        runs.append(values(made))
    for name, tensor in runs[0].items():
        assert_close(runs[1][name], tensor, "gradient")


def test_max_steps_stops_within_an_epoch(tmp_path: Path) -> None:
    result = train(job(), tmp_path, TrainConfig(epochs=5, max_steps=6))
    assert (result.steps, result.stopped) == (6, "steps")
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-4", "step-6"]


def test_the_learning_rate_follows_its_schedule(tmp_path: Path) -> None:
    heard = Heard()
    schedule = ScheduleConfig(kind="linear", warmup_steps=2)
    config = TrainConfig(epochs=None, max_steps=6, schedule=schedule)
    train(job(), tmp_path, config, heard)
    rates = [m.learning_rate / config.optim.learning_rate for m in heard.steps]
    assert rates == pytest.approx([0, 0.5, 1, 0.75, 0.5, 0.25])


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    made = job(evaluate=scripted([5.0, 3.0, 4.0, float("nan"), 6.0, 3.5]))
    config = TrainConfig(epochs=6, keep_checkpoints=1)
    heard, kept = Heard(), {}
    heard.at = {8: lambda: kept.update(values(made))}
    result = train(made, tmp_path, config, heard)
    assert (result.best_step, result.best_value, result.stopped) == (8, 3.0, "finished")
    assert [best for _, _, best in heard.evaluations] == [True, True, False, False, False, False]
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"step-8", "step-24"}
    assert [row["step"] for row in result.evaluations] == [4, 8, 12, 16, 20, 24]
    load_trained(tmp_path, 8, made.parameters)
    assert_same(values(made), kept)
    with pytest.raises(InputError, match=r"step-4.*cannot be read"):
        load_trained(tmp_path, 4, made.parameters)


def test_patience_ends_a_run_and_more_may_be_better(tmp_path: Path) -> None:
    made = job(evaluate=scripted([1.0, 2.0, 2.0, 1.5], "bleu"))
    config = TrainConfig(
        epochs=9, patience=2, best_metric="bleu", best_is="highest", evaluate_every_steps=3
    )
    result = train(made, tmp_path, config)
    assert (result.steps, result.best_step, result.stopped) == (12, 6, "early")
    again = train(made, tmp_path, config)
    assert (again.steps, again.stopped, again.history) == (12, "early", result.history)


def test_evaluations_do_not_change_the_run(tmp_path: Path) -> None:
    """Dropout is off in them, and what they draw is not missing afterwards."""
    runs = []
    for number, every in enumerate((1, 100)):
        made = job(dropout=True)
        seen: list[bool] = []

        def evaluate(made: Any = made, seen: list[bool] = seen) -> dict[str, float]:
            seen.extend(m.on for m in made.model.modules() if isinstance(m, Dropped))
            return {"validation_loss": float(torch.rand(()))}

        folder = tmp_path / str(number)
        folder.mkdir()
        config = replace(CONFIG, evaluate_every_steps=every)
        train(replace(made, evaluate=evaluate), folder, config)
        assert seen
        assert not any(seen)
        runs.append(values(made))
    assert_same(*runs)


class Poisoned(NextToken):
    """Gives sums that are not finite, in these calls."""

    def __init__(self, calls: set[int]):
        super().__init__()
        object.__setattr__(self, "state", [0, calls])

    def step(self, model: LlamaModel, batch: Batch, trunk: Trunk, backward: Backward) -> None:
        self.state[0] += 1  # type: ignore[attr-defined]
        bad = float("nan") if self.state[0] in self.state[1] else 1.0  # type: ignore[attr-defined]
        super().step(model, batch, trunk, lambda t: backward(replace(t, sum=t.sum * bad)))


def test_a_bad_step_is_skipped_and_counted(tmp_path: Path) -> None:
    made, heard, seen = job(objective=Poisoned({2})), Heard(), {}
    heard.at = {1: lambda: seen.update(values(made)), 2: lambda: assert_same(values(made), seen)}
    result = train(made, tmp_path, CONFIG, heard)
    assert (result.steps, result.bad_steps) == (8, 1)
    assert [m.skipped for m in heard.steps] == [False, True] + [False] * 6
    assert heard.notes == ["step 2 was skipped: not finite (loss nan, gradient norm nan)"]
    assert all(torch.isfinite(v).all() for v in values(made).values())
    assert result.history[1]["loss"] is None
    (event,) = result.events
    told = {"kind": "event", "step": 2, "event": "skipped", "reason": "not finite", "number": 1}
    assert event == {**told, "loss": None, "grad_norm": None}


def test_too_many_bad_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    made, heard = job(objective=Poisoned({2, 4, 5, 6})), Heard()
    with pytest.raises(InputError, match=r"not finite in 3 steps in a row, up to step 6") as caught:
        train(made, tmp_path, replace(CONFIG, guard=GuardConfig(max_bad_steps=3)), heard)
    assert "lower optim.learning_rate" in str(caught.value)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-4"]
    assert heard.ended == 1


def test_activation_checkpointing_changes_nothing(tmp_path: Path) -> None:
    runs = []
    for name, on in (("plain", False), ("recomputed", True)):
        (tmp_path / name).mkdir()
        made = job(dropout=True)
        train(made, tmp_path / name, replace(CONFIG, activation_checkpointing=on))
        assert all("forward" not in vars(block) for block in made.model.model.layers)
        runs.append(values(made))
    assert_same(*runs)


def test_fewer_activations_are_kept(tmp_path: Path) -> None:
    kept = []
    for name, on in (("plain", False), ("recomputed", True)):
        (tmp_path / name).mkdir()
        sizes: list[int] = []

        def note(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            train(job(), tmp_path / name, replace(STEPS, activation_checkpointing=on))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_blocks_are_compiled_for_steps_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the compiler tells when it runs; the test below takes the real one."""
    calls: list[bool] = []

    def stand_in(self: nn.Module, **_: object) -> None:
        def call(*inputs: object) -> object:
            calls.append(torch.is_grad_enabled())
            return self._call_impl(*inputs)

        self._compiled_call_impl = call

    monkeypatch.setattr(nn.Module, "compile", stand_in)
    runs = []
    for number, changes in enumerate(({}, {"compile": True})):
        made = job()

        def evaluate(made: Any = made) -> dict[str, float]:
            with torch.no_grad():
                return {"validation_loss": float(made.model(batch([0]).ids).sum())}

        (tmp_path / str(number)).mkdir()
        both = {"activation_checkpointing": bool(changes)}
        train(
            replace(made, evaluate=evaluate),
            tmp_path / str(number),
            replace(CONFIG, **changes, **both),
        )
        runs.append(values(made))
    assert_same(*runs)
    # Steps x (blocks, and in the backward pass the one that learns).
    assert len(calls) == 8 * (2 + 1)
    assert all(calls)
    assert all(block._compiled_call_impl is None for block in made.model.model.layers)


@pytest.mark.slow
def test_compiled_blocks_learn_the_same(tmp_path: Path) -> None:
    runs = []
    for number, on in enumerate((False, True)):
        (tmp_path / str(number)).mkdir()
        made = job(trunk=lambda model: FrozenTrunk(model, 1))
        heard = Heard()
        train(made, tmp_path / str(number), replace(STEPS, compile=on), heard)
        runs.append([m.loss for m in heard.steps])
    assert runs[1] == pytest.approx(runs[0], rel=1e-4)


def test_no_compiler_is_said_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler on CPU; found none of g\+\+"):
        train(job(), tmp_path, replace(CONFIG, compile=True))


class Uncounted(NextToken):
    """Emits a term that it does not count."""

    def step(self, model: LlamaModel, batch: Batch, trunk: Trunk, backward: Backward) -> None:
        backward(Term("surprise", torch.zeros((), requires_grad=True), "rows"))


def twice(made: Any) -> dict[str, nn.Parameter]:
    return {**made.parameters, "again": made.parameters["model.norm.weight"]}


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({"parameters": {}}, {}, "there is nothing to train"),
        ({"parameters": twice(job())}, {}, "a parameter has two names"),
        ({"parameters": {"x": nn.Parameter(torch.zeros(1), False)}}, {}, "'x' takes no gradient"),
        ({"objective": Uncounted()}, {}, "gives a term 'surprise' that it does not count"),
        ({}, {"patience": 2}, "patience counts evaluations, and this run has none"),
        ({}, {"schedule": ScheduleConfig(warmup_steps=9)}, "the warmup takes 9 steps, and the w"),
        ({"loader": Loader(0)}, {}, "there are no examples to train on"),
        (
            {"evaluate": scripted([1.0])},
            {"best_metric": "chrf"},
            "the evaluation gives no 'chrf'.*\n.*it gives: validation_loss, other",
        ),
    ],
)
def test_what_cannot_work_is_said(
    tmp_path: Path, changes: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(job(**changes), tmp_path, replace(CONFIG, **config))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": None}, "epochs, max_steps and max_seconds are all null"),
        ({"micro_batches": 0}, "micro_batches must be at least 1, found 0"),
        ({"evaluate_every_steps": 0}, "evaluate_every_steps must be at least 1"),
    ],
)
def test_configurations_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**fields)


def test_metrics_are_on_disk(tmp_path: Path) -> None:
    result = train(job(evaluate=scripted([2.0, 1.0])), tmp_path)
    rows = MetricsLog(tmp_path).rows()
    assert [row for row in rows if row["kind"] == "step"] == list(result.history)
    assert [row["step"] for row in result.history] == list(range(1, 9))
    assert sum(row["tokens"] for row in result.history) == result.tokens
    assert result.peak_bytes >= result.history[0]["memory_bytes"] > 10_000_000


def test_training_imports_no_compiler(tmp_path: Path) -> None:
    """torch's compiler costs seconds and 75 MB; any optimizer of torch.optim would import it."""
    code = (
        "import pathlib, sys\nfrom train.stub import *\nmade = job()\n"
        "before = 'torch._dynamo' in sys.modules\n"
        "train(made, pathlib.Path(sys.argv[1]))\n"
        "print(before, 'torch._dynamo' in sys.modules, 'sympy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.stdout.split() == ["False", "False", "False"], done.stderr
