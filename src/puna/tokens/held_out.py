"""Held-out documents in rows, to judge a model on while it is pretrained.

Shapes: B rows of a batch, T tokens of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from puna.errors import InputError
from puna.tokens.batches import Batch
from puna.tokens.row_batches import RowConfig, row_batch
from puna.tokens.shard_rows import Ints, TokenDocuments, next_tokens, shuffled


class HeldOut(NamedTuple):
    """Held-out documents to judge a model on."""

    batches: list[Batch]
    """Their rows in order; the last batch may have fewer."""
    text_bytes: int
    """Bytes of text that the targets stand for: bits per byte are the sum of cross-entropies over
    all batches, in nats, over ln 2 and this."""


def held_out_batches(
    documents: TokenDocuments,
    config: RowConfig,
    *,
    max_tokens: int | None,
    bos_id: int | None = None,
    eos_id: int | None = None,
) -> HeldOut:
    """Whole documents one after another, cut at the ends of rows; the same ones in every run.

    Every token but the first of its document is a target once, also one that begins a row. None
    sees or predicts another document, however the model was trained. Where a document's first
    token is text, it is not predicted, and the bytes are those of the other tokens by their share.

    Args:
        documents: Of the split held out.
        config: How long a row is, and how many make a batch.
        max_tokens: Documents are taken in a fixed random order, those that fit into what is left
            of this; where none does, the first one is cut. None for all.
        bos_id: What documents begin with in this vocabulary; it stands for no text.
        eos_id: What they end with; it is predicted, and stands for no text.

    Raises:
        InputError: `max_tokens` is not positive, or a document cannot be read.
    """
    chosen = _chosen(np.asarray(documents.lengths, dtype=np.int64), max_tokens)
    if not chosen:
        return HeldOut([], 0)
    text_bytes = 0.0
    pieces: list[Ints] = []
    for document, taken in chosen:
        whole = documents.read(document, 0, int(documents.lengths[document])).astype(np.int64)
        text_bytes += _bytes_of(whole, taken, int(documents.text_bytes[document]), bos_id, eos_id)
        pieces.append(whole[:taken])
    size = config.row_tokens
    count = sum(map(len, pieces))
    padding = -count % size + 1  # and what the last token of all would predict
    ids = np.concatenate([*pieces, np.zeros(padding, dtype=np.int64)])
    numbers: Ints = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    numbers = np.concatenate([numbers, np.full(padding, -1)])
    targets = next_tokens(ids, numbers, separate=True).reshape(-1, size)
    ids, numbers = ids[:-1].reshape(-1, size), numbers[:-1].reshape(-1, size)
    numbers = np.where(numbers < 0, -1, numbers - numbers[:, :1])  # from 0 in each row
    batches = []
    for start in range(0, len(ids), config.rows_at_once):
        rows = slice(start, start + config.rows_at_once)
        batches.append(row_batch(ids[rows], targets[rows], numbers[rows], separate=True))
    return HeldOut(batches, round(text_bytes))


def _chosen(lengths: Ints, max_tokens: int | None) -> list[tuple[int, int]]:
    """The documents to take, in their own order, and how many tokens of each."""
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, not {max_tokens}")
    there = [(number, int(length)) for number, length in enumerate(lengths) if length]
    if max_tokens is None or not there:
        return there
    order = [there[place] for place in shuffled(len(there), 0, 0)]
    left = max_tokens
    fit: list[tuple[int, int]] = []
    for number, length in order:
        if length <= left:
            fit.append((number, length))
            left -= length
    return sorted(fit) or [(order[0][0], max_tokens)]


def _bytes_of(
    ids: Ints, taken: int, text_bytes: int, bos_id: int | None, eos_id: int | None
) -> float:
    """The bytes that the targets among the first `taken` tokens of a document stand for."""
    begins, ends = ids[0] == bos_id, len(ids) > 1 and ids[-1] == eos_id
    text = len(ids) - int(begins) - int(ends)
    predicted = taken - 1 - int(ends and taken == len(ids))
    return text_bytes * predicted / text if text else 0.0
