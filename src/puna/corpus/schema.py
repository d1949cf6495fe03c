"""The one form that documents have on their way: a row of an Arrow record batch.

`id` is that of the place where a document was found, and stays through every step, whatever becomes
of its text; `content_hash` is that of the text as it is now. Rows that were made of another row
(a translation, a question about it) have its `root_id`, by which splits go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from puna.corpus.figures import FIGURES
from puna.errors import InputError

ID_BYTES = 16
KEPT_FIGURES = ("raw_bytes", *FIGURES, "extract_confidence", "language_score")
_KEY = pa.binary(ID_BYTES)

Columns = Mapping[str, pa.Array]


@dataclass(frozen=True)
class Found:
    """A document as a reader finds it."""

    locator: str
    """Where in its source: a path with line, offset or member; unique within the source."""
    text: str
    """What it says: HTML where the reader gives HTML."""
    url: str | None = None
    date: str | None = None
    """As far as it is known, ISO 8601."""
    license: str | None = None
    language: str | None = None
    """A code of ISO 639-1 where there is one, as the source says it."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is known, as JSON values."""
    id: bytes | None = None
    """16 bytes, of a document that has one; None: by source and locator."""
    root: bytes | None = None
    """16 bytes, of what it was made of; None: of itself."""
    stats: Mapping[str, float | None] | None = None
    """Figures that steps have computed before; of a batch all documents have them, or none."""


BASE_SCHEMA = pa.schema(
    [
        pa.field("id", _KEY, nullable=False),
        pa.field("content_hash", _KEY, nullable=False),
        pa.field("root_id", _KEY, nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("date", pa.string()),
        pa.field("license", pa.string()),
        pa.field("language", pa.string()),
        pa.field("stats", pa.struct([pa.field("raw_bytes", pa.float32())])),
        pa.field("drop", pa.string()),
        pa.field("error", pa.string()),
        pa.field("metadata", pa.string()),
    ]
)
"""What readers give. `stats` is a struct of float32 that steps add fields to; `drop` and `error`
are null in rows that go on; `metadata` is a JSON object as text, or null."""


def document_id(source: str, locator: str) -> bytes:
    """16 bytes that name a document by where it was found."""
    return hashlib.blake2b(f"{source}\0{locator}".encode(), digest_size=ID_BYTES).digest()


def content_hash(text: str) -> bytes:
    """16 bytes of the text itself; lone surrogates are hashed as they are."""
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=ID_BYTES).digest()


def make_batch(source: str, found: Sequence[Found]) -> pa.RecordBatch:
    """Documents as a record batch of `BASE_SCHEMA`."""
    ids = [one.id or document_id(source, one.locator) for one in found]
    texts = [one.text for one in found]
    sizes = [float(len(text.encode("utf-8", "surrogatepass"))) for text in texts]
    columns: dict[str, Any] = {
        "id": ids,
        "content_hash": [content_hash(text) for text in texts],
        "root_id": [one.root or own for one, own in zip(found, ids, strict=True)],
        "text": texts,
        "source": [source] * len(found),
        "locator": [one.locator for one in found],
        "url": [one.url for one in found],
        "date": [one.date for one in found],
        "license": [one.license for one in found],
        "language": [one.language for one in found],
        "stats": [{"raw_bytes": size} for size in sizes],
        "drop": [None] * len(found),
        "error": [None] * len(found),
        "metadata": [_as_json(one.metadata) for one in found],
    }
    arrays = [pa.array(columns[field.name], type=field.type) for field in BASE_SCHEMA]
    batch = pa.record_batch(arrays, schema=BASE_SCHEMA)
    if not found or found[0].stats is None:
        return batch
    # The same figures in every batch of a unit, whatever the steps of another recipe were.
    kept = {name: [(one.stats or {}).get(name) for one in found] for name in KEPT_FIGURES}
    return with_stats(batch, {name: np.array(row, np.float32) for name, row in kept.items()})


