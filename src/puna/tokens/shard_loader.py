"""The batches of a pretraining run: rows of a mixture of sources, from any step on at once.

What comes is a function of the shards, the configuration and the seed. A step takes the same rows
on any number of ranks, in the same micro-batches.

Shapes: B rows of a batch, T tokens of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

import numpy as np

from puna.errors import InputError
from puna.tokens.batches import IGNORED, Batch
from puna.tokens.held_out import HeldOut, held_out_batches
from puna.tokens.mixture import MixtureConfig, Schedule
from puna.tokens.row_batches import RowConfig, row_batch
from puna.tokens.shard_rows import Row, SourceRows, TokenDocuments

__all__ = ["Consumed", "HeldOut", "RowConfig", "ShardLoader", "held_out_batches"]

_ENDLESS_STEPS = 2**40  # more than any run takes


class Consumed(TypedDict):
    """What a run has read of a source."""

    rows: int
    tokens: int
    epochs: float


class ShardLoader:
    """Iterates over (0, batch): a run on shards is one epoch, whatever its sources repeat.

    It goes on beyond `steps` as far as the mixture reaches, so that a run which passes over some
    data can take what comes after; `batches_in_epoch` says how many belong to the run. Iterating
    again goes on where the last one stopped.

    Attributes:
        steps: Optimizer steps of the run.
        max_steps: Steps that the mixture has rows for; None without end. Where the rows do not
            fill the last of them, rows of padding do.
        micro_batches: Batches of a step on this rank.
        schedule: Which row is of which source.
    """

    def __init__(
        self,
        sources: Mapping[str, TokenDocuments],
        mixture: MixtureConfig,
        config: RowConfig,
        *,
        seed: int,
        steps: int | None,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        """Begin before the first batch; nothing is read yet.

        Args:
            sources: The documents to learn from by the name of their source.
            mixture: How much of each is read.
            config: The rows of a step.
            seed: Chooses the order of rows and of documents.
            steps: Optimizer steps; None for all that the mixture has: by weights, without end.
            rank: Which of `size` processes this is.
            size: How many processes share each step.

        Raises:
            InputError: The mixture does not fit the sources; there is too little text for one row,
                or for so many steps; the rows of a step cannot be dealt out; no such rank.
        """
        if not 0 <= rank < size:
            raise InputError(f"rank {rank} of {size} processes")
        self.config, self.rank, self.size = config.settled(size, "cpu"), rank, size
        self.micro_batches = self.config.micro_batches(size)
        self._there = {name: documents.tokens for name, documents in sources.items()}
        self.schedule = Schedule(mixture, self._there, row_tokens=config.row_tokens, seed=seed)
        self._check_text(mixture)
        self._streams = self._opened(sources, seed)
        rows = self.schedule.rows_total
        self.max_steps = None if rows is None else -(-rows // config.step_rows)
        self.steps = self._asked(steps)
        self._epoch = self._batch = 0

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        while not self._epoch and (self._end is None or self._batch < self._end):
            batch = self._read(self._batch)
            self._batch += 1  # before it is handed out: the state is that after this batch
            yield 0, batch

    def batches_in_epoch(self, epoch: int) -> int:
        """Batches of the run on this rank; it has one epoch, the later ones are empty."""
        return 0 if epoch else self.steps * self.micro_batches

    def state_dict(self) -> dict[str, int]:
        """The place of the batch that comes next."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a place, however far, at once; epoch 1 is the end of the run.

        Raises:
            InputError: It is not what `state_dict` gives, or not a place of this loader.
        """
        if set(state) != {"epoch", "batch"} or any(type(n) is not int for n in state.values()):
            raise InputError(f"expected the state of a loader, found {dict(state)}")
        epoch, batch = state["epoch"], state["batch"]
        most = 0 if epoch else batch if self._end is None else self._end
        if epoch < 0 or not 0 <= batch <= most:
            raise InputError(
                f"there is no batch {batch} in epoch {epoch}",
                fix="the shards, the mixture or the rows of a step have changed: start anew",
            )
        self._epoch, self._batch = epoch, batch

    def consumed(self, steps: int) -> dict[str, Consumed]:
        """What the first `steps` steps read of each source, over all ranks.

        Raises:
            InputError: The mixture has no rows for so many.
        """
        rows = steps * self.config.step_rows
        if self.max_steps is not None and 0 <= steps <= self.max_steps:
            rows = min(rows, self.schedule.rows_total or 0)  # the last step may have padding
        counts = self.schedule.counts(rows)
        read = self.schedule.tokens(counts)
        return {
            name: Consumed(rows=count, tokens=tokens, epochs=tokens / max(self._there[name], 1))
            for name, count, tokens in zip(self.schedule.names, counts, read, strict=True)
        }

    @property
    def _end(self) -> int | None:
        """Batches that the mixture has rows for."""
        return None if self.max_steps is None else self.max_steps * self.micro_batches

    def _read(self, number: int) -> Batch:
        """The batch of this rank at a place."""
        step, micro = divmod(number, self.micro_batches)
        # Turn by turn, so that a micro-batch is the same one on any number of ranks.
        place = micro * self.size + self.rank
        start = step * self.config.step_rows + place * self.config.rows_at_once
        stop = start + self.config.rows_at_once
        if self.schedule.rows_total is not None:
            start, stop = (min(row, self.schedule.rows_total) for row in (start, stop))
        sources, rows = self.schedule.draws(start, stop)
        drawn = zip(sources.tolist(), rows.tolist(), strict=True)
        return self._batch_of([self._streams[source].row(row) for source, row in drawn])

    def _batch_of(self, rows: Sequence[Row]) -> Batch:
        shape = (self.config.rows_at_once, self.config.row_tokens)
        ids, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORED, dtype=np.int64)
        numbers = np.full(shape, -1, dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place], targets[place] = row.ids, row.targets
            numbers[place] = row.document_numbers
        return row_batch(ids, targets, numbers, separate=self.config.separate_documents)

    # --- what is asked first ----------------------------------------------------------------------

    def _opened(self, sources: Mapping[str, TokenDocuments], seed: int) -> dict[int, SourceRows]:
        """The streams of the sources that are read, by their numbers."""
        return {
            number: SourceRows(
                sources[name],
                self.config.row_tokens,
                _seed_of(seed, name),
                separate=self.config.separate_documents,
                limit_tokens=self.schedule.limit(number),
            )
            for number, name in enumerate(self.schedule.names)
            if self.schedule.quotas[number]
        }

    def _check_text(self, mixture: MixtureConfig) -> None:
        """At least a row of each source by weights, a row of all together by epochs."""
        size = self.config.row_tokens
        for name in mixture.weights:
            if self._there[name] < size:
                raise InputError(
                    f"the source {name!r} has {self._there[name]} tokens to train on, too few for "
                    f"one row of {size}",
                    fix="give it more text, lower row_tokens, or leave it out of the mixture",
                )
        schedule = self.schedule
        if not mixture.weights and (read := sum(schedule.tokens(schedule.quotas))) < size:
            raise InputError(
                f"the sources have {read} tokens to train on, too few for one row of {size}",
                fix="give more text, or lower row_tokens",
            )

    def _asked(self, steps: int | None) -> int:
        if steps is None:
            return _ENDLESS_STEPS if self.max_steps is None else self.max_steps
        if steps < 1:
            raise InputError(f"a run takes at least one step, not {steps}")
        if self.max_steps is not None and steps > self.max_steps:
            raise InputError(
                f"the mixture has text for {self.max_steps} steps, and {steps} are asked for",
                fix="ask for fewer, raise the epochs, or give weights, which never end",
            )
        return steps


def _seed_of(seed: int, name: str) -> int:
    """Sources of one run are shuffled apart: the same documents in two come in two orders."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest())
