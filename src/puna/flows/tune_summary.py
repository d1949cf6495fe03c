"""What RUN/summary.json says of a tuning run, for the report and for programs."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from typing import Any

import torch

from puna.evaluate import Judgement, compare, side_by_side
from puna.flows.opening import Opened
from puna.model import count
from puna.train import FitResult
from puna.tune import Tuned
from puna.tune.trunk_cache import TrunkCache


@dataclass(frozen=True)
class Outcome:
    """What came out of the training, and how it was judged."""

    tuned: Tuned
    result: FitResult
    before: Judgement | None
    after: Judgement | None
    cache: TrunkCache | None
    resident_bytes: int  # before the method was put on the base

    def told(self, *, samples: int, begun: bool) -> dict[str, Any]:
        """Plain data.

        Args:
            samples: Answers to show side by side.
            begun: The run was begun by an earlier process.
        """
        before, after, tuned = self.before, self.after, self.tuned
        pairs = compare(before, after) if before and after else {}
        return {
            "method": self._method(),
            "history": [dict(row) for row in self.result.history],
            "evaluations": [dict(row) for row in self.result.evaluations],
            "best_step": self.result.best_step,
            "training": {
                "seconds": self.result.seconds,
                "seconds_before": self.result.seconds_before,
                "steps": self.result.steps,
                "tokens": self.result.tokens,
                "trained_tokens": self.result.trained_tokens,
                "stopped": self.result.stopped,
                "best_value": self.result.best_value,
                "peak_bytes": self.result.peak_bytes,
                "resident_bytes": self.resident_bytes,
                "resumed": begun,
            },
            "notes": [*tuned.notes, *self._notes(begun)],
            "before": _figures(before),
            "after": _figures(after),
            "paired": {name: dataclasses.asdict(pair) for name, pair in pairs.items()},
            "samples": side_by_side(before, after)[:samples] if before and after else [],
            "cache": self._cache(),
        }

    def _method(self) -> dict[str, Any]:
        tuned = self.tuned
        config = tuned.model.config
        return {
            "name": tuned.config.method,
            "trainable": tuned.trainable_count(),
            "total": count(config).parameters,
            "layers": config.num_hidden_layers - tuned.start,
            "start": tuned.start,
        }

    def _cache(self) -> dict[str, Any] | None:
        if self.cache is None:
            return None
        stats = self.cache.stats()
        return {"sentence": stats.sentence(), **stats.to_dict()}

    def _notes(self, begun: bool) -> list[str]:
        notes = [] if self.cache is None else list(self.cache.notes)
        if begun:
            notes.append("The run was interrupted and continued; the costs are of its last part.")
        if self.result.stopped == "early":
            notes.append("The training was stopped early: nothing improved any more.")
        if self.result.stopped == "time":
            notes.append(
                "Time ended the training: another run of the recipe makes another number of steps."
            )
        if self.result.bad_steps:
            notes.append(f"{self.result.bad_steps} steps taught nothing: not finite.")
        after = self.after
        if after is not None and after.cut_outputs:
            notes.append(
                f"{after.cut_outputs} of {len(after.ids)} answers of the tuned model were cut at "
                "the longest length allowed."
            )
        return notes


def told_model(base: Opened, identity: str) -> dict[str, Any]:
    """Which base it was; to be asked before anything is put on it."""
    weight = base.model.model.norm.weight
    return {
        "name": base.name,
        "file": base.checkpoint.path.name,
        "parameters": count(base.model.config).parameters,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "device": str(weight.device),
        "identity": identity,
    }


def told_machine() -> dict[str, Any]:
    """What computed."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _figures(judgement: Judgement | None) -> dict[str, Any] | None:
    """For the report: without what only a later comparison needs."""
    if judgement is None:
        return None
    kept = ("metrics", "seconds", "generated_tokens", "scored_tokens", "cut_outputs")
    data = judgement.to_dict()
    return {**{name: data[name] for name in kept}, "examples": len(judgement.ids)}
