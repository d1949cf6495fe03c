"""How far a run has come: what a checkpoint says of it, and what is due next."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from puna.errors import InputError
from puna.train.config import TrainConfig


@dataclass
class Progress:
    """The figures of a run so far; plain data, kept in its checkpoints."""

    step: int = 0
    """Optimizer steps done."""
    epoch: int = 0
    """The epoch at hand, from 0."""
    step_in_epoch: int = 0
    """Steps done in it."""
    tokens: int = 0
    """Seen, all ranks, without padding."""
    trained_tokens: int = 0
    """Of these, predicted."""
    seconds: float = 0.0
    """In the loop, over all processes of the run."""
    seconds_before: float = 0.0
    """What came before the loop in these processes; see `Job.seconds_before`."""
    bad_steps: int = 0
    """Steps that taught nothing because a figure was not finite, or the loss a spike; all there
    were, also those that the run has gone back behind."""
    bad_in_row: int = 0
    """Of these, the last ones without a good one between."""
    evaluated_step: int = 0
    """The step of the last evaluation."""
    best_step: int | None = None
    """The step of the best evaluation."""
    best_value: float | None = None
    """The metric there."""
    without_gain: int = 0
    """Evaluations since."""
    losses: list[float] = field(default_factory=list)
    """Of the last good steps, where spikes are looked for."""
    kept_step: int = 0
    """The last step whose checkpoint was due, which bad steps go back to: one that an interrupt
    wrote is not, or the run would go another way than without it."""
    rollbacks: int = 0
    """How often the run went back to an earlier checkpoint."""
    passed_steps: int = 0
    """How many steps' data were passed over by that: step n has the data that would else be those
    of step n + passed_steps."""
    events: int = 0
    """Logged so far."""

    def judged(self, value: float, best_is: Literal["lowest", "highest"]) -> bool:
        """Take in an evaluation of the step at hand; True where it is the best so far."""
        self.evaluated_step = self.step
        old = self.best_value
        better = old is None or (value < old if best_is == "lowest" else value > old)
        if better and not math.isnan(value):
            self.best_step, self.best_value, self.without_gain = self.step, value, 0
            return True
        self.without_gain += 1
        return False


class Calendar:
    """Which steps make an epoch, and what is due after a step.

    An epoch's last step takes what is left of it: no step reaches over two epochs.

    Args:
        config: Of the run.
        batches: How many batches an epoch has, on the rank that has most.
    """

    def __init__(self, config: TrainConfig, batches: Callable[[int], int]) -> None:
        self._config, self._batches = config, batches
        self._known: dict[int, int] = {}
        self.total = self._total()

    def steps_in(self, epoch: int) -> int:
        """Steps of an epoch.

        Raises:
            InputError: It has no batch.
        """
        if not self._steps_of(epoch):
            raise InputError("there are no examples to train on", fix="see the mask report")
        return self._steps_of(epoch)

    def place(self, progress: Progress) -> tuple[int, int]:
        """Where the next step's data stand: an epoch of the loader, and steps' data before them.

        As many as belong to an epoch, or more: beyond its last epoch a loader may go on in it.
        """
        epoch, step = progress.epoch, progress.step_in_epoch + progress.passed_steps
        if not progress.passed_steps or not self._steps_of(epoch):
            return progress.epoch, progress.step_in_epoch
        while step >= self._steps_of(epoch) and self._steps_of(epoch + 1):
            epoch, step = epoch + 1, step - self._steps_of(epoch)
        return epoch, step

    def is_beyond(self, epoch: int, step: int) -> bool:
        """Whether a place lies behind what belongs to its epoch."""
        return step > 0 and step >= self._steps_of(epoch)

    def is_due(self, every: int | None, progress: Progress) -> bool:
        """Whether what is done every so many steps (None: each epoch) is due now."""
        if progress.step in (0, self.total):
            return progress.step > 0
        return progress.step_in_epoch == 0 if every is None else progress.step % every == 0

    def turn(self, progress: Progress) -> None:
        """Count one more step, and go to the next epoch where this one is over."""
        progress.step += 1
        progress.step_in_epoch += 1
        if progress.step_in_epoch == self.steps_in(progress.epoch):
            progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0

    def epochs_done(self, progress: Progress) -> float:
        """With the part of the one at hand."""
        if not progress.step_in_epoch:
            return float(progress.epoch)
        return progress.epoch + progress.step_in_epoch / self.steps_in(progress.epoch)

    def _steps_of(self, epoch: int) -> int:
        """Steps of an epoch, perhaps none."""
        if epoch not in self._known:
            self._known[epoch] = math.ceil(self._batches(epoch) / self._config.micro_batches)
        return self._known[epoch]

    def _total(self) -> int | None:
        """Steps of the whole run; None where time alone ends it."""
        limit = self._config.max_steps
        if self._config.epochs is None:
            return limit
        steps = 0
        for epoch in range(self._config.epochs):
            steps += self.steps_in(epoch)
            if limit is not None and steps >= limit:
                return limit
        return steps
