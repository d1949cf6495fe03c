"""Documents that quote evaluation data are dropped, or the quotation is cut out.

A document is contaminated if it shares one n-gram of words with the files of an evaluation: 13
words as in Brown et al. 2020, appendix C. Words are those of `puna.corpus.dedup.words`: neither
case nor punctuation hides a quotation, and of Chinese every character is one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from puna.artifact import digest_file, digest_json
from puna.corpus.dedup.signature_twin import shingles_of, words_of
from puna.corpus.dedup.signing import MOST_WORDS_PER_BYTE, kernels
from puna.corpus.dedup.words import text_buffers, word_table
from puna.corpus.schema import alive, with_columns, with_drops, with_errors, with_stats, with_texts
from puna.corpus.step import Apply
from puna.errors import InputError
from puna.records import Quarantine, find_files, format_of
from puna.records.documents import Unit, read_documents

_FIRST_ROOM = 1 << 16
_LEAST_BITMAP_BYTES = 1 << 10


@dataclass(frozen=True)
class DecontaminateConfig:
    """A step that keeps evaluation data out of a corpus."""

    step: Literal["contaminated"] = "contaminated"
    """As recipes call it; a reason to drop is this and the evaluation file, after a dot."""
    files: list[str] = field(default_factory=list)
    """Evaluation data: paths, globs or folders of any format that `puna.records` reads. All text
    of a row counts, in whatever column."""
    ngram: int = 13
    """Words that must agree in a row; a text of the evaluation with fewer is not looked for."""
    action: Literal["drop", "cut"] = "drop"
    """Whether a document goes as a whole, or only the words that it shares."""

    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.ngram < 1:
            raise InputError(f"ngram: expected at least 1, found {self.ngram}")
        if not self.files:
            raise InputError("files: no evaluation data are named", fix="name a file or a folder")

    def open(self) -> Apply:
        """Read the evaluation data; see `read_evaluation` for errors."""
        return decontaminating(read_evaluation(self), self)


@dataclass(frozen=True)
class Evaluation:
    """The n-grams of evaluation files, for a quick look-up."""

    files: tuple[str, ...]
    """The files, by their names as reasons give them; each name once."""
    hashes: np.ndarray
    """Sorted, uint64 [n-grams]."""
    file_of: np.ndarray
    """Which file each n-gram was met in first: int64 [n-grams]."""
    bitmap: np.ndarray
    """Bits of the hashes, uint8, a power of two bytes: most words need no search."""
    texts: Mapping[str, int]
    """How many texts of each file are looked for."""
    too_short: Mapping[str, int]
    """How many texts of each file have fewer words than an n-gram, and are not looked for."""


def read_evaluation(config: DecontaminateConfig) -> Evaluation:
    """Read evaluation files and hash their n-grams.

    Raises:
        InputError: A file is missing or damaged, rows cannot be read, or no text is long enough.
        MissingPackageError: A format needs a package that is not installed, or numba is missing.
    """
    paths = find_files(config.files)
    names = _names(paths)
    texts, too_short = Counter[str](), Counter[str]()
    parts, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for number, (path, name) in enumerate(zip(paths, names, strict=True)):
        for text in _texts_of(path):
            hashes = ngram_hashes(text, config.ngram)
            (texts if len(hashes) else too_short)[name] += 1
            parts.append(hashes)
            numbers.append(np.full(len(hashes), number))
    known, firsts = np.unique(np.concatenate(parts), return_index=True)
    if not len(known):
        raise InputError(
            f"no text has {config.ngram} words, so that nothing could be found",
            where=paths[0],
            fix="lower ngram, or name other files",
        )
    file_of = np.concatenate(numbers)[firsts]
    return Evaluation(tuple(names), known, file_of, _bitmap(known), texts, too_short)


def evaluation_digest(config: DecontaminateConfig) -> str:
    """A digest of what the evaluation files hold, which the configuration only names.

    Raises:
        InputError: A file is missing.
    """
    return digest_json(sorted(digest_file(path) for path in find_files(config.files)))


def decontaminating(evaluation: Evaluation, config: DecontaminateConfig) -> Apply:
    """A function that drops contaminated documents, or cuts out what they share.

    The figure `contaminated_ngrams` says how many n-grams a document shares, and its metadata name
    the files as `contaminated_by`. What is left of a cut document is looked at no more.

    Raises:
        MissingPackageError: numba is not installed.
    """
    kernels()

    def apply(batch: pa.RecordBatch) -> pa.RecordBatch:
        rows, places = _shared(batch, evaluation, config.ngram)
        going = alive(batch)[rows]
        rows, places = rows[going], places[going]
        counts = np.bincount(rows, minlength=batch.num_rows)
        batch = with_stats(batch, {"contaminated_ngrams": counts})
        hit, starts = np.unique(rows, return_index=True)
        if not len(hit):
            return batch
        groups = np.split(evaluation.file_of[places], starts[1:])
        by_row = {
            row: _by_frequency(group, evaluation.files)
            for row, group in zip(hit.tolist(), groups, strict=True)
        }
        batch = _with_metadata(batch, by_row)
        if config.action == "cut":
            return _cut(batch, by_row, evaluation, config)
        return with_drops(batch, _reasons(by_row, config))

    return apply


def ngram_hashes(text: str, ngram: int) -> np.ndarray:
    """Hashes of all n-grams of a text in their order, uint64; none of a text with fewer words.

    Raises:
        MissingPackageError: numba is not installed.
    """
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    offsets = np.array([0, len(data)])
    offsets.flags.writeable = False  # as `text_buffers` has it: another one would compile
    out = np.empty(len(data) * MOST_WORDS_PER_BYTE + ngram, np.uint64)
    made = kernels().all_shingles(data, offsets, tuple(word_table()), ngram, out)
    return out[:made].copy()


def cut_ngrams(text: str, is_known: Callable[[int], bool], ngram: int) -> str:
    """A text without the words of known n-grams; what stands around them is joined by a space.

    Args:
        text: The text.
        is_known: Whether the hash of an n-gram is one to cut.
        ngram: Its words.
    """
    words = words_of(text)
    if len(words) < ngram:
        return text
    kept, begun = [], 0
    for at, value in enumerate(shingles_of([word.hash for word in words], ngram)):
        if not is_known(value):
            continue
        start, stop = words[at].start, words[at + ngram - 1].stop
        if start > begun:
            kept.append(text[begun:start].rstrip())
        begun = max(begun, stop)
    if begun == 0:
        return text
    return " ".join(part for part in (*kept, text[begun:].lstrip()) if part)


def _by_frequency(numbers: np.ndarray, files: Sequence[str]) -> list[str]:
    """The files that a document shares n-grams with, that with most of them first."""
    return [files[number] for number, _ in Counter(numbers.tolist()).most_common()]


def _reasons(by_row: Mapping[int, list[str]], config: DecontaminateConfig) -> dict[int, str]:
    return {row: f"{config.step}.{names[0]}" for row, names in by_row.items()}


def _cut(
    batch: pa.RecordBatch,
    by_row: Mapping[int, list[str]],
    evaluation: Evaluation,
    config: DecontaminateConfig,
) -> pa.RecordBatch:
    known = evaluation.hashes

    def is_known(value: int) -> bool:
        place = int(np.searchsorted(known, np.uint64(value)))
        return place < len(known) and int(known[place]) == value

    texts = batch.column("text").to_pylist()
    for row in by_row:
        texts[row] = cut_ngrams(texts[row], is_known, config.ngram)
    emptied = {row: names for row, names in by_row.items() if not texts[row].strip()}
    return with_drops(with_texts(batch, texts, by_row), _reasons(emptied, config))


def _shared(
    batch: pa.RecordBatch, evaluation: Evaluation, ngram: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and places among the known n-grams of everything that is shared, int64 each."""
    offsets, data = text_buffers(batch)
    room = _FIRST_ROOM
    while True:
        out = np.empty(room, np.int64), np.empty(room, np.int64)
        found = kernels().find_known(
            data, offsets, tuple(word_table()), ngram, evaluation.hashes, evaluation.bitmap, out
        )
        if found <= room:
            return out[0][:found], out[1][:found]
        room = int(found)


