"""One optimizer step over any number of micro-batches and ranks.

Each term of the loss is divided by its own count over the whole step, never over a part of it, so
1 x 8 examples, 8 x 1 and 2 ranks x 4 give the same gradient, also where masks are uneven.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from puna.errors import InputError
from puna.scale.world import World
from puna.tokens.batches import Batch
from puna.train.job import Job
from puna.train.objectives import Objective, Term
from puna.train.optim import AdamW, OptimConfig, clip
from puna.train.ranks import gather, sum_gradients


@dataclass(frozen=True)
class Agreed:
    """What the ranks know of a step before its first forward pass."""

    counts: Counter[str]  # of each term, over all micro-batches and ranks
    tokens: int
    trained_tokens: int
    stop: bool  # some rank wants to stop before this step


@dataclass(frozen=True)
class Outcome:
    """What a step gave."""

    loss: float
    terms: dict[str, float]  # means, before weighting
    grad_norm: float  # before clipping
    skipped: bool  # something was not finite, and nothing was changed


def agree(world: World, objective: Objective, batches: Sequence[Batch], stop: bool) -> Agreed:
    """Sum the counts of all micro-batches over all ranks."""
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(objective.counts(batch))
    mine = [counts, sum(b.tokens for b in batches), sum(b.trained for b in batches), stop]
    total: Counter[str] = Counter()
    told = gather(world, mine)
    for row in told:
        total.update(row[0])
    tokens, trained = sum(row[1] for row in told), sum(row[2] for row in told)
    return Agreed(total, tokens, trained, any(row[3] for row in told))


class Stepper:
    """The optimizer, and the way of a gradient to it."""

    def __init__(self, job: Job, config: OptimConfig, world: World) -> None:
        self._job, self._config, self._world = job, config, world
        self._parameters = list(job.parameters.values())
        self.optimizer = AdamW(job.parameters, config)

    def step(self, batches: Sequence[Batch], agreed: Agreed, learning_rate: float) -> Outcome:
        """Learn from the micro-batches of this rank, together with those of the others."""
        sums = _Sums(agreed.counts)
        for batch in batches:
            moved = batch.to(self._world.device)
            self._job.objective.step(self._job.model, moved, self._job.trunk, sums.backward)
        sum_gradients(self._world, self._parameters)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = _norm(gradients)
        loss, terms = self._over_ranks(sums)
        skipped = not (math.isfinite(norm) and math.isfinite(loss))
        if not skipped:
            clip(gradients, norm, self._config.max_grad_norm)
            self.optimizer.step(learning_rate)
        self.optimizer.forget_gradients()
        return Outcome(loss, terms, norm, skipped)

    def _over_ranks(self, sums: _Sums) -> tuple[float, dict[str, float]]:
        """The step's loss, and the mean of each term."""
        own = {name: float(mean) for name, mean in sums.means.items()}
        rows = gather(self._world, [own, sums.weights])
        loss, terms = 0.0, dict.fromkeys(sums.counts, 0.0)
        for means, weights in rows:
            for name, mean in means.items():
                terms[name] += mean
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
        mean = term.sum.detach().float() * share
        self.means[term.name] = self.means[term.name] + mean if term.name in self.means else mean
        self.weights[term.name] = term.weight


def _norm(gradients: list[Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
