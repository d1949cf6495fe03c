"""The step `statistics`: all figures that quality rules need, in one native pass over the text.

The figures stay in `stats`, so that filtering again with other thresholds does not read the text
again. A step that changes texts leaves them as they were: put `statistics` once more after it
where a later rule is to judge the new text, as the FineWeb rules do after C4's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from puna.corpus.characters import Splitter, character_table
from puna.corpus.figures import FIGURES, PHRASES
from puna.corpus.schema import alive, with_errors, with_stats
from puna.corpus.step import Apply
from puna.errors import InputError, require

_ENGLISH = ("the", "be", "to", "of", "and", "that", "have", "with")
_CHINESE = "的 了 是 在 和 不 有 也 就 与 與 为 為 之 以 及"
_JAPANESE = "の に は を た が で て と し れ さ も な い"
_LEAVE, _UNKNOWN = -2, -1
_RARE = "kvm"  # each of C4's phrases has one of these letters


def _stop_words() -> dict[str, tuple[str, ...]]:
    return {"en": _ENGLISH, "zh": tuple(_CHINESE.split()), "ja": tuple(_JAPANESE.split())}


@dataclass(frozen=True)
class Statistics:
    """Figures of every text, by the names in `puna.corpus.figures.MEANINGS`."""

    step: Literal["statistics"] = "statistics"
    """The name of the step."""
    splitter: Splitter = "puna"
    r"""What a word is: `puna` knows Chinese and Japanese; `datatrove` is `\w+|[^\w\s]`, and the
    filters then decide as datatrove's do with that splitter."""
    short_line_characters: int = 30
    """Up to this a line is short, in characters; with `puna` a Han or Kana one counts as two."""
    stop_words: Mapping[str, Sequence[str]] = field(default_factory=_stop_words)
    """Words of which a text in that language has some, by code of ISO 639-1; case matters."""
    default_language: str = "en"
    """Whose stop words are counted where a document's language is not known; with `datatrove`, in
    every document."""
    max_bytes: int = 4 << 20
    """Of a longer text only so much is looked at, in bytes: it bounds memory to some 60 times
    that, if all of it is symbols."""

    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise InputError(f"max_bytes: expected 1 or more, found {self.max_bytes}")
        if self.default_language not in self.stop_words:
            raise InputError(
                f"default_language: there are no stop words for {self.default_language!r}",
                fix=f"one of {', '.join(self.stop_words)}, or add the words to `stop_words`",
            )

    def open(self) -> Apply:
        """The native pass; it is compiled once for a machine.

        Raises:
            MissingPackageError: numba is not installed.
        """
        require("numba", extra="corpus", purpose="computing figures of texts")
        return _Pass(self)


class _Pass:
    """The tables that the kernel needs, made once in a worker."""

    def __init__(self, config: Statistics) -> None:
        from puna.corpus.text_kernels import text_figures

        self._kernel = text_figures
        self._config = config
        table = character_table(config.splitter)
        self._table = (table.starts, table.classes)
        self._languages = {language: row for row, language in enumerate(config.stop_words)}
        self._stops = _stop_tables(list(config.stop_words.values()))
        self._phrases = phrase_tables()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        offsets, data = text_buffers(batch)
        out = np.empty((batch.num_rows, len(FIGURES)), np.float32)
        of_words = self._config.splitter == "puna"
        limits = (self._config.short_line_characters, self._config.max_bytes, of_words)
        languages = self._languages_of(batch)
        self._kernel(offsets, data, languages, self._table, self._stops, self._phrases, limits, out)
        failed = np.flatnonzero((languages != _LEAVE) & np.isnan(out[:, 0]))
        stated = with_stats(batch, {name: out[:, at] for at, name in enumerate(FIGURES)})
        return with_errors(stated, {int(row): "statistics.not_utf8" for row in failed})

    def _languages_of(self, batch: pa.RecordBatch) -> np.ndarray:
        """Which stop words each row is measured by."""
        default = self._languages[self._config.default_language]
        found = np.full(batch.num_rows, default, np.int64)
        if self._config.splitter == "puna":
            for row, language in enumerate(batch.column("language").to_pylist()):
                if language is not None:
                    found[row] = self._languages.get(language, _UNKNOWN)
        found[~alive(batch)] = _LEAVE
        return found


def text_buffers(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """The texts of a batch as they lie in memory: offsets, int64 [rows + 1], and UTF-8 bytes."""
    texts = batch.column("text")
    _, offsets, data = texts.buffers()
    found = np.zeros(len(texts) + 1, np.int64)
    if len(texts) and offsets is not None:
        found[:] = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(found)]
    content: Any = b"" if data is None else data
    values = np.frombuffer(content, np.uint8)
    values.flags.writeable = False  # of one type for the kernel, whoever made the buffer
    return found, values


def phrase_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What C4 looks for, as `puna.corpus.parsing_kernels.phrases_in` wants it."""
    letters = np.zeros((len(PHRASES), max(map(len, PHRASES)) + 1), np.uint8)
    rare, places = np.zeros(128, np.uint8), np.zeros(len(PHRASES), np.int64)
    for number, phrase in enumerate(PHRASES):
        letters[number, : len(phrase)] = list(phrase.encode())
        places[number] = next(at for at, letter in enumerate(phrase) if letter in _RARE)
        letter = phrase[places[number]]
        for either in (letter, letter.upper()):
            rare[ord(either)] |= 1 << number
    return letters, places, rare


def _stop_tables(lists: Sequence[Sequence[str]]) -> np.ndarray:
    """A table of hashes for each list: uint64 [lists, places], a power of two of places."""
    from puna.corpus.gram_kernels import add_word

    places = 16
    while places < 32 * max(map(len, lists)):  # most tokens are none, and are seen to be at once
        places *= 2
    tables = np.zeros((len(lists), places), np.uint64)
    for table, words in zip(tables, lists, strict=True):
        for word in words:
            add_word(table, np.array([ord(letter) for letter in word], np.int32))
    return tables
