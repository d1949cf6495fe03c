"""What is read and in which portions: the configuration of a source, and its units of work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from puna.errors import InputError

Format = Literal[
    "warc",
    "wet",
    "html",
    "jsonl",
    "csv",
    "tsv",
    "parquet",
    "text",
    "markdown",
    "mediawiki",
    "code",
    "corpus",
]
FORMATS: tuple[Format, ...] = Format.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class DocumentColumns:
    """Columns of row formats by what they hold; `a.b` reaches into a mapping."""

    url: str = "url"
    """Where the document was published."""
    date: str = "date"
    """When it was."""
    license: str = "license"
    """Under which licence it stands."""
    language: str = "language"
    """Its language."""


@dataclass(frozen=True)
class ReadConfig:
    """One source of a recipe: which files, and what they are."""

    files: str | list[str]
    """Paths, globs, folders, `package:NAME`, `hub:OWNER/NAME`, and addresses of stores that fsspec
    knows (`s3://`, `gs://`, `hf://`, extra `remote`): one or several. Of a folder its
    files of known formats at any depth, but for hidden ones, links to folders, and such that tell
    about the data (README.txt, LICENSE.txt, dataset_infos.json ...)."""
    format: Literal["auto"] | Format = "auto"
    """What the files are; auto: each by its name, and where that tells nothing by how it begins.
    A folder with a `.git` is code; one that `puna curate` made is a corpus, whose figures come
    along: rules with other thresholds can go by them."""
    documents: Literal["file", "line"] = "file"
    """What a document of plain text is: a whole file or a line that is not blank."""
    text: str = "text"
    """Column of the text in row formats."""
    columns: DocumentColumns = field(default_factory=DocumentColumns)
    """Columns of what else is known of a row's document; one that is not there is no fault."""
    license: str | None = None
    """Licence of all documents that do not say their own."""
    language: str | None = None
    """Language (ISO 639-1) of all documents that do not say their own."""
    encoding: str = "auto"
    """A codec of Python for all text; auto: byte order mark, HTTP or meta charset, UTF-8, then a
    guess (rows and lines: UTF-8)."""
    max_document_bytes: int = 64 << 20
    """A longer document (or line, or row) is put aside."""

    def __post_init__(self) -> None:
        if self.max_document_bytes < 1:
            raise InputError(f"max_document_bytes must be positive, not {self.max_document_bytes}")
        if self.encoding != "auto":
            try:
                b"any".decode(self.encoding)
            except UnicodeError:  # an encoding that those three bytes are not of
                pass
            except (LookupError, ValueError) as error:
                raise InputError(
                    f"there is no encoding {self.encoding!r}",
                    fix="auto, utf-8, gb18030, cp1252 ...",
                ) from error

    @property
    def by_line(self) -> bool:
        """Whether plain text is read line by line."""
        return self.documents == "line"

    @property
    def names(self) -> list[str]:
        """`files` as a list."""
        return [self.files] if isinstance(self.files, str) else list(self.files)


@dataclass(frozen=True)
class Unread:
    """Something that was there and gives no document."""

    locator: str
    """Where in the source: as in `Found`."""
    reason: str
    """One of few sentences, by which cases are counted."""
    detail: str = ""
    """What is particular to this case."""


@dataclass(frozen=True)
class Piece:
    """A file or a part of one, as it was when the work was planned."""

    path: str
    """As the user named it, or found below what was named."""
    size: int
    """Bytes on disk; -1: it could not be looked at."""
    mtime_ns: int
    """When it was last changed, in nanoseconds."""
    start: int = 0
    """First byte, or row group of parquet."""
    stop: int | None = None
    """One behind the last byte or row group; None: to the end."""
    skip: str = ""
    """Why it is not to be read at all, if that was seen when the work was planned."""

    @property
    def place(self) -> str:
        """The path as a locator begins: bytes of a name that are no UTF-8 are spelt out."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        plain: dict[str, Any] = {"size": self.size, "mtime_ns": self.mtime_ns}
        plain |= {"start": self.start} if self.start else {}
        plain |= {"stop": self.stop} if self.stop is not None else {}
        plain |= {"skip": self.skip} if self.skip else {}
        try:
            self.path.encode()
        except UnicodeEncodeError:
            return {"path_hex": os.fsencode(self.path).hex(), **plain}
        return {"path": self.path, **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Piece:
        """What `to_dict` gave."""
        known = dict(data)
        if "path_hex" in known:
            known["path"] = os.fsdecode(bytes.fromhex(known.pop("path_hex")))
        return cls(**known)


@dataclass(frozen=True)
class ReadUnit:
    """What is read in one go: a part of a file, a file, or several small ones of one format."""

    source: str
    """Name of the source in the recipe."""
    format: Format
    """Of all its pieces."""
    pieces: tuple[Piece, ...]
    """In the order in which they are read."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold, the same for the same unchanged files."""
        pieces = [piece.to_dict() for piece in self.pieces]
        return {"source": self.source, "format": self.format, "pieces": pieces}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReadUnit:
        """What `to_dict` gave."""
        pieces = tuple(Piece.from_dict(piece) for piece in data["pieces"])
        return cls(data["source"], data["format"], pieces)


def piece_of(path: Path) -> Piece:
    """A whole file, looked at now."""
    try:
        status = path.stat()
    except OSError:
        return Piece(str(path), -1, 0)
    return Piece(str(path), status.st_size, status.st_mtime_ns)
