"""Steps that would do harm are skipped, and after several in a row the run goes back.

A step is bad where its loss or gradient is not finite, or where its loss is a spike. Bad steps
teach nothing. After several in a row the weights themselves are suspected: the run goes back to
the checkpoint before them, and on with the data after them (Chowdhery et al. 2022, PaLM,
arXiv 2204.02311, section 5.1).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puna.errors import InputError

if TYPE_CHECKING:  # both know the configuration of a run, of which this is a part
    from puna.train.progress import Progress
    from puna.train.stepping import Outcome

_NORMAL = 1.4826  # standard deviations of a normal distribution per median absolute deviation
_LEAST_SHARE = 0.01  # of the median: losses that hardly differ make no spike of a small rise


@dataclass(frozen=True)
class GuardConfig:
    """When a step is bad, and what follows."""

    max_bad_steps: int = 5
    """Go back, or give up, after this many bad steps in a row."""
    spike_factor: float | None = None
    """A loss is a spike if it lies more than so many deviations above the median of the last good
    steps; a deviation is 1.4826 times the median distance from the median, and at least a
    hundredth of the median. 6 is cautious. null: no loss is one; only what is not finite is bad."""
    window_steps: int = 100
    """How many good steps that median is of; before there are as many, no loss is a spike."""
    max_rollbacks: int = 0
    """How often the run may go back to an earlier checkpoint; 0: it gives up at once."""

    def __post_init__(self) -> None:
        if self.max_bad_steps < 1:
            raise InputError(f"max_bad_steps must be at least 1, found {self.max_bad_steps}")
        if self.spike_factor is not None and not self.spike_factor > 0:
            raise InputError(
                f"spike_factor must be positive, found {self.spike_factor}",
                fix="null turns it off",
            )
        if self.window_steps < 2:
            raise InputError(f"window_steps must be at least 2, found {self.window_steps}")
        if self.max_rollbacks < 0:
            raise InputError(f"max_rollbacks must not be negative, found {self.max_rollbacks}")


def spike_limit(losses: Sequence[float], config: GuardConfig) -> float:
    """The loss above which a step is a spike; infinity where none is."""
    if config.spike_factor is None or len(losses) < config.window_steps:
        return math.inf
    middle = statistics.median(losses)
    distance = statistics.median([abs(loss - middle) for loss in losses])
    deviation = max(_NORMAL * distance, _LEAST_SHARE * abs(middle))
    return middle + config.spike_factor * deviation


def count_step(progress: Progress, outcome: Outcome, config: GuardConfig) -> None:
    """Take a step into the figures that the next ones are judged by."""
    if outcome.skipped:
        progress.bad_steps += 1
        progress.bad_in_row += 1
        return
    progress.bad_in_row = 0
    if config.spike_factor is not None:
        progress.losses = [*progress.losses, outcome.loss][-config.window_steps :]


def skipped_event(outcome: Outcome) -> dict[str, Any]:
    """What is logged of a bad step."""
    figures = {"loss": outcome.loss, "grad_norm": outcome.grad_norm}
    limit = {"limit": outcome.limit} if outcome.reason == "a spike" else {}
    return {"event": "skipped", "reason": outcome.reason, **figures, **limit}


def skipped_note(step: int, outcome: Outcome) -> str:
    """The same in words."""
    said = f"loss {outcome.loss:.4g}, gradient norm {outcome.grad_norm:.4g}"
    if outcome.reason == "a spike":
        said += f", limit {outcome.limit:.4g}"
    return f"step {step} was skipped: {outcome.reason} ({said})"


def back_event(before: Progress, after: Progress) -> dict[str, Any]:
    """What is logged of a return to an earlier checkpoint."""
    return {
        "event": "rollback",
        "to_step": after.step,
        "bad_in_row": before.bad_in_row,
        "passed_steps": after.passed_steps,
        "rollbacks": after.rollbacks,
    }


def back_note(before: Progress, after: Progress) -> str:
    """The same in words."""
    return (
        f"{before.bad_in_row} bad steps in a row up to step {before.step}: the run went back to "
        f"the checkpoint after step {after.step}, and goes on with the data that follow"
    )


def hopeless(
    progress: Progress, outcome: Outcome, config: GuardConfig, workspace: Path
) -> InputError:
    """Why the run ends, and what to try."""
    bad = "the loss or the gradient was not finite"
    if config.spike_factor is not None:
        bad += ", or the loss a spike,"
    tried = ""
    if progress.rollbacks:
        tried = f", after going back to an earlier checkpoint {_times(progress.rollbacks)}"
    elif config.max_rollbacks:
        tried = ", and there is no checkpoint to go back to"
    return InputError(
        f"{bad} in {progress.bad_in_row} steps in a row, up to step {progress.step} (loss "
        f"{outcome.loss:.4g}, gradient norm {outcome.grad_norm:.4g}){tried}",
        where=workspace,
        fix="lower optim.learning_rate, or lengthen the warmup; checkpoints up to there are whole",
    )


def numbered(event: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """An event with its number in the run, which tells what a checkpoint has seen of them."""
    progress.events += 1
    return {**event, "number": progress.events}


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
