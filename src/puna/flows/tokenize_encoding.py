"""Encoding in parallel: batches of documents on threads, and the results in their order.

The library lets go of the interpreter while it encodes. Each thread has a batch of its own and the
library's own pool rests: no thread waits for the longest document of a batch that it shares, and as
many are at work as were asked for. What a batch comes to does not depend on the threads.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from puna.flows.tokenize_data import Document
from puna.tokens import Tokenizer
from puna.tokens.shard_file import Split
from puna.tokens.shard_writer import token_array

BATCH_CHARACTERS = 1 << 18  # of text in a batch, but for a longer document
BATCH_DOCUMENTS = 1024
AHEAD = 2  # batches in the making for each thread
_SWITCH = "TOKENIZERS_PARALLELISM"


class Waiting(NamedTuple):
    """A document to be encoded, and where it goes."""

    split: Split
    document: Document
    root: bytes
    measured: bool  # whether fertility counts it


class Encoded(NamedTuple):
    """The same as tokens, with those that begin and end it."""

    waiting: Waiting
    tokens: array[int]
    text_bytes: int


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def encode_all(
    waiting: Iterable[Waiting], tokenizer: Tokenizer, *, threads: int
) -> Generator[Encoded]:
    """Encode documents; they come out in the order in which they went in.

    The ids are those of `Tokenizer.encode(text, eos=True)`. To be closed (`contextlib.closing`) by
    whoever stops before the end.

    Args:
        waiting: The documents; not many more than the threads need are taken at once.
        tokenizer: What encodes them; it has a token that ends a text.
        threads: How many batches are worked on at a time.
    """
    with _library_threads_resting(), ThreadPoolExecutor(threads) as pool:
        running: deque[Future[list[Encoded]]] = deque()
        try:
            for batch in _batches(waiting):
                running.append(pool.submit(_encode, tokenizer, batch))
                if len(running) >= AHEAD * threads:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _encode(tokenizer: Tokenizer, batch: list[Waiting]) -> list[Encoded]:
    ids = tokenizer.encode_batch([one.document.text for one in batch], eos=True)
    found = []
    for one, tokens in zip(batch, ids, strict=True):
        narrow = token_array(tokenizer.vocab_size)
        narrow.fromlist(tokens)
        text = one.document.text
        size = len(text) if text.isascii() else len(text.encode())
        found.append(Encoded(one, narrow, size))
    return found


def _batches(waiting: Iterable[Waiting]) -> Iterator[list[Waiting]]:
    batch: list[Waiting] = []
    characters = 0
    for one in waiting:
        batch.append(one)
        characters += len(one.document.text)
        if characters >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@contextmanager
def _library_threads_resting() -> Iterator[None]:
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "false"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SWITCH, None)
        else:
            os.environ[_SWITCH] = before
