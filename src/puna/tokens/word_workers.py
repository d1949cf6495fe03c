"""Word-by-word encoding in processes: what the interpreter does for each word is most of it.

A worker begins with the words that are known; it dies with the process that began it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from puna.errors import InputError
from puna.tokens.words import WordEncoder


class WordWorkers:
    """Processes that encode texts as `WordEncoder` does. Made by `word_workers`."""

    def __init__(self, pool: ProcessPoolExecutor, file: Path, typecode: str) -> None:
        self._pool, self._file, self._typecode = pool, file, typecode

    def submit(self, texts: Sequence[str]) -> Future[list[array[int]]]:
        """Begin to encode texts; `result_of` waits for what comes of it."""
        return self._pool.submit(_encode, str(self._file), self._typecode, list(texts))


def result_of(future: Future[list[array[int]]]) -> list[array[int]]:
    """The ids of the texts.

    Raises:
        InputError: A worker died.
    """
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process that tokenizes has died, perhaps for want of memory",
            fix="the same command goes on from what is done; threads: 1 takes less memory",
        ) from error


@contextmanager
def word_workers(encoder: WordEncoder, processes: int, typecode: str) -> Iterator[WordWorkers]:
    """Processes that encode like `encoder`; they end with the context, or with this process.

    Args:
        encoder: Whose words they begin with.
        processes: How many.
        typecode: Of the arrays of ids, "H" or "I".
    """
    with TemporaryDirectory(prefix="puna-words-") as folder:
        file = Path(folder) / "words.json"
        file.write_text(encoder.to_json(), encoding="utf-8")
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin)
        try:
            yield WordWorkers(pool, file, typecode)
        finally:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """What a worker does first: leave Ctrl-C to its parent, and watch that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a worker"
    parent.join()
    os._exit(1)


def _encode(file: str, typecode: str, texts: Sequence[str]) -> list[array[int]]:
    return [array(typecode, ids) for ids in _opened(file).encode(texts)]


@cache
def _opened(file: str) -> WordEncoder:
    return WordEncoder.from_json(Path(file).read_text(encoding="utf-8"))
