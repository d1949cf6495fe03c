"""How long a run is, what a step is, and when it is judged and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from puna.errors import InputError
from puna.train.guard import GuardConfig
from puna.train.masters import ComputeDtype
from puna.train.optimizers import OptimConfig
from puna.train.schedule import ScheduleConfig


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    epochs: int | None = 3
    """Passes over the examples; null: as many as `max_steps` or `max_seconds` takes."""
    max_steps: int | None = None
    """Stop after this many optimizer steps; null: after `epochs`."""
    max_seconds: float | None = None
    """Stop after the first step or evaluation that ends beyond so many seconds of work: those of
    the loop, evaluations and checkpoints included, and those of what came before it, such as a
    trunk cache; pauses between processes do not count. The last evaluation and checkpoint come on
    top. With null for `epochs` and `max_steps` time alone decides. The learning rate then follows
    its schedule by whichever limit is nearer. How many steps a machine makes in a time is chance:
    such a run gives other bits each time."""
    micro_batches: int = 1
    """Batches per optimizer step and rank; the loss is that of all of them at once."""
    seed: int = 0
    """Of dropout, and of whatever else is random in a step."""
    evaluate_every_steps: int | None = None
    """Optimizer steps between evaluations; null: after each epoch. The end is always judged."""
    checkpoint_every_steps: int | None = None
    """Optimizer steps between checkpoints; null: after each epoch. The end and each best are
    always kept."""
    keep_checkpoints: int = 2
    """The newest checkpoints to keep, beside the best one."""
    background_checkpoints: bool = False
    """Take a copy in main memory and write it while steps go on, rather than wait; the copy is as
    large as what learns and its optimizer's state."""
    best_metric: str = "validation_loss"
    """What the best checkpoint is best in; one of the evaluation's figures."""
    best_is: Literal["lowest", "highest"] = "lowest"
    """Whether less of `best_metric` is better, or more."""
    patience: int | None = None
    """Stop after this many evaluations in a row without a new best; null: never."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """What is done about steps that would do harm."""
    compute_dtype: ComputeDtype | None = None
    """bfloat16: the model computes in it, and learns through copies of its weights in float32,
    which are what is kept and published; what does not learn has to be in bfloat16 already. null:
    the weights compute as they are."""
    activation_checkpointing: bool = False
    """Keep the input of each block only, and compute the rest anew in the backward pass."""
    compile: bool = False
    """Compile each block by torch.compile; on CPU this takes a C++ compiler. Results then agree
    to rounding only, also between an interrupted run and an uninterrupted one."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The course of the learning rate."""

    def __post_init__(self) -> None:
        if self.epochs is None and self.max_steps is None and self.max_seconds is None:
            raise InputError("epochs, max_steps and max_seconds are all null", fix="set one")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise InputError(f"max_seconds must be positive, found {self.max_seconds}")
        for key in ("micro_batches", "keep_checkpoints"):
            _at_least_one(key, getattr(self, key))
        for key in ("epochs", "max_steps", "patience"):
            if getattr(self, key) is not None:
                _at_least_one(key, getattr(self, key))
        for key in ("evaluate_every_steps", "checkpoint_every_steps"):
            if getattr(self, key) is not None:
                _at_least_one(key, getattr(self, key))


def _at_least_one(key: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{key} must be at least 1, found {value}")
