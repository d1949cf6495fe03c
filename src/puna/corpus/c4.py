"""The step `c4`: keeps the lines of a text that look like sentences, and drops texts without.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2, in the form that
datatrove gives them, without the list of bad words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from puna.corpus.characters import Splitter, character_table
from puna.corpus.rules import check_languages, limits_of
from puna.corpus.schema import alive, with_drops, with_errors, with_stats, with_texts
from puna.corpus.statistics import phrase_tables, text_buffers
from puna.corpus.step import Apply
from puna.errors import require

_THRESHOLDS = ("min_words_per_line", "max_word_characters", "min_sentences")


def _per_language() -> dict[str, dict[str, float | None]]:
    # A word is one character there, some 0.6 of an English one.
    return {"zh": {"min_words_per_line": 5}, "ja": {"min_words_per_line": 5}}


@dataclass(frozen=True)
class C4:
    """Drops lines, and the texts that have too few sentences left; null switches a rule off."""

    step: Literal["c4"] = "c4"
    """The name of the step."""
    splitter: Splitter = "puna"
    """`puna`: words as `statistics` has them, and lines may end with any script's marks and
    quotes; `datatrove`: words are what stands between spaces, and lines end with . ? ! " or '."""
    min_words_per_line: float | None = 3
    """Words; lines with fewer are dropped."""
    max_word_characters: float | None = 1000
    """Characters; lines with a longer word are dropped."""
    min_sentences: float | None = 5
    """Sentences in the lines that are left; texts with fewer are dropped."""
    require_line_end: bool = True
    """Whether lines without the mark of a sentence or a quote at their end are dropped."""
    remove_citations: bool = True
    """Whether marks like [1], [edit] and [citation needed] are taken out."""
    drop_javascript_lines: bool = True
    """Whether lines that name JavaScript are dropped."""
    drop_policy_lines: bool = True
    """Whether lines about cookies, privacy and terms of use are dropped."""
    drop_lorem_ipsum: bool = True
    """Whether texts are dropped that have lorem ipsum in a line that would be kept."""
    drop_curly_bracket: bool = True
    """Whether texts are dropped that have a { in a line that would be kept."""
    per_language: Mapping[str, Mapping[str, float | None]] = field(default_factory=_per_language)
    """Thresholds that differ by language; `{}` for the published ones in every language."""

    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_languages(self, _THRESHOLDS)

    def open(self) -> Apply:
        """The native pass; it is compiled once for a machine.

        Raises:
            MissingPackageError: numba is not installed.
        """
        require("numba", extra="corpus", purpose="the line rules of C4")
        return _Pass(self)


class _Pass:
    """The tables that the kernel needs, made once in a worker."""

    def __init__(self, config: C4) -> None:
        from puna.corpus import c4_kernels

        self._kernels, self._config = c4_kernels, config
        table = character_table(config.splitter)
        self._table = (table.starts, table.classes)
        self._phrases = phrase_tables()
        self._rules = (
            c4_kernels.LINE_ENDS * config.require_line_end
            | c4_kernels.JAVASCRIPT * config.drop_javascript_lines
            | c4_kernels.LOREM_IPSUM * config.drop_lorem_ipsum
            | c4_kernels.CURLY * config.drop_curly_bracket
            | c4_kernels.POLICY * config.drop_policy_lines
            | c4_kernels.CITATIONS * config.remove_citations
            | c4_kernels.SPLIT_BY_SPACES * (config.splitter == "datatrove")
        )

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        languages = batch.column("language").to_pylist()
        counts = np.zeros((batch.num_rows, 4), np.int64)
        counts[~alive(batch), 0] = self._kernels.LEFT_ALONE
        cleaned, ends = self._clean(batch, counts, languages)
        state = counts[:, 0]
        few = counts[:, 1] < limits_of(self._config, "min_sentences", languages)
        reasons = {int(row): "c4.few_sentences" for row in np.flatnonzero((state == 0) & few)}
        for code, reason in (
            (self._kernels.HAS_LOREM_IPSUM, "c4.lorem_ipsum"),
            (self._kernels.HAS_CURLY, "c4.curly_bracket"),
        ):
            reasons |= {int(row): reason for row in np.flatnonzero(state == code)}
        kept = [int(row) for row in np.flatnonzero((state == 0) & ~few)]
        failed = np.flatnonzero(state == self._kernels.NOT_UTF8)
        batch = _with_cleaned(batch, cleaned, ends, kept)
        batch = with_errors(batch, {int(row): "c4.not_utf8" for row in failed})
        return with_drops(_with_counts(batch, counts), reasons)

    def _clean(
        self, batch: pa.RecordBatch, counts: np.ndarray, languages: list[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is left of the texts, UTF-8, and where each ends, int64 [rows + 1]."""
        offsets, data = text_buffers(batch)
        limits = np.empty((batch.num_rows, 2), np.int64)
        for column, name in enumerate(_THRESHOLDS[:2]):
            found = limits_of(self._config, name, languages)
            limits[:, column] = np.where(np.isnan(found), -1, np.floor(found))
        cleaned = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
        ends = np.zeros(batch.num_rows + 1, np.int64)
        self._kernels.clean_texts(
            offsets, data, self._table, self._phrases, limits, self._rules, counts, (cleaned, ends)
        )
        return cleaned, ends


def _with_cleaned(
    batch: pa.RecordBatch, cleaned: np.ndarray, ends: np.ndarray, kept: list[int]
) -> pa.RecordBatch:
    """The texts that are kept, as they are now."""
    offsets, data = text_buffers(batch)
    # A text that is not UTF-8 is no Python string, and is on its way to quarantine.
    texts = [
        data[start:end].tobytes().decode("utf-8", "replace") for start, end in pairwise(offsets)
    ]
    changed = []
    for row in kept:
        text = cleaned[ends[row] : ends[row + 1]].tobytes().decode("utf-8")
        if text != texts[row]:
            texts[row] = text
            changed.append(row)
    return with_texts(batch, texts, changed) if changed else batch


def _with_counts(batch: pa.RecordBatch, counts: np.ndarray) -> pa.RecordBatch:
    figures = np.where(counts[:, :1] < 0, np.nan, counts[:, 1:].astype(np.float64))
    names = ("c4_sentences", "c4_lines_kept", "c4_lines")
    return with_stats(batch, {name: figures[:, at] for at, name in enumerate(names)})