def alive(batch: pa.RecordBatch) -> np.ndarray:
    """Which rows are neither dropped nor in error: bool [rows]."""
    drop, error = (batch.column(name).is_null() for name in ("drop", "error"))
    left: np.ndarray = np.asarray(drop) & np.asarray(error)
    return left


def with_columns(batch: pa.RecordBatch, changed: Columns) -> pa.RecordBatch:
    """The same rows with other columns; each keeps its type.

    Raises:
        InputError: A column is none of the schema's.
    """
    names = batch.schema.names
    unknown = changed.keys() - set(names)
    if unknown:
        raise InputError(f"the documents have no column {min(unknown)!r}")
    arrays = [changed.get(name, batch.column(name)) for name in names]
    fields = [
        field if field.type == array.type else field.with_type(array.type)
        for field, array in zip(batch.schema, arrays, strict=True)
    ]
    return pa.record_batch(arrays, schema=pa.schema(fields))


def with_texts(
    batch: pa.RecordBatch, texts: Sequence[str], changed: Iterable[int]
) -> pa.RecordBatch:
    """The same rows with other texts, whose content is hashed anew.

    Args:
        batch: The documents.
        texts: Of all rows.
        changed: The numbers of the rows whose text is another one.
    """
    hashes = batch.column("content_hash").to_pylist()
    for row in changed:
        hashes[row] = content_hash(texts[row])
    columns = {
        "text": pa.array(texts, type=pa.large_string()),
        "content_hash": pa.array(hashes, type=_KEY),
    }
    return with_columns(batch, columns)


def with_drops(batch: pa.RecordBatch, reasons: Mapping[int, str]) -> pa.RecordBatch:
    """The same rows, some of them dropped; the first reason that a row was given stays.

    Args:
        batch: The documents.
        reasons: By the number of the row: `step.rule`, such as `gopher_quality.few_words`.
    """
    return _with_words(batch, "drop", reasons)


def with_errors(batch: pa.RecordBatch, reasons: Mapping[int, str]) -> pa.RecordBatch:
    """The same rows, some of which could not be worked on: the engine puts them in quarantine."""
    return _with_words(batch, "error", reasons)


def with_stats(batch: pa.RecordBatch, added: Mapping[str, np.ndarray]) -> pa.RecordBatch:
    """The same rows with more figures in `stats`; NaN stands for one that is not known.

    Args:
        batch: The documents.
        added: By name: float [rows].
    """
    old: pa.StructArray = batch.column("stats")
    names = [old.type.field(number).name for number in range(old.type.num_fields)]
    parts = dict(zip(names, old.flatten(), strict=True))
    for name, values in added.items():
        figures = np.asarray(values, dtype=np.float32)
        parts[name] = pa.array(figures, mask=np.isnan(figures))
    return with_columns(
        batch, {"stats": pa.StructArray.from_arrays(list(parts.values()), names=list(parts))}
    )


def stat(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """One figure of all rows: float32 [rows], NaN where it is not known.

    Raises:
        InputError: No step has computed it.
    """
    stats: pa.StructArray = batch.column("stats")
    place = stats.type.get_field_index(name)
    if place < 0:
        raise InputError(
            f"no step before has computed the figure {name!r}",
            fix="put the step `statistics` before those that filter by figures",
        )
    column = stats.flatten()[place]
    return np.asarray(column.fill_null(float("nan")), dtype=np.float32)


def _with_words(batch: pa.RecordBatch, name: str, words: Mapping[int, str]) -> pa.RecordBatch:
    if not words:
        return batch
    found: list[str | None] = batch.column(name).to_pylist()
    for row, word in words.items():
        found[row] = found[row] or word
    return with_columns(batch, {name: pa.array(found, type=pa.string())})


def _as_json(metadata: Mapping[str, Any]) -> str | None:
    return json.dumps(metadata, ensure_ascii=False, sort_keys=True) if metadata else None
