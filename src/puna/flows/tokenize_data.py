"""The documents that a tokenizing recipe names, read one after the other."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from puna.errors import InputError
from puna.flows.tokenize_recipe import SourceConfig, TokenizeRecipe
from puna.records import Quarantine, Row, find_files
from puna.records.documents import read_documents
from puna.records.items import lookup
from puna.records.row import kind_of
from puna.tokens.shard_file import KEY_BYTES

_LICENCES = ("licence", "license")
_KEY = re.compile(r"[0-9a-f]{32}")
_SAMPLE_ROWS = 100


class Document(NamedTuple):
    """A text, and where it comes from."""

    id: bytes  # 16
    text: str
    root: bytes | None  # 16, of what it was derived from; None where the row does not say it
    licence: str


def source_files(recipe: TokenizeRecipe) -> dict[str, list[Path]]:
    """The files of each source.

    Raises:
        InputError: There are none, or a name leads nowhere.
    """
    found = {}
    for name, source in recipe.sources.items():
        try:
            files = source.files
            found[name] = find_files(files if isinstance(files, str) else list(files))
        except InputError as error:
            raise InputError(
                f"sources.{name}.files: {error.what}", where=error.where, fix=error.fix
            ) from error
    return found


def stamps(files: Sequence[Path]) -> list[list[Any]]:
    """Name, size and time of change of files, by which a run knows them again.

    Raises:
        InputError: A file cannot be read.
    """
    try:
        return [[str(f), (told := f.stat()).st_size, told.st_mtime_ns] for f in files]
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=error.filename) from error


def check_columns(name: str, source: SourceConfig, files: Sequence[Path]) -> None:
    """Look at the first rows of a source, so that a wrong column is seen before any work.

    Raises:
        InputError: There is no row, or none of them has the column of the text.
    """
    quarantine = Quarantine()
    sample = list(islice(_rows(source, files, quarantine), _SAMPLE_ROWS))
    if not sample:
        reasons = f": {'; '.join(quarantine.lines())}" if quarantine.total else ""
        raise InputError(
            f"the source holds no document{reasons}",
            where=f"sources.{name}",
            fix="name other files, or leave the source out",
        )
    if any(lookup(row.values, source.text) is not None for row in sample):
        return
    held = list(dict.fromkeys(column for row in sample for column in row.values))
    near = difflib.get_close_matches(source.text, held, n=1)
    raise InputError(
        f"there is no column {source.text!r}; there are {', '.join(map(repr, held[:12]))}",
        where=sample[0].locator,
        fix=f"set sources.{name}.text: {near[0] if near else 'the column of the text'}",
    )


def read_source(
    name: str,
    source: SourceConfig,
    files: Sequence[Path],
    quarantine: Quarantine,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Document]:
    """The documents of a source, in the order of its files; always the same ones.

    Args:
        name: Of the source; part of what the ids of documents are made of.
        source: What to read, and how.
        files: Its files.
        quarantine: Takes rows without text, with the reason.
        progress: Called with the files that are done, and their number.

    Raises:
        InputError: A file is damaged as a whole.
    """
    documents = _documents(name, source, files, quarantine, progress or (lambda done, total: None))
    yield from islice(documents, source.max_documents)
    if progress is not None:
        progress(len(files), len(files))


def key_of(text: str) -> bytes:
    """The 16 bytes of a name: itself where it is 32 hexadecimal digits, a hash otherwise."""
    if _KEY.fullmatch(text):
        return bytes.fromhex(text)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _documents(
    name: str,
    source: SourceConfig,
    files: Sequence[Path],
    quarantine: Quarantine,
    progress: Callable[[int, int], None],
) -> Iterator[Document]:
    for done, path in enumerate(files):
        progress(done, len(files))
        for row in _rows(source, [path], quarantine):
            text = _text(row, source.text, quarantine)
            if text is not None:
                yield _document(name, source, row, text)


def _rows(source: SourceConfig, files: Sequence[Path], quarantine: Quarantine) -> Iterator[Row]:
    return read_documents(
        files,
        quarantine=quarantine,
        unit=source.documents,
        format=source.format,
        header=source.header,
    )


def _text(row: Row, column: str, quarantine: Quarantine) -> str | None:
    value = lookup(row.values, column)
    if isinstance(value, str) and value.strip():
        return value
    if value is None:
        quarantine.add(row.locator, f"has no column {column!r}")
    elif isinstance(value, str):
        quarantine.add(row.locator, f"column {column!r} is empty")
    else:
        quarantine.add(row.locator, f"column {column!r} is not text", kind_of(value))
    return None


def _document(name: str, source: SourceConfig, row: Row, text: str) -> Document:
    own, root = row.values.get("id"), row.values.get("root_id")
    if isinstance(own, bytes) and len(own) == KEY_BYTES:
        key = own
    else:
        named = own if isinstance(own, str) and _KEY.fullmatch(own) else f"{name}\0{row.locator}"
        key = key_of(named)
    return Document(
        id=key,
        text=text,
        root=_root(root),
        licence=_licence(row.values) or source.licence,
    )


def _root(told: Any) -> bytes | None:
    """What a document was derived from, where its row says it."""
    if isinstance(told, bytes) and len(told) == KEY_BYTES:
        return told
    said = isinstance(told, str | int) and str(told).strip()
    return key_of(str(told)) if said else None


def _licence(values: Mapping[str, Any]) -> str | None:
    for column in _LICENCES:
        value = values.get(column)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None
