"""What two ranks of a training run check; outcomes go to a file, one line per check."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.tolerances import assert_close
from puna.errors import InputError
from puna.scale.world import World
from puna.train import Job, MetricsLog, OptimConfig, TrainConfig, evaluate_loss, fit
from puna.train.ranks import gather, together
from scale.pool import RANKS, placed, run_checks
from train.stub import SINGLE, Heard, Loader, batch, job, values

EXACT = OptimConfig(max_grad_norm=None)


def own(world: World, examples: int = 8, size: int = 2, **changes: Any) -> Job:
    """The job of this rank: every other batch."""
    return job(Loader(examples, size, world.rank, RANKS, shuffle=False), **changes)


def alone(folder: Path, examples: int = 8) -> tuple[Job, Heard]:
    """One process with all examples of an epoch in one batch."""
    made, heard = job(Loader(examples, examples, shuffle=False)), Heard()
    folder.mkdir()
    fit(made, TrainConfig(epochs=2, optim=EXACT), folder, world=SINGLE, report=heard)
    return made, heard


def expect_the_same(world: World, folder: Path, examples: int, size: int, micro: int) -> None:
    """A run on all ranks learns what one process learns."""
    made, heard = own(world, examples, size), Heard()
    shared = folder / "shared"
    if world.is_first:
        shared.mkdir()
    world.barrier()
    config = TrainConfig(epochs=2, micro_batches=micro, optim=EXACT)
    fit(made, config, shared, world=world, report=heard)
    lonely, wanted = alone(folder / f"alone-{world.rank}", examples)
    for name, value in values(lonely).items():
        assert_close(made.parameters[name], value, "reduction over ranks")
    assert len(heard.steps) == (2 if world.is_first else 0)
    for mine, expected in zip(heard.steps, wanted.steps, strict=False):
        assert mine.loss == pytest.approx(expected.loss, rel=1e-5)
        assert mine.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)
        assert (mine.tokens, mine.trained_tokens) == (expected.tokens, expected.trained_tokens)
    assert len(MetricsLog(shared).rows()) == 2


def check_gather(world: World, folder: Path) -> None:
    """Values of any length, by rank."""
    told = gather(world, {"rank": world.rank, "text": "é" * 100 * world.rank})
    assert told == [{"rank": 0, "text": ""}, {"rank": 1, "text": "é" * 100}]


def check_two_ranks_are_one(world: World, folder: Path) -> None:
    """2 ranks x 4 = 1 x 8."""
    expect_the_same(world, folder, examples=8, size=4, micro=1)


def check_micro_batches_on_two_ranks(world: World, folder: Path) -> None:
    """2 ranks x 4 x 1."""
    expect_the_same(world, folder, examples=8, size=1, micro=4)


def check_uneven_ranks(world: World, folder: Path) -> None:
    """One rank has three batches, the other two: it waits with nothing in its hands."""
    expect_the_same(world, folder, examples=5, size=1, micro=3)


def check_a_rank_without_batches(world: World, folder: Path) -> None:
    """All is on the first rank."""
    expect_the_same(world, folder, examples=3, size=3, micro=1)


def check_going_on(world: World, folder: Path) -> None:
    """A run that is cut goes on with each rank's own random numbers, bit for bit."""
    config = TrainConfig(epochs=2, checkpoint_every_steps=1)
    ends = []
    for name in ("cut", "whole"):
        place = folder / name
        place.mkdir(exist_ok=True)
        if name == "cut":
            interrupted(world, place, config)
        made = own(world, dropout=True)
        fit(made, config, place, world=world, report=Heard())
        ends.append(values(made))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def interrupted(world: World, place: Path, config: TrainConfig) -> None:
    """Ctrl-C on one rank ends all of them after the same step."""
    heard = Heard({2: lambda: signal.raise_signal(signal.SIGINT)})
    with pytest.raises(KeyboardInterrupt):
        fit(own(world, dropout=True), config, place, world=world, report=heard)
    names = sorted(path.name for path in (place / "checkpoints").iterdir())
    world.barrier()
    assert names == ["step-1", "step-2"], names


def check_other_ranks_are_refused(world: World, folder: Path) -> None:
    """A checkpoint of one rank is not one of two, where the loader deals for so many."""
    if world.is_first:
        fit(job(), TrainConfig(epochs=1), folder, world=SINGLE, report=Heard())
    world.barrier()
    with pytest.raises(InputError, match="the run was on 1 ranks, this is one of 2"):
        fit(own(world), TrainConfig(epochs=1), folder, world=world, report=Heard())


def check_time_ends_all_ranks_after_the_same_step(world: World, folder: Path) -> None:
    """The first rank's clock counts, also for the learning rate."""
    config = TrainConfig(epochs=None, max_seconds=0.3)
    before = 0.2 * world.rank  # the second rank alone would stop earlier, and learn less
    made = own(world, seconds_before=before)
    result = fit(made, config, folder, world=world, report=Heard())
    learnt = sum(float(value.double().abs().sum()) for value in values(made).values())
    told = gather(world, [result.steps, result.stopped, learnt])
    assert told[0] == told[1], told
    assert result.stopped == "time"


def check_different_starts(world: World, folder: Path) -> None:
    """Ranks that do not hold the same parameters would never agree."""
    made = own(world)
    with torch.no_grad():
        made.parameters["model.norm.weight"][0] += world.rank
    with pytest.raises(InputError, match="the ranks start from different parameters"):
        fit(made, TrainConfig(), folder, world=world, report=Heard())


def check_an_error_of_one_rank_is_that_of_all(world: World, folder: Path) -> None:
    """What fails on the second rank alone ends the block on both, in the same words."""
    with pytest.raises(InputError, match="nowhere: is not there\n  fix: look"), together(world):
        if not world.is_first:
            raise InputError("is not there", where="nowhere", fix="look")
    with together(world):
        pass


def check_evaluation_over_ranks(world: World, folder: Path) -> None:
    """Each rank has a part of the examples; the loss is that of all."""
    made = job()
    parts = [[batch([0])], [batch([1, 2, 3]), batch([4])]]
    found = evaluate_loss(made.model, made.objective, parts[world.rank], made.trunk, world=world)
    whole = [batch([0, 1, 2, 3, 4])]
    wanted = evaluate_loss(made.model, made.objective, whole, made.trunk)
    assert found == pytest.approx(wanted, rel=1e-6)


CHECKS: dict[str, Callable[[World, Path], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def start(rank: int, port: int, folder: str) -> None:
    """The entry of a spawned rank; each check has a folder of its own."""
    run_checks(rank, port, folder, placed(CHECKS, folder))