def _with_metadata(batch: pa.RecordBatch, by_row: Mapping[int, list[str]]) -> pa.RecordBatch:
    metadata = batch.column("metadata").to_pylist()
    faults = {}
    for row, names in by_row.items():
        try:
            known = dict(json.loads(metadata[row] or "{}"))
        except (ValueError, TypeError) as error:
            faults[row] = f"its metadata are no JSON object: {error}"
            continue
        known["contaminated_by"] = sorted(names)
        metadata[row] = json.dumps(known, ensure_ascii=False, sort_keys=True)
    batch = with_columns(batch, {"metadata": pa.array(metadata, type=pa.string())})
    return with_errors(batch, faults)


def _texts_of(path: Path) -> Iterator[str]:
    quarantine = Quarantine()
    unit: Unit = "paragraphs" if format_of(path) == "txt" else "row"  # sentences go over line ends
    for row in read_documents([path], quarantine=quarantine, unit=unit):
        yield from _strings(row.values)
    if quarantine.total:
        where, why = quarantine.samples[0]
        raise InputError(
            f"{why}; {quarantine.total:,} rows cannot be read, and would not be kept out",
            where=where,
            fix="mend or remove them",
        )


def _strings(values: Mapping[str, Any]) -> Iterator[str]:
    """All texts of a row, however deep they lie."""
    left: list[Any] = [values]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            left.extend(value)


def _bitmap(hashes: np.ndarray) -> np.ndarray:
    """Sixteen bits or more for every hash, so that few others hit one."""
    size = _LEAST_BITMAP_BYTES
    while size < 2 * len(hashes):
        size *= 2
    bits = np.zeros(size * 8, bool)
    bits[(hashes >> np.uint64(32)) & np.uint64(size * 8 - 1)] = True
    return np.packbits(bits, bitorder="little")


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names of files, those that would be the same with their folder, or else a number."""
    stems = [path.name.removesuffix(".gz").rpartition(".")[0] or path.name for path in paths]
    twice = {stem for stem, count in Counter(stems).items() if count > 1}
    names = [
        f"{path.parent.name}/{stem}" if stem in twice else stem
        for path, stem in zip(paths, stems, strict=True)
    ]
    again = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name}#{at}" if name in again else name for at, name in enumerate(names, 1)]
