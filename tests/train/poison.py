"""Data that do harm wherever they come: their loss is no number, or far too high."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace

from puna.model import LlamaModel
from puna.tokens.batches import Batch
from puna.train.objectives import Backward, NextToken, Trunk
from train.stub import Loader, batch


class Poison(NextToken):
    """Multiplies the sum of a batch that has one of these members; `seen` has all members."""

    def __init__(self, members: Collection[int], by: float = math.nan):
        super().__init__()
        object.__setattr__(self, "members", set(members))
        object.__setattr__(self, "by", by)
        object.__setattr__(self, "seen", [])

    def step(self, model: LlamaModel, batch: Batch, trunk: Trunk, backward: Backward) -> None:
        found = [member for row in batch.members for member in row]
        self.seen.append(found)  # type: ignore[attr-defined]
        bad = self.members & set(found)  # type: ignore[attr-defined]
        by = self.by if bad else 1.0  # type: ignore[attr-defined]
        super().step(model, batch, trunk, lambda term: backward(replace(term, sum=term.sum * by)))


class Without(Loader):
    """The same batches but for some, by their place in the first epoch."""

    def __init__(self, places: Collection[int], examples: int = 60, size: int = 2):
        super().__init__(examples, size, shuffle=False)
        self.places = set(places)

    def plan(self, epoch: int) -> list[list[int]]:
        found = super().plan(epoch)
        return [part for place, part in enumerate(found) if epoch or place not in self.places]


class Ending(Loader):
    """One epoch, and no more."""

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        for epoch, given in super().__iter__():
            if epoch:
                return
            yield epoch, given


class GoesOn(Loader):
    """One epoch of so many batches, in which it goes on beyond them, as a loader of shards does."""

    def __init__(self, batches: int, examples: int = 60, size: int = 2):
        super().__init__(examples, size, shuffle=False)
        self.batches = batches

    def batches_in_epoch(self, epoch: int) -> int:
        return 0 if epoch else self.batches

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        plan = self.plan(0)
        while not self.epoch and self.batch < len(plan):
            self.batch += 1
            yield 0, batch(plan[self.batch - 1])
