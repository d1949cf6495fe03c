"""The documents of one source as an endless stream of rows of tokens.

The stream is one epoch after another, each a permutation of the documents of its own; row r is its
r-th stretch of `row_tokens` tokens. Any row is found at once: nothing has to be read before it.

Shapes: D documents, T tokens of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from puna.errors import InputError
from puna.tokens.batches import IGNORED

Ints = npt.NDArray[np.int64]


class TokenDocuments(Protocol):
    """Documents of tokens, read piece by piece: `puna.tokens.shards.Documents`."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def tokens(self) -> int:
        """Tokens of all of them."""

    @property
    def lengths(self) -> Ints:
        """int64 [D]: tokens of each."""

    @property
    def text_bytes(self) -> Ints:
        """int64 [D]: bytes of the text of each in UTF-8."""

    def read(self, document: int, start: int, stop: int) -> npt.NDArray[Any]:
        """The ids of the tokens from `start` up to `stop` of a document."""


@dataclass(frozen=True)
class Row:
    """A stretch of the stream."""

    ids: Ints
    """[T]: tokens; 0 where the stream has ended."""
    targets: Ints
    """[T]: the token that follows, -100 where none is to be predicted."""
    document_numbers: Ints
    """[T]: which document of the row a token is of, from 0; -1 where the stream has ended."""
    documents: tuple[int, ...]
    """The documents of the row in their order, by their numbers in the source; a short source may
    have one of them twice."""


class SourceRows:
    """The rows of one source."""

    def __init__(
        self,
        documents: TokenDocuments,
        row_tokens: int,
        seed: int,
        *,
        separate: bool = True,
        limit_tokens: int | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            documents: Of the source.
            row_tokens: T.
            seed: Chooses the order of the documents, another one in each epoch.
            separate: Predict nothing across the end of a document; otherwise the stream is one
                text, and the last token of a document predicts the first one of the next.
            limit_tokens: Where the stream ends; None for never.

        Raises:
            InputError: There are no tokens.
        """
        self.documents, self.row_tokens, self.seed = documents, row_tokens, seed
        self.separate, self.limit_tokens = separate, limit_tokens
        self._lengths = np.asarray(documents.lengths, dtype=np.int64)
        self.tokens = int(self._lengths.sum())
        if not self.tokens:
            raise InputError("there are no documents to make rows of")
        self._epochs: dict[int, tuple[Ints, Ints]] = {}

    def row(self, number: int) -> Row:
        """A row of the stream, by its number from 0.

        Raises:
            InputError: The stream ends before it, or a document cannot be read.
        """
        size = self.row_tokens
        start = number * size
        stop = start + size + 1  # with the token that the last one predicts
        if self.limit_tokens is not None:
            stop = min(stop, self.limit_tokens)
        if not 0 <= start < stop:
            end = "" if self.limit_tokens is None else f" in a stream of {self.limit_tokens} tokens"
            raise InputError(f"there is no row {number}{end}")
        ids = np.zeros(size + 1, dtype=np.int64)
        numbers = np.full(size + 1, -1, dtype=np.int64)
        documents = self._fill(ids, numbers, start, stop)
        return Row(
            ids=ids[:-1],
            targets=next_tokens(ids, numbers, separate=self.separate),
            document_numbers=numbers[:-1],
            documents=tuple(documents[: int(numbers[:-1].max()) + 1]),
        )

    def _fill(self, ids: Ints, numbers: Ints, start: int, stop: int) -> list[int]:
        """Read the stream from `start` up to `stop`; the documents that were met."""
        met: list[int] = []
        at = start
        while at < stop:
            epoch, offset = divmod(at, self.tokens)
            order, ends = self._epoch(epoch)
            place = int(np.searchsorted(ends, offset, side="right"))
            document, end = int(order[place]), int(ends[place])
            begin = offset - (end - int(self._lengths[document]))
            take = min(end - offset, stop - at)
            piece = slice(at - start, at - start + take)
            ids[piece] = self.documents.read(document, begin, begin + take)
            numbers[piece] = len(met)
            met.append(document)
            at += take
        return met

    def _epoch(self, epoch: int) -> tuple[Ints, Ints]:
        """The order of an epoch, and where in it each document ends; the latest two are kept."""
        if epoch not in self._epochs:
            order = shuffled(len(self._lengths), self.seed, epoch)
            latest = list(self._epochs.items())[-1:]
            self._epochs = {**dict(latest), epoch: (order, np.cumsum(self._lengths[order]))}
        return self._epochs[epoch]


def shuffled(count: int, seed: int, epoch: int) -> Ints:
    """A random order of `count` things, the same on any machine: raw bits of the generator."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(count)
    return np.argsort(np.asarray(bits, dtype=np.uint64), kind="stable").astype(np.int64)


def next_tokens(ids: Ints, numbers: Ints, *, separate: bool) -> Ints:
    """What each token but the last one predicts.

    Args:
        ids: [T + 1] tokens.
        numbers: [T + 1]: the document of each, -1 for none.
        separate: Predict nothing across the end of a document.

    Returns:
        [T]: the next token, -100 for none.
    """
    follows = numbers[1:] >= 0
    if separate:
        follows &= numbers[1:] == numbers[:-1]
    return np.where(follows, ids[1:], IGNORED)
