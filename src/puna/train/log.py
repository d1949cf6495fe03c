"""What a run tells while it runs: to a reporter (the terminal), and to metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from puna.artifact import writing_file
from puna.errors import InputError

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step."""

    step: int  # from 1
    epoch: float  # epochs done, with the part of the one at hand
    loss: float  # of the step: each term's mean, weighted; nats per token for cross-entropy
    terms: Mapping[str, float]  # the mean of each term, before weighting
    learning_rate: float
    grad_norm: float  # before clipping
    tokens: int  # of this step, all ranks, without padding
    trained_tokens: int
    tokens_per_second: float  # of this step
    seconds: float  # since the beginning of the run, pauses between processes left out
    memory_bytes: int  # the highest so far
    skipped: bool  # the loss or the gradient was not finite, or a spike: nothing was learnt
    optimizer: Mapping[str, Any] = field(default_factory=dict)  # what the optimizer tells of it


class Reporter(Protocol):
    """Who is told how a run goes; called on the first rank only."""

    def begin(self, step: int, total: int | None) -> None:
        """The run starts, or goes on, after `step` of `total` steps; None: time ends it."""

    def step(self, metrics: StepMetrics) -> None:
        """A step is done."""

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """An evaluation after `step` is done; `best`: no earlier one was as good."""

    def note(self, text: str) -> None:
        """Something that a user should know, in a sentence."""

    def end(self) -> None:
        """The run ends, whatever the reason; the last call."""


class Silent:
    """A reporter that tells nobody; those that listen to a part of it inherit from this."""

    def begin(self, step: int, total: int | None) -> None:
        """Nothing."""

    def step(self, metrics: StepMetrics) -> None:
        """Nothing."""

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Several:
    """One reporter for several."""

    def __init__(self, reporters: Iterable[Reporter]) -> None:
        self._reporters = tuple(reporters)

    def begin(self, step: int, total: int | None) -> None:
        """Tell each."""
        for reporter in self._reporters:
            reporter.begin(step, total)

    def step(self, metrics: StepMetrics) -> None:
        """Tell each."""
        for reporter in self._reporters:
            reporter.step(metrics)

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Tell each."""
        for reporter in self._reporters:
            reporter.evaluated(step, metrics, best)

    def note(self, text: str) -> None:
        """Tell each."""
        for reporter in self._reporters:
            reporter.note(text)

    def end(self) -> None:
        """Tell each."""
        for reporter in self._reporters:
            reporter.end()


class MetricsLog:
    """`metrics.jsonl`: one line per step, evaluation or event, whole lines only, in order.

    A line is a JSON object with `kind` ("step", "evaluation" or "event") and `step`; figures that
    are not finite are null.
    """

    def __init__(self, workspace: Path) -> None:
        self.path = workspace / METRICS

    def step(self, metrics: StepMetrics) -> None:
        """Append a step."""
        told = asdict(metrics)
        if not metrics.optimizer:
            del told["optimizer"]
        self._append({"kind": "step", **told})

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append an evaluation."""
        self._append({"kind": "evaluation", "step": step, **metrics})

    def event(self, step: int, event: Mapping[str, Any]) -> None:
        """Append something that happened after a step; `number` counts the events of the run."""
        self._append({"kind": "event", "step": step, **event})

    def cut(self, step: int, evaluated: int, events: int = 0) -> None:
        """Drop what came after `step`, evaluations after that of step `evaluated`, later events.

        Args:
            step: Steps to keep.
            evaluated: The step of the last evaluation to keep.
            events: How many events to keep; a run that went back has some of later steps.
        """
        if not self.path.exists():
            return
        last = {"step": step, "evaluation": evaluated, "event": events}
        place = {"event": "number"}
        kept = [
            row
            for row in self.rows()
            if row.get(place.get(row["kind"], "step"), 0) <= last.get(row["kind"], -1)
        ]
        with writing_file(self.path, force=True) as path:
            path.write_text("".join(_line(row) for row in kept), encoding="utf-8")

    def rows(self) -> list[dict[str, Any]]:
        """Every whole line; a torn one, which a killed writer leaves behind, is none."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int) and "kind" in row:
                found.append(row)
        return found

    def _append(self, row: Mapping[str, Any]) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(_line(row).encode())
        except OSError as error:
            raise InputError(
                f"could not be written: {error.strerror}",
                where=self.path,
                fix="free some space, or choose a folder that you may write to",
            ) from error


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps({key: _finite(value) for key, value in row.items()}) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
