"""A run that is killed, again and again: `python victim.py FOLDER SEED`, in a process of its own.

Each attempt is a forked child that kills itself at a random moment: after some step, within an
evaluation, or in the middle of writing some file to the disk.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import puna.artifact
from puna.tokens.batches import Batch
from puna.train import Job, Reporter, Silent, TrainConfig, evaluate_loss, fit
from puna.train.optimizers import OptimConfig
from train.stub import SINGLE, batch, job

CONFIG = TrainConfig(
    epochs=6,
    micro_batches=2,
    evaluate_every_steps=3,
    checkpoint_every_steps=2,
    optim=OptimConfig(learning_rate=0.01, weight_decay=0.1),
)
ATTEMPTS = 60
VALIDATION = (11, 12)


def whole_job() -> Job:
    """A run with dropout and an evaluation."""
    made = job(dropout=True)

    def evaluate() -> dict[str, float]:
        held: list[Batch] = [batch(list(VALIDATION))]
        found = evaluate_loss(made.model, made.objective, held, made.trunk)
        return {**found, "noise": float(torch.rand(()))}

    return replace(made, evaluate=evaluate)


def run(folder: Path, made: Job, report: Reporter) -> None:
    """Train to the end."""
    folder.mkdir(exist_ok=True)
    fit(made, CONFIG, folder, world=SINGLE, report=report)


class Deadly(Silent):
    """Calls something after each step."""

    def __init__(self, strike: Callable[[], None]):
        self.step = lambda metrics: strike()  # type: ignore[method-assign]


def attempt(folder: Path, place: str, moment: int) -> None:
    """Train, and die at the moment-th passage of a place."""
    left = [moment]

    def strike(*_: Any) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    made, report = whole_job(), Silent()
    if place == "step":
        report = Deadly(strike)
    elif place == "evaluation":
        judge = made.evaluate
        assert judge is not None
        made = replace(made, evaluate=lambda: (strike(), judge())[1])
    else:
        sync = puna.artifact._sync
        puna.artifact._sync = lambda path: (strike(), sync(path))[1]
    run(folder, made, report)


def main(folder: Path, seed: int) -> None:
    """Attempt until one comes through; print where the others died."""
    chance = random.Random(seed)
    for number in range(ATTEMPTS):
        place = chance.choice(["step", "evaluation", "sync"])
        moment = chance.randint(1, {"step": 4, "evaluation": 1, "sync": 9}[place])
        child = os.fork()
        if not child:
            code = 1
            try:
                attempt(folder, place, moment if number < ATTEMPTS - 1 else 1 << 30)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(place, moment, status, flush=True)
        if not status:
            return
        assert os.WIFSIGNALED(status), "the run failed rather than died"
    raise AssertionError("no attempt came through")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
