"""What a tokenizing recipe says: sources of documents, a vocabulary, and what is held out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from puna.config import to_dict
from puna.errors import InputError
from puna.flows.tune_recipe import Files
from puna.meter import MeterConfig
from puna.records import Format
from puna.records.documents import Unit
from puna.tokens.bpe import VocabularyConfig

_NAME = re.compile(r"\w[\w-]{0,63}")
MAX_HELD_OUT_SHARE = 0.5
UNHASHED = ("threads", "meter")  # keys that no bit of a result depends on


@dataclass(frozen=True)
class SourceConfig:
    """Documents of one origin, which a mixture weighs as one."""

    files: Files
    """A path, a glob, a folder, package:NAME or hub:OWNER/NAME; or several."""
    licence: str
    """Of its documents; rows with a column `licence` or `license` have their own."""
    format: Format | Literal["auto"] = "auto"
    """Of the files; auto goes by their suffixes."""
    header: bool = True
    """Whether the first line of a csv or tsv file names its columns."""
    text: str = "text"
    """The column of the text; `a.b` reaches into a mapping."""
    documents: Unit = "row"
    """What a document is: a row (of plain text, a line); or, of plain text, a `file`, or
    `paragraphs` between blank lines."""
    language: str | None = None
    """What fertility is told by; null: the name of the source."""
    max_documents: int | None = None
    """Read no more than the first so many documents; null: all."""

    def __post_init__(self) -> None:
        for name in ("licence", "text"):
            if not getattr(self, name).strip():
                raise InputError(f"{name} is empty")
        if self.max_documents is not None and self.max_documents < 1:
            raise InputError(f"max_documents must be at least 1, not {self.max_documents}")


@dataclass(frozen=True)
class VocabularyChoice:
    """Where the vocabulary comes from: one of `train`, `model` and `extend`."""

    train: VocabularyConfig | None = None
    """Learn one from the documents that are not held out."""
    model: str | None = None
    """Take that of a model, or of other shards: a path, an alias, or a name on the hub."""
    extend: str | None = None
    """Take that of a model, and add pieces that are learnt from these documents."""
    pieces: int | None = None
    """How many pieces `extend` adds."""

    def __post_init__(self) -> None:
        given = [n for n in ("train", "model", "extend") if getattr(self, n) is not None]
        if len(given) != 1:
            raise InputError(
                f"names {', '.join(given) or 'nothing'}; expected one of train, model and extend",
                fix="vocabulary: {train: {size: 32000}}, {model: NAME}, or "
                "{extend: NAME, pieces: 8000}",
            )
        if (self.extend is None) != (self.pieces is None):
            raise InputError(
                "extend and pieces go together", fix="vocabulary: {extend: NAME, pieces: 8000}"
            )
        if self.pieces is not None and self.pieces < 1:
            raise InputError(f"pieces must be at least 1, not {self.pieces}")


@dataclass(frozen=True)
class DecontaminateConfig:
    """Texts that a model will be judged on, which it must not have learnt."""

    files: Files
    """Of any known format; every text of every row counts."""
    ngram_words: int = 13
    """A training document is left out if it has so many words in a row in common with them
    (Brown et al. 2020, arXiv 2005.14165, appendix C)."""
    format: Format | Literal["auto"] = "auto"
    """Of the files; auto goes by their suffixes."""

    def __post_init__(self) -> None:
        if self.ngram_words < 1:
            raise InputError(f"ngram_words must be at least 1, not {self.ngram_words}")


@dataclass(frozen=True)
class TokenizeRecipe:
    """From documents to shards of tokens."""

    vocabulary: VocabularyChoice
    """What makes the tokens."""
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """By the names that mixtures use."""
    corpus: str | None = None
    """A folder that `puna curate` made: its sources come before those that are named here."""
    held_out: float = 0.005
    """Share of the documents that are held out, by a hash of what they belong to (`root_id` where
    rows have one, their text otherwise); at least one of each source that has two."""
    max_held_out: int | None = 2000
    """Hold out no more documents than this of a source; null: no bound."""
    decontaminate: DecontaminateConfig | None = None
    """Leave out what would give away the answers of a test."""
    drop_duplicates: bool = True
    """Leave out documents whose text was there before, exactly."""
    shard_tokens: int = 1 << 24
    """Of a file, at most; a longer document has a file of its own."""
    seed: int = 0
    """Another seed holds out other documents."""
    threads: int | None = None
    """That encode; null: one for each core."""
    meter: MeterConfig = field(default_factory=MeterConfig)
    """How energy and carbon are found."""

    def __post_init__(self) -> None:
        if not self.sources and self.corpus is None:
            raise InputError(
                "there are no sources",
                fix="corpus: FOLDER, or sources: {books: {files: 'books/*.txt', licence: CC0-1.0}}",
            )
        _check_names(self.sources)
        if not 0 <= self.held_out <= MAX_HELD_OUT_SHARE:
            raise InputError(
                f"held_out is {self.held_out}; it must be a share from 0 to {MAX_HELD_OUT_SHARE}"
            )
        for name in ("max_held_out", "threads", "shard_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")

    def hashed(self) -> dict[str, Any]:
        """The part of it that decides the bits of the result, as plain data."""
        return {key: value for key, value in to_dict(self).items() if key not in UNHASHED}


def _check_names(sources: Mapping[str, SourceConfig]) -> None:
    seen: dict[str, str] = {}
    for name in sources:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"the source {name!r} cannot be the name of a folder",
                fix="letters, digits, _ and -, at most 64 of them",
            )
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise InputError(
                f"the sources {other!r} and {name!r} differ in case only",
                fix="some file systems take them for one folder: rename one",
            )
