"""Encoding in parallel: batches of documents on threads or processes, results in their order.

The library lets go of the interpreter while it encodes. Each thread has a batch of its own and the
library's own pool rests: no thread waits for the longest document of a batch that it shares, and as
many are at work as were asked for. Where a vocabulary cuts text into words, they are remembered,
which the interpreter has most of the work with: after the first batches processes take over. What a
batch comes to does not depend on any of this.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import NamedTuple

from puna.flows.tokenize_data import Document
from puna.tokens import Tokenizer
from puna.tokens.shard_file import Split
from puna.tokens.shard_writer import token_array
from puna.tokens.word_workers import result_of, word_workers
from puna.tokens.words import WordEncoder

BATCH_CHARACTERS = 1 << 18  # of text in a batch, but for a longer document
BATCH_DOCUMENTS = 1024
THREADED_BATCHES = 8  # before processes take over, which cost a second to begin
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
    batches = _batches(waiting)
    with _library_threads_resting():
        words = tokenizer.words if threads > 1 else None
        yield from _on_threads(
            batches, tokenizer, threads, most=THREADED_BATCHES if words else None
        )
        if words is not None and (first := next(batches, None)) is not None:
            yield from _in_processes(chain([first], batches), tokenizer, words, threads)


def _on_threads(
    batches: Iterator[list[Waiting]], tokenizer: Tokenizer, threads: int, *, most: int | None
) -> Iterator[Encoded]:
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[list[Encoded]]] = deque()
        try:
            for batch in islice(batches, most):
                running.append(pool.submit(_encode, tokenizer, batch))
                if len(running) >= AHEAD * threads:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _in_processes(
    batches: Iterable[list[Waiting]], tokenizer: Tokenizer, words: WordEncoder, processes: int
) -> Iterator[Encoded]:
    typecode = token_array(tokenizer.vocab_size).typecode
    with word_workers(words, processes, typecode) as workers:
        running: deque[tuple[list[Waiting], Future[list[array[int]]]]] = deque()
        for batch in batches:
            running.append((batch, workers.submit([one.document.text for one in batch])))
            if len(running) >= AHEAD * processes:
                done, future = running.popleft()
                yield from _framed(tokenizer, done, result_of(future))
        while running:
            done, future = running.popleft()
            yield from _framed(tokenizer, done, result_of(future))


def _encode(tokenizer: Tokenizer, batch: list[Waiting]) -> list[Encoded]:
    ids = tokenizer.encode_documents([one.document.text for one in batch])
    found = []
    for one, tokens in zip(batch, ids, strict=True):
        narrow = token_array(tokenizer.vocab_size)
        narrow.fromlist(tokens)
        found.append(Encoded(one, narrow, _bytes_of(one)))
    return found


def _framed(
    tokenizer: Tokenizer, batch: list[Waiting], ids: Sequence[array[int]]
) -> Iterator[Encoded]:
    before, after = tokenizer.document_frame()
    for one, tokens in zip(batch, ids, strict=True):
        whole = token_array(tokenizer.vocab_size)
        whole.fromlist(before)
        whole += tokens
        whole.fromlist(after)
        yield Encoded(one, whole, _bytes_of(one))


def _bytes_of(one: Waiting) -> int:
    text = one.document.text
    return len(text) if text.isascii() else len(text.encode())


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
