"""Documents of tokens in memory, as `puna.tokens.shards.Documents` are on disk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STRIDE = 1000  # token p of document d is d * STRIDE + p: each tells where it is from


class FakeDocuments:
    """Documents of given tokens; what is read of them is noted."""

    def __init__(self, documents: Sequence[Sequence[int]], bytes_per_token: int = 3) -> None:
        self._documents = [np.array(ids, dtype=np.uint32) for ids in documents]
        self.lengths = np.array([len(ids) for ids in documents], dtype=np.int64)
        self.text_bytes = self.lengths * bytes_per_token
        self.count, self.tokens = len(documents), int(self.lengths.sum())
        self.reads: list[tuple[int, int, int]] = []

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        assert 0 <= start < stop <= self.lengths[document]
        self.reads.append((document, start, stop))
        return self._documents[document][start:stop]

    def id(self, document: int) -> bytes:
        return document.to_bytes(16, "big")


def told(lengths: Sequence[int]) -> FakeDocuments:
    """Documents of such lengths whose tokens tell where they are from."""
    return FakeDocuments([range(d * STRIDE, d * STRIDE + n) for d, n in enumerate(lengths)])
