"""What two ranks check of bad steps; outcomes go to a file, one line per check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.tolerances import assert_close
from puna.errors import InputError
from puna.scale.world import World
from puna.train import GuardConfig, MetricsLog, OptimConfig, TrainConfig, fit
from puna.train.ranks import gather
from scale.pool import RANKS, placed, run_checks
from train.poison import Poison
from train.stub import SINGLE, Heard, Loader, job, values

GUARD = GuardConfig(max_bad_steps=2, max_rollbacks=1)
CONFIG = TrainConfig(
    epochs=None,
    max_steps=10,
    checkpoint_every_steps=2,
    guard=GUARD,
    optim=OptimConfig(max_grad_norm=None),
)
BAD = (22, 26)  # of the sixth and the seventh step, on the second rank


def expect_the_same(world: World, folder: Path, config: TrainConfig, by: float) -> None:
    """A run whose bad data are on one rank leaves out what one process leaves out."""
    shared, lonely = folder / "shared", folder / f"alone-{world.rank}"
    if world.is_first:
        shared.mkdir()
    lonely.mkdir()
    world.barrier()
    made = job(Loader(80, 2, world.rank, RANKS, shuffle=False), objective=Poison(BAD, by))
    result = fit(made, config, shared, world=world, report=Heard())
    alone = job(Loader(80, 2 * RANKS, shuffle=False), objective=Poison(BAD, by))
    wanted = fit(alone, config, lonely, world=SINGLE, report=Heard())
    for name, value in values(alone).items():
        assert_close(made.parameters[name], value, "reduction over ranks")
    assert (result.steps, result.bad_steps, result.passed_steps) == (10, 2, 3)
    assert (wanted.steps, wanted.bad_steps, wanted.passed_steps) == (10, 2, 3)
    rows = [row for row in MetricsLog(shared).rows() if row["kind"] == "event"]
    assert [row["event"] for row in rows] == ["skipped", "skipped", "rollback"], "each once"
    told = gather(world, [result.steps, result.tokens, result.rollbacks, list_of_sums(made)])
    assert told[0] == told[1], told


def list_of_sums(made: object) -> list[float]:
    """Of each parameter, to compare bits."""
    parameters = made.parameters.values()  # type: ignore[attr-defined]
    return [float(p.detach().double().sum()) for p in parameters]


def check_no_number_on_one_rank(world: World, folder: Path) -> None:
    """All ranks skip it, and go back together."""
    expect_the_same(world, folder, CONFIG, torch.nan)


def check_a_spike_on_one_rank(world: World, folder: Path) -> None:
    """The loss is that of all ranks, so all of them see it."""
    spikes = replace(GUARD, spike_factor=20.0, window_steps=4)
    expect_the_same(world, folder, replace(CONFIG, guard=spikes), 100.0)


def check_all_give_up(world: World, folder: Path) -> None:
    """None of them is left waiting."""
    made = job(Loader(80, 2, world.rank, RANKS, shuffle=False), objective=Poison(BAD))
    config = replace(CONFIG, guard=replace(GUARD, max_rollbacks=0))
    with pytest.raises(InputError, match="in 2 steps in a row, up to step 7"):
        fit(made, config, folder, world=world, report=Heard())


CHECKS: dict[str, Callable[[World, Path], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def start(rank: int, port: int, folder: str) -> None:
    """The entry of a spawned rank; each check has a folder of its own."""
    run_checks(rank, port, folder, placed(CHECKS, folder))
