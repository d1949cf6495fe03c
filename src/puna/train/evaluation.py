"""The loss of a model as it stands, over examples that it did not learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from puna.errors import InputError
from puna.model import LlamaModel
from puna.scale.world import World
from puna.tokens.batches import Batch
from puna.tokens.loader import Loader
from puna.train.objectives import Objective, Term, Trunk
from puna.train.ranks import gather


def evaluate_loss(
    model: LlamaModel,
    objective: Objective,
    batches: Iterable[Batch] | Loader,
    trunk: Trunk,
    *,
    world: World | None = None,
) -> dict[str, float]:
    """The objective's loss over all batches, without gradients.

    Args:
        model: As it stands; turn dropout off before.
        objective: Whose terms are summed.
        batches: The examples once: batches, or a loader of one epoch, which begins at its start.
        trunk: The unchanged lower blocks.
        world: Ranks that have a part of the batches each; by default this process has all.

    Returns:
        `validation_loss` (each term's mean over everything, weighted: nats per trained token for
        cross-entropy), `validation_tokens` (trained ones), and, where the objective has several
        terms, `validation_TERM` for the mean of each.

    Raises:
        InputError: There is nothing to predict, or the loader has more than one epoch.
    """
    counts: Counter[str] = Counter()
    terms: list[Term] = []
    trained = 0
    device = next(model.parameters()).device
    with torch.no_grad():
        for batch in _once(batches):
            counts.update(objective.counts(batch))
            trained += batch.trained
            objective.step(model, batch.to(device), trunk, terms.append)
    sums = dict.fromkeys(counts, 0.0)
    for term in terms:  # read from the device once all is computed, and added in double precision
        sums[term.name] += float(term.own)
    weights = {term.name: term.weight for term in terms}
    mine = [trained, counts, sums, weights]
    return _figures([mine] if world is None else gather(world, mine))


def _once(batches: Iterable[Batch] | Loader) -> Iterator[Batch]:
    if not isinstance(batches, Loader):
        yield from batches
        return
    if batches.epochs != 1:
        raise InputError(f"a loader for validation has one epoch, not {batches.epochs}")
    batches.load_state_dict({"epoch": 0, "batch": 0})
    for _, batch in batches:
        yield batch


def _figures(parts: Iterable[Sequence[Any]]) -> dict[str, float]:
    trained = 0
    counts: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    weights: dict[str, float] = {}
    for part in parts:
        trained += part[0]
        counts.update(part[1])
        sums.update(part[2])
        weights.update(part[3])
    if not trained:
        raise InputError(
            "the examples for validation have nothing to predict",
            fix="give more of them, or longer ones",
        )
    means = {name: float(total) / max(counts[name], 1) for name, total in sums.items()}
    loss = sum(weights[name] * mean for name, mean in means.items())
    several = {f"validation_{name}": mean for name, mean in means.items()} if len(means) > 1 else {}
    return {"validation_loss": loss, "validation_tokens": float(trained), **several}
