"""The same figures as TensorBoard events (extra `tensorboard`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.errors import require
from puna.train.log import Silent, StepMetrics


class TensorBoard(Silent):
    """A reporter that writes event files into a folder.

    A run that goes on, or goes back, tells TensorBoard to forget the events after its checkpoint.

    Raises:
        MissingPackageError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._package = require(
            "tensorboardX", extra="tensorboard", purpose="writing TensorBoard events"
        )
        self._writer: Any = None
        self._files = self._done = 0

    def begin(self, step: int, total: int | None) -> None:
        """Open a new event file that goes on after `step`."""
        self._files += 1  # names have whole seconds, and a file of the same name would be emptied
        self._writer = self._package.SummaryWriter(
            str(self._folder), purge_step=step + 1, filename_suffix=f".{self._files}"
        )
        self._done = step

    def step(self, metrics: StepMetrics) -> None:
        """Write a step's figures under train/."""
        if metrics.step <= self._done:  # the run went back to a checkpoint
            self.end()
            self.begin(metrics.step - 1, None)
        self._done = metrics.step
        figures = {
            "loss": metrics.loss,
            "learning_rate": metrics.learning_rate,
            "grad_norm": metrics.grad_norm,
            "tokens_per_second": metrics.tokens_per_second,
            "memory_bytes": metrics.memory_bytes,
            "epoch": metrics.epoch,
        }
        for name, value in figures.items():
            self._writer.add_scalar(f"train/{name}", value, metrics.step)

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Write an evaluation's figures under evaluation/."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"evaluation/{name}", value, step)
        self._writer.flush()

    def end(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
