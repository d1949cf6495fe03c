"""The batches of a training run, epoch after epoch, resumable at any of them.

What comes is a function of the examples, the configuration and the seed: a loader that is told
(epoch, batch) goes on as the one that said so would have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch

from puna.errors import InputError
from puna.tokens.batches import IGNORED, Batch, BatchConfig, collate, plan
from puna.tokens.examples import TokenExample

Rows = list[list[int]]


class Loader:
    """Iterates over (epoch, batch). Iterating again goes on where the last one stopped.

    With several ranks each has its own batches, and all have as many: batches are halved until
    they can be dealt out evenly.
    """

    def __init__(
        self,
        examples: Sequence[TokenExample],
        config: BatchConfig,
        *,
        seed: int,
        pad_id: int,
        shuffle: bool = True,
        epochs: int | None = None,
        rank: int = 0,
        size: int = 1,
    ):
        """Begin before the first batch.

        Args:
            examples: What to learn from.
            config: How large batches are.
            seed: Chooses the order.
            pad_id: Fills rows up; any token.
            shuffle: Another order in each epoch; see `plan` for the order without it.
            epochs: How often each example comes; None for ever.
            rank: Which of `size` processes this is.
            size: How many processes share the batches.

        Raises:
            InputError: There are no examples, or no such rank.
        """
        if not examples:
            raise InputError("there are no examples to make batches of")
        if not 0 <= rank < size:
            raise InputError(f"rank {rank} of {size} processes")
        if epochs is not None and epochs < 0:
            raise InputError(f"epochs must be at least 0, not {epochs}")
        self.examples, self.config = examples, config
        self.seed, self.pad_id, self.shuffle, self.epochs = seed, pad_id, shuffle, epochs
        self.rank, self.size = rank, size
        self._lengths = [len(example) for example in examples]
        self._epoch = self._batch = 0
        self._planned: tuple[int, list[Rows]] | None = None

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        while self.epochs is None or self._epoch < self.epochs:
            epoch, mine = self._epoch, self._dealt(self._epoch)
            if self._batch >= len(mine):
                self._epoch, self._batch = epoch + 1, 0
                continue
            rows = mine[self._batch]
            self._batch += 1  # before it is handed out: the state is that after this batch
            yield epoch, self._collate(rows)

    def state_dict(self) -> dict[str, int]:
        """The place of the batch that comes next."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on at a place.

        Raises:
            InputError: It is not what `state_dict` gives, or not a place of this loader.
        """
        if set(state) != {"epoch", "batch"} or any(type(n) is not int for n in state.values()):
            raise InputError(f"expected the state of a loader, found {dict(state)}")
        epoch, batch = state["epoch"], state["batch"]
        if epoch < 0 or not 0 <= batch <= self.batches_in_epoch(max(epoch, 0)):
            raise InputError(
                f"there is no batch {batch} in epoch {epoch}",
                fix="the data or the batch sizes have changed: start anew",
            )
        self._epoch, self._batch = epoch, batch

    def batches_in_epoch(self, epoch: int) -> int:
        """How many batches this process has in an epoch; all processes have as many."""
        return len(self._dealt(epoch))

    def _dealt(self, epoch: int) -> list[Rows]:
        if self._planned is None or self._planned[0] != epoch:
            self._planned = (epoch, self._deal(epoch))
        return self._planned[1]

    def _deal(self, epoch: int) -> list[Rows]:
        batches = plan(
            self._lengths, self.config, seed=self.seed, epoch=epoch, shuffle=self.shuffle
        )
        while len(batches) % self.size and (fullest := max(batches, key=len))[1:]:
            place, half = batches.index(fullest), len(fullest) // 2
            batches[place : place + 1] = [fullest[:half], fullest[half:]]
        missing = -len(batches) % self.size
        # Fewer rows than processes: the others get an empty batch, so that all take as many steps.
        return [*batches, *([] for _ in range(missing))][self.rank :: self.size]

    def _collate(self, rows: Rows) -> Batch:
        if rows:
            return collate(self.examples, rows, pad_id=self.pad_id)
        batch = collate(self.examples, [[0]], pad_id=self.pad_id)
        targets = torch.full_like(batch.targets, IGNORED)
        return dataclasses.replace(batch, targets=targets, tokens=0, trained=0)
