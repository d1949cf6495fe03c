"""The documents of a unit of work, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType

from puna.corpus.read.mediawiki import read_mediawiki
from puna.corpus.read.parquet import read_corpus, read_parquet
from puna.corpus.read.rows import Read, read_jsonl, read_text_lines
from puna.corpus.read.tables import read_csv, read_tsv
from puna.corpus.read.units import Format, Piece, ReadConfig, ReadUnit, Unread
from puna.corpus.read.warc import read_warc
from puna.corpus.read.whole import read_code, read_html, read_markdown, read_text
from puna.corpus.schema import Found

_Reader = Callable[[Piece, ReadConfig], Read]

_READERS: MappingProxyType[Format, _Reader] = MappingProxyType(
    {
        "warc": read_warc,
        "wet": read_warc,
        "html": read_html,
        "jsonl": read_jsonl,
        "csv": read_csv,
        "tsv": read_tsv,
        "parquet": read_parquet,
        "text": read_text,
        "markdown": read_markdown,
        "mediawiki": read_mediawiki,
        "code": read_code,
        "corpus": read_corpus,
    }
)


def read_unit(unit: ReadUnit, config: ReadConfig) -> Iterator[Found | Unread]:
    """The documents of a unit, and what gives none with its place and its reason.

    Nothing that stands on disk makes it fail or wait: a file that is gone, damaged, a bomb or of
    another format is an `Unread`, after the documents that stood before the damage. It holds one
    document at a time, so memory is bounded by `config.max_document_bytes`.

    Args:
        unit: From `plan_units`.
        config: The configuration that it was planned by.

    Raises:
        MissingPackageError: A compression or a guess of an encoding needs a package that is not
            installed.
    """
    reader = _READERS[unit.format]
    if unit.format == "text" and config.by_line:
        reader = read_text_lines
    for piece in unit.pieces:
        if piece.skip:
            yield Unread(piece.place, piece.skip)
        else:
            yield from reader(piece, config)
