"""One optimizer step over any number of micro-batches and ranks.

Each term of the loss is divided by its own count over the whole step, never over a part of it, so
1 x 8 examples, 8 x 1 and 2 ranks x 4 give the same gradient, also where masks are uneven.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from puna.errors import InputError
from puna.scale.pieces import sync_gradients
from puna.scale.world import World
from puna.tokens.batches import IGNORED, Batch
from puna.train.job import Job
from puna.train.masters import Moved
from puna.train.objectives import Objective, Term
from puna.train.optimizers import OptimConfig, clip, make_optimizer
from puna.train.ranks import gather


@dataclass(frozen=True)
class Agreed:
    """What the ranks know of a step before its first forward pass."""

    counts: Counter[str]  # of each term, over all micro-batches and ranks
    tokens: int
    trained_tokens: int
    stop: bool  # some rank wants to stop before this step
    batches: int  # micro-batches of all ranks
    passes: int  # micro-batches of the rank that has most
    written: bool  # every rank has written its part of the last checkpoint


@dataclass(frozen=True)
class Outcome:
    """What a step gave."""

    loss: float  # without parts of terms that only guide the learning
    terms: dict[str, float]  # means, before weighting, and those of the terms' parts
    grad_norm: float  # before clipping
    limit: float  # a loss above it is a spike
    reason: Literal["not finite", "a spike"] | None  # why nothing was changed
    optimizer: Mapping[str, Any]  # what the optimizer tells of the step

    @property
    def skipped(self) -> bool:
        """Whether nothing was changed."""
        return self.reason is not None


def agree(
    world: World,
    objective: Objective,
    batches: Sequence[Batch],
    stop: bool,
    written: bool = False,
) -> Agreed:
    """Sum the counts of all micro-batches over all ranks."""
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(objective.counts(batch))
    tokens, trained = sum(b.tokens for b in batches), sum(b.trained for b in batches)
    mine = [counts, tokens, trained, stop, len(batches), written]
    total: Counter[str] = Counter()
    told = gather(world, mine)
    for row in told:
        total.update(row[0])
    tokens, trained = sum(row[1] for row in told), sum(row[2] for row in told)
    micro = [row[4] for row in told]
    return Agreed(
        total,
        tokens,
        trained,
        stop=any(row[3] for row in told),
        batches=sum(micro),
        passes=max(micro),
        written=all(row[5] for row in told),
    )


class Stepper:
    """The optimizer, and the way of a gradient to it.

    Args:
        job: What is trained.
        config: Of the optimizer.
        world: The ranks.
        moved: What the optimizer moves, which stands for what learns.

    Raises:
        InputError: The optimizer cannot move it.
    """

    def __init__(self, job: Job, config: OptimConfig, world: World, moved: Moved) -> None:
        self._job, self._config, self._world = job, config, world
        self.moved = moved
        self.optimizer = make_optimizer(
            moved.parameters, config, matrices=_block_matrices(job), sharded=moved.sharded
        )

    def step(
        self,
        batches: Sequence[Batch],
        agreed: Agreed,
        learning_rate: float,
        limit: float = math.inf,
    ) -> Outcome:
        """Learn from the micro-batches of this rank, together with those of the others.

        Nothing is learnt where loss or gradient are not finite or the loss is above `limit`: both
        figures are those of all ranks, which therefore skip a step together.
        """
        sums = _Sums(agreed.counts)
        given = self._filled(batches, agreed.passes)
        for number, batch in enumerate(given, 1):
            sync_gradients(self._job.model, number == len(given))
            there = batch.to(self._world.device)
            self._job.objective.step(self._job.model, there, self._job.trunk, sums.backward)
        self.moved.sum_gradients(self._world)
        norm = self.moved.gradient_norm(self._world)
        loss, terms = self._over_ranks(sums)
        reason = _reason(loss, norm, limit)
        told: Mapping[str, Any] = {}
        if reason is None:
            clip(self.moved.gradients(), norm, self._config.max_grad_norm)
            self.optimizer.step(learning_rate)
            self.moved.spread()
            told = self.optimizer.figures()
        self.optimizer.forget_gradients()
        return Outcome(loss, terms, norm, limit, reason, told)

    def _filled(self, batches: Sequence[Batch], passes: int) -> list[Batch]:
        """The batches of this rank; of a spread model all ranks pass through it equally often."""
        missing = passes - len(batches) if self.moved.sharded else 0
        return [*batches, *[_nothing() for _ in range(missing)]]

    def _over_ranks(self, sums: _Sums) -> tuple[float, dict[str, float]]:
        """The step's loss, and the mean of each term."""
        own = {name: float(mean) for name, mean in sums.means.items()}
        rows = gather(self._world, [own, sums.weights])
        loss, terms = 0.0, dict.fromkeys(sums.counts, 0.0)
        for means, weights in rows:
            for name, mean in means.items():
                terms[name] = terms.get(name, 0.0) + mean
                loss += weights[name] * mean
        return loss, terms


class _Sums:
    """Takes terms: sends each back through the model, and adds up what they come to."""

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self.means: dict[str, Tensor] = {}
        self.weights: dict[str, float] = {}

    def backward(self, term: Term) -> None:
        if term.name not in self.counts:
            known = ", ".join(self.counts) or "none"
            raise InputError(
                f"the objective gives a term {term.name!r} that it does not count",
                fix=f"counted are: {known}",
            )
        # A step without anything to count has a sum of zero: any divisor does.
        share = 1 / max(self.counts[term.name], 1)
        torch.autograd.backward(term.sum * (term.weight * share))
        self._add(term.name, term.own * share, term.weight)
        for name, part in term.parts.items():
            self._add(name, part * share, 0.0)

    def _add(self, name: str, mean: Tensor, weight: float) -> None:
        self.means[name] = self.means[name] + mean if name in self.means else mean
        self.weights[name] = weight


def _nothing() -> Batch:
    """A batch of one token that teaches nothing."""
    ids = torch.zeros(1, 1, dtype=torch.int64)
    targets = torch.full_like(ids, IGNORED)
    return Batch(ids, targets, None, None, (), tokens=0, trained=0)


def _reason(loss: float, norm: float, limit: float) -> Literal["not finite", "a spike"] | None:
    """Why a step must not be learnt from; None where it may."""
    if not (math.isfinite(norm) and math.isfinite(loss)):
        return "not finite"
    return "a spike" if loss > limit else None


def _block_matrices(job: Job) -> set[str]:
    """The names of what learns that are matrices within blocks."""
    layers: nn.Module = job.model.model.layers
    inside = {id(parameter) for parameter in layers.parameters()}
    return {name for name, p in job.parameters.items() if p.dim() == 2 and id(p) in inside}
