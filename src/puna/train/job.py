"""What the loop is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import nn

from puna.model import LlamaModel
from puna.tokens.batches import Batch
from puna.train.log import Reporter, Silent
from puna.train.objectives import Objective, Trunk

Stopped = Literal["finished", "early", "steps", "time"]


class Batches(Protocol):
    """Where batches come from: `puna.tokens.loader.Loader`, or anything that resumes as it does."""

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        """(epoch, batch) pairs of this rank, from the position at hand on; epochs count from 0.

        A loader without later epochs may go on in its last one beyond what belongs to it: a run
        that passes over some data takes what comes then.
        """

    def batches_in_epoch(self, epoch: int) -> int:
        """How many batches this rank has in an epoch; none in one that there is not."""

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to `epoch` and, in it, before `batch`."""


@dataclass(frozen=True)
class Job:
    """Everything that a run trains with."""

    model: LlamaModel
    """Whole on each rank, or spread over all of them by `puna.scale.spread`."""
    parameters: Mapping[str, nn.Parameter]
    """What learns, by the names that checkpoints use."""
    objective: Objective
    """What a step is."""
    loader: Batches
    """The batches of this rank."""
    trunk: Trunk
    """The unchanged lower blocks."""
    identity: str
    """Digest of recipe and data: a run goes on with the same ones only."""
    evaluate: Callable[[], Mapping[str, float]] | None = None
    """Judges the model as it stands; called on each rank, the first one's figures count."""
    set_train: Callable[[bool], None] | None = None
    """Turns dropout on (for steps) and off (for evaluations)."""
    seconds_before: float = 0.0
    """What this process has done for the run already, such as filling a trunk cache; it counts
    against `max_seconds`."""
    everywhere: Reporter = field(default_factory=Silent)
    """Is told what the reporter of the run is told, but on every rank: whoever runs the model
    between steps has to do so on all ranks that share it."""
    any_ranks: bool = False
    """Whether the loader deals out the same steps to any number of ranks: the run may then go on
    with more or fewer of them than it began with."""


@dataclass(frozen=True)
class FitResult:
    """What came out; the model is left as the last step made it."""

    steps: int  # done
    best_step: int  # the checkpoint that is best by the metric; the last one without evaluation
    best_value: float | None  # of the metric there
    stopped: Stopped  # all epochs done | no gain for `patience` evaluations | a limit reached
    history: tuple[Mapping[str, Any], ...]  # each step, as in metrics.jsonl
    evaluations: tuple[Mapping[str, Any], ...]  # each evaluation, as in metrics.jsonl
    seconds: float  # in the loop, evaluations and checkpoints included
    seconds_before: float  # before it, see `Job.seconds_before`; over all processes, as the former
    tokens: int  # all ranks, without padding
    trained_tokens: int
    bad_steps: int  # that taught nothing: a figure was not finite, or the loss a spike
    peak_bytes: int  # memory of this rank at its highest
    events: tuple[Mapping[str, Any], ...] = ()  # skipped steps and returns, as in metrics.jsonl
    rollbacks: int = 0  # returns to an earlier checkpoint
    passed_steps: int = 0  # whose data were passed over by that, beside those of `steps`
