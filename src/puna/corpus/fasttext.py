"""A fastText classifier that remembers words: as its library says, several times faster.

What a text counts for is the mean over its words and their n-grams of characters. Words recur, so
the sum of each is kept; the sums are in float32 as the library's, in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from puna.corpus.fasttext_file import FastTextFile
from puna.errors import require

KEPT_WORDS = 1 << 17  # with 16 dimensions some 20 MB
_END, _LABEL = b"</s>", b"__label__"
_LEAST = 1e-5  # which the library adds before it takes a logarithm


class FastTextClassifier:
    """Labels texts."""

    def __init__(self, model: FastTextFile) -> None:
        """Take a model.

        Raises:
            MissingPackageError: numba is not installed.
        """
        require("numba", extra="corpus", purpose="telling languages")
        from puna.corpus import fasttext_kernels

        self._model, self._kernels = model, fasttext_kernels
        self._words = _Places()
        width = model.rows.shape[1]
        self._sums = np.zeros((1024, width), np.float32)
        self._counts = np.zeros(1024, np.int64)

    def best(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The likeliest label of each text, and its probability, 0 to 1.

        Args:
            texts: Each of one line; words are what spaces part.
        """
        if not texts:
            return []
        parted = [list(map(self._words.__getitem__, _words_of(text))) for text in texts]
        self._learn()
        places = np.fromiter(chain.from_iterable(parted), np.int64)
        starts = np.cumsum([0, *map(len, parted[:-1])])
        counts = np.add.reduceat(self._counts[places], starts)
        hidden = np.add.reduceat(self._sums[places], starts, axis=0)
        if len(self._words) > KEPT_WORDS:
            self._words.clear()
        return self._labels(hidden / np.maximum(counts, 1)[:, None].astype(np.float32))

    def _learn(self) -> None:
        """Compute what new words count for."""
        new, model = self._words.new, self._model
        if not new:
            return
        stop = len(self._words)
        self._grow(stop)
        sums, counts = (kept[stop - len(new) : stop] for kept in (self._sums, self._counts))
        sums[:], counts[:] = 0, 0
        framed = [b"" if word == _END else b"<" + word + b">" for word in new]
        data = np.frombuffer(b"".join(framed), np.uint8)
        ends = np.cumsum([len(word) for word in framed], dtype=np.int64)
        lengths = (model.shortest, model.longest)
        self._kernels.add_ngrams(data, ends, model.buckets, model.rows, lengths, sums, counts)
        for place, word in enumerate(new):
            row = model.words.get(word)
            if row is not None:
                sums[place] += model.rows[row]
                counts[place] += 1
        new.clear()

    def _grow(self, size: int) -> None:
        if size > len(self._sums):
            more = max(size, 2 * len(self._sums)) - len(self._sums)
            self._sums = np.concatenate([self._sums, np.zeros((more, self._sums.shape[1]), "f4")])
            self._counts = np.concatenate([self._counts, np.zeros(more, np.int64)])

    def _labels(self, hidden: np.ndarray) -> list[tuple[str, float]]:
        """By the tree over the labels: a label is as likely as the turns on the way to it."""
        model = self._model
        with np.errstate(over="ignore"):  # of a turn that is never taken
            turns = 1 / (1 + np.exp(-(hidden @ model.output.T), dtype=np.float32))  # to the right
        scores = np.log(turns + _LEAST) @ model.right.T + np.log(1 - turns + _LEAST) @ model.left.T
        best = scores.argmax(axis=1)
        sure = np.minimum(np.exp(scores[np.arange(len(best)), best]), 1)
        return [(model.labels[label], float(p)) for label, p in zip(best, sure, strict=True)]


class _Places(dict[bytes, int]):
    """Numbers words as they are first asked for, and notes the new ones."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[bytes] = []

    def __missing__(self, word: bytes) -> int:
        place = self[word] = len(self)
        self.new.append(word)
        return place


def _words_of(text: str) -> list[bytes]:
    """The words of a line as the library reads them, and the one that ends it."""
    data = text.encode("utf-8", "replace").replace(b"\0", b" ")
    words = data.split()
    if _END in data and _END in words:
        del words[words.index(_END) :]
    if _LABEL in data:
        words = [word for word in words if not word.startswith(_LABEL)]
    words.append(_END)
    return words
