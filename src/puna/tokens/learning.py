"""What training and extending a vocabulary share: the text that is read, and the learning itself.

Learning is the `tokenizers` library's: pairs of neighbours merge, most frequent first (Sennrich et
al. 2016, arXiv 1508.07909).
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from puna.errors import InputError
from puna.tokens.vocabulary import Merge

Progress = Callable[[str], None]

MAX_WORD_CHARS = 32  # of what is learnt from; no piece is longer
_CHUNK_CHARS = 2**16


def gathered(texts: Iterable[str], max_bytes: int) -> list[str]:
    """The texts up to `max_bytes` of UTF-8, the long ones cut into parts at the ends of lines.

    Nothing beyond is read, so the texts may be endless.

    Raises:
        InputError: There is no text at all, or something is none.
    """
    parts: list[str] = []
    room = max_bytes
    for number, text in enumerate(texts, 1):
        size = _size(text, number)
        if size > room:
            text = text.encode("utf-8")[:room].decode("utf-8", "ignore")
        parts.extend(_cut(text))
        room -= size
        if room <= 0:
            break
    if not parts:
        raise InputError("there is no text to learn a vocabulary from")
    return parts


def learn(
    words: pre_tokenizers.PreTokenizer,
    texts: Iterable[str],
    *,
    size: int,
    min_frequency: int,
    alphabet: Sequence[str],
    normalizer: Any = None,
) -> tuple[list[str], list[Merge]]:
    """Learn pieces from texts.

    Args:
        words: Cuts a text into words; no piece reaches over the edge of one.
        texts: What to learn from.
        size: Number of pieces, those of `alphabet` included.
        min_frequency: How often two pieces must stand side by side to become one.
        alphabet: The characters that pieces are made of. Others are passed over.
        normalizer: What is done to a text before it is cut.

    Returns:
        The pieces, those of the alphabet first, and the merges, each in the order that they were
        learnt.
    """
    backend = Backend(models.BPE())
    backend.pre_tokenizer = words
    if normalizer is not None:
        backend.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        initial_alphabet=list(alphabet),
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    state = json.loads(backend.model.__getstate__())
    vocabulary: dict[str, int] = state["vocab"]
    return sorted(vocabulary, key=vocabulary.__getitem__), merges_of(state)


def merges_of(model: dict[str, Any]) -> list[Merge]:
    """The merges of a BPE model's state, which older versions of the library wrote as one text."""
    merges: list[Merge] = []
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        merges.append((left, right))
    return merges


def covering(counts: Counter[str], coverage: float, *, min_frequency: int) -> list[str]:
    """The most frequent characters that make up the share `coverage` of a text, or nearly so.

    Those that occur fewer than `min_frequency` times are left out.
    """
    wanted = coverage * counts.total()
    found: list[str] = []
    total = 0
    for char, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if total >= wanted or count < min_frequency:
            break
        found.append(char)
        total += count
    return found


def tell(sentence: str, progress: Progress | None) -> None:
    """Say it to who listens, or as a warning where nobody does."""
    if progress is None:
        warnings.warn(sentence, stacklevel=3)
    else:
        progress(sentence)


def _size(text: str, number: int) -> int:
    """Bytes of a text in UTF-8."""
    item: object = text  # what was passed may not be what was asked for
    if not isinstance(item, str):
        raise InputError(f"text {number}: expected a text, found {type(item).__name__}")
    if text.isascii():
        return len(text)
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(
            f"text {number} is not valid Unicode: a lone surrogate at character {error.start}",
            fix="read the text with errors='replace', or find out where it was cut",
        ) from error


def _cut(text: str) -> Iterator[str]:
    """Parts of a bounded length: the library keeps many bytes for each character of a text."""
    start = 0
    while start < len(text):
        stop = start + _CHUNK_CHARS
        if stop < len(text):
            stop = text.rfind("\n", start, stop) + 1 or stop
        yield text[start:stop]
        start = stop
