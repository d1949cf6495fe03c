"""Examples into batches: by a budget of tokens, in buckets of equal length, packed where asked.

A batch says what attends to what and what is to be predicted; packed, bucketed and one by one give
the same loss and the same gradient.

Shapes: B rows, T tokens of the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from puna.errors import InputError
from puna.tokens.examples import TokenExample

IGNORED = -100  # a position from which nothing is to be predicted
_POOL_BATCHES = 50  # examples are sorted by length among so many batches
_OPEN_ROWS = 64  # how many rows are tried for an example before the fullest is closed


@dataclass(frozen=True)
class Batch:
    """Some rows of tokens, padded on the right."""

    ids: Tensor  # int64 [B, T]
    targets: Tensor
    """int64 [B, T]: the token to predict at each position, -100 for none. It is the next token of
    the same example, never of another one in the row."""
    valid: Tensor | None
    """bool [B, T]: False is padding. None: there is none."""
    document_ids: Tensor | None
    """int64 [B, T]: the number of the example within its row, -1 for padding. None: one per row."""
    members: tuple[tuple[int, ...], ...]
    """Of each row, the examples in it in their order."""
    tokens: int
    """Tokens that are no padding."""
    trained: int
    """Targets that are not -100."""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        valid, documents = self.valid, self.document_ids
        return replace(
            self,
            ids=self.ids.to(device),
            targets=self.targets.to(device),
            valid=None if valid is None else valid.to(device),
            document_ids=None if documents is None else documents.to(device),
        )


@dataclass(frozen=True)
class BatchConfig:
    """How large a batch is."""

    batch_tokens: int | None = 4096
    """Tokens of a batch, padding included; a single longer example is a batch of its own."""
    batch_examples: int | None = None
    """Most examples of a batch."""
    packing: bool = False
    """Put several examples into one row, without attention between them."""
    row_tokens: int = 2048
    """Tokens of a packed row."""
    bucketing: bool = True
    """Put examples of similar length into one batch, which keeps padding small."""

    def __post_init__(self) -> None:
        if self.batch_tokens is None and self.batch_examples is None:
            raise InputError("a batch needs a bound", fix="set batch_tokens or batch_examples")
        for name in ("batch_tokens", "batch_examples", "row_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class _Row:
    """One row of a batch to be."""

    members: tuple[int, ...]
    tokens: int


def plan(
    lengths: Sequence[int], config: BatchConfig, *, seed: int, epoch: int, shuffle: bool = True
) -> list[list[list[int]]]:
    """Which examples go together: batches of rows of indices, each index exactly once.

    The same arguments give the same plan, on any machine.

    Args:
        lengths: Tokens of each example.
        config: The bounds.
        seed: Chooses the order.
        epoch: Chooses another one for each epoch.
        shuffle: Without it, the order is that of the examples; with buckets, the longest first.
    """
    order = _permutation(len(lengths), seed, epoch, 0) if shuffle else list(range(len(lengths)))
    rows = (
        _packed(order, lengths, config)
        if config.packing
        else [_Row((index,), lengths[index]) for index in order]
    )
    if config.bucketing:
        rows = _bucketed(rows, config) if shuffle else sorted(rows, key=lambda row: -row.tokens)
    batches = _cut(rows, config)
    if shuffle and config.bucketing:
        batches = [batches[i] for i in _permutation(len(batches), seed, epoch, 1)]
    return [[list(row.members) for row in batch] for batch in batches]


def collate(
    examples: Sequence[TokenExample], rows: Sequence[Sequence[int]], *, pad_id: int
) -> Batch:
    """One batch of a plan as tensors.

    Args:
        examples: All examples.
        rows: Of each row, the examples in it.
        pad_id: Any token; nothing attends to padding.
    """
    widths = [sum(len(examples[index]) for index in row) for row in rows]
    shape = (len(rows), max(widths))
    ids = np.full(shape, pad_id, dtype=np.int64)
    targets = np.full(shape, IGNORED, dtype=np.int64)
    documents = np.full(shape, -1, dtype=np.int64)
    for number, row in enumerate(rows):
        start = 0
        for place, index in enumerate(row):
            example = examples[index]
            stop = start + len(example)
            ids[number, start:stop] = example.ids
            documents[number, start:stop] = place
            wanted = np.where(example.trained[1:], example.ids[1:], IGNORED)
            targets[number, start : stop - 1] = wanted
            start = stop
    padded = min(widths) < shape[1]
    packed = any(len(row) > 1 for row in rows)
    return Batch(
        ids=torch.from_numpy(ids),
        targets=torch.from_numpy(targets),
        valid=torch.from_numpy(documents >= 0) if padded else None,
        document_ids=torch.from_numpy(documents) if packed else None,
        members=tuple(tuple(row) for row in rows),
        tokens=sum(widths),
        trained=int((targets != IGNORED).sum()),
    )


def _permutation(count: int, seed: int, epoch: int, use: int) -> list[int]:
    """A random order. Raw bits of the generator, which numpy promises never to change."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch, use])).random_raw(count)
    order: list[int] = np.argsort(np.asarray(bits, dtype=np.uint64), kind="stable").tolist()
    return order


def _packed(order: Sequence[int], lengths: Sequence[int], config: BatchConfig) -> list[_Row]:
    """Each example into the first of some open rows that has room for it."""
    room = min(config.row_tokens, config.batch_tokens or config.row_tokens)
    most = config.batch_examples or len(lengths)
    closed: list[list[int]] = []
    opened: list[list[int]] = []
    used: list[int] = []
    for index in order:
        for place, row in enumerate(opened):
            if used[place] + lengths[index] <= room and len(row) < most:
                row.append(index)
                used[place] += lengths[index]
                break
        else:
            if len(opened) == _OPEN_ROWS:
                fullest = used.index(max(used))
                closed.append(opened.pop(fullest))
                used.pop(fullest)
            opened.append([index])
            used.append(lengths[index])
    return [_Row(tuple(row), sum(lengths[i] for i in row)) for row in [*closed, *opened]]


def _bucketed(rows: Sequence[_Row], config: BatchConfig) -> list[_Row]:
    """Rows in pools of some batches' worth, each pool sorted by length."""
    pools: list[list[_Row]] = [[]]
    tokens = examples = 0
    for row in rows:
        pools[-1].append(row)
        tokens, examples = tokens + row.tokens, examples + len(row.members)
        if tokens >= _POOL_BATCHES * (config.batch_tokens or tokens + 1) or (
            examples >= _POOL_BATCHES * (config.batch_examples or examples + 1)
        ):
            pools.append([])
            tokens = examples = 0
    # Up in one pool and down in the next: a batch that spans two has rows of similar length.
    return [
        row
        for number, pool in enumerate(pools)
        for row in sorted(pool, key=lambda row: row.tokens, reverse=number % 2 == 1)
    ]


def _cut(rows: Sequence[_Row], config: BatchConfig) -> list[list[_Row]]:
    """Rows in their order, as many to a batch as its bounds allow."""
    batches: list[list[_Row]] = []
    width = examples = 0
    for row in rows:
        wider, more = max(width, row.tokens), examples + len(row.members)
        tokens = wider * (len(batches[-1]) + 1) if batches else 0
        if (
            not batches
            or tokens > (config.batch_tokens or tokens)
            or more > (config.batch_examples or more)
        ):
            batches.append([])
            wider, more = row.tokens, len(row.members)
        batches[-1].append(row)
        width, examples = wider, more
    return batches
