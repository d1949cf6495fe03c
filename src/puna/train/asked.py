"""What is asked of a run, and of what it goes on from, before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.errors import InputError
from puna.scale.world import World
from puna.train import blocks
from puna.train.config import TrainConfig
from puna.train.job import Job
from puna.train.ranks import check_parameters
from puna.train.schedule import warmup


def check_run(job: Job, config: TrainConfig, workspace: Path, world: World) -> None:
    """Refuse what could not be trained.

    Raises:
        InputError: The job does not fit the configuration, the machine or the workspace.
    """
    if not workspace.is_dir():
        raise InputError("is not a folder", where=workspace, fix="make it first")
    if config.patience is not None and job.evaluate is None:
        raise InputError(
            "patience counts evaluations, and this run has none",
            fix="set patience to null, or give examples for validation",
        )
    if config.compile:
        blocks.check_compiler(world.device)
    check_parameters(world, job.parameters)


def check_warmup(total: int | None, config: TrainConfig) -> None:
    """Refuse a warmup that a run of `total` steps (None: time ends it) does not come out of.

    Raises:
        InputError: It is as long as the run.
    """
    if total is None or config.schedule.warmup_steps is None:
        return
    rising = warmup(total, config.schedule)
    if rising >= total:
        raise InputError(
            f"the warmup takes {rising} steps, and the whole run {total}",
            fix="lower schedule.warmup_steps",
        )


def check_origin(state: Mapping[str, Any], job: Job, workspace: Path, world: World) -> None:
    """Refuse to go on from a checkpoint of something else.

    Raises:
        InputError: It is of another recipe, other data, or another number of ranks.
    """
    if state["identity"] != job.identity:
        raise InputError(
            "holds a run of another recipe or other data, which cannot go on with these",
            where=workspace,
            fix="choose another folder for this run, or give the recipe that began it",
        )
    if len(state["random"]) != world.size and not job.any_ranks:
        raise InputError(
            f"the run was on {len(state['random'])} ranks, this is one of {world.size}",
            where=workspace,
            fix="go on with as many as it began with",
        )
