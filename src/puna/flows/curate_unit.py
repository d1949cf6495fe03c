"""What becomes of one unit of reading: through all steps, onto the disk, and counted.

A worker opens the steps once and does unit after unit; whether it is a process of this machine or
of a cluster, it knows nothing but plain data. No torch here: a worker starts in a second.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from puna.artifact import write_json
from puna.config import from_dict
from puna.corpus.dedup import count_lines_unit, exact_unit, sign_unit
from puna.corpus.read import ReadUnit, Unread, read_unit
from puna.corpus.schema import Found, alive, make_batch, with_columns
from puna.corpus.step import Apply
from puna.flows.curate_counts import READ, Counts, timed
from puna.flows.curate_steps import CurateSteps, DedupConfig
from puna.scale.units import UnitStore

KEPT, DROPPED, TOLD = "kept.parquet", "dropped.parquet", "unit.json"
BATCH_BYTES = 8 << 20  # of text that goes through the steps together, but for a longer document
BATCH_DOCUMENTS = 1024
SAMPLES = 20  # documents in quarantine that are told by name, of each unit
CHANGES = 4  # documents that are shown before and after a step, of each unit and step
UNSHOWN = "extract"  # what it takes away is markup more than text
SHOWN_CHARACTERS = 2000  # of a document that is shown

Json = dict[str, Any]


@dataclass
class UnitTold:
    """What is told of a unit beside its documents."""

    source: str
    counts: Counts = field(default_factory=Counts)
    unread: Counter[str] = field(default_factory=Counter)
    samples: list[Json] = field(default_factory=list)
    changes: list[Json] = field(default_factory=list)

    def put_aside(self, locator: str, reason: str, detail: str = "") -> None:
        """Count what could not be read or worked on."""
        self.unread[reason] += 1
        if len(self.samples) < SAMPLES:
            whole = f"{reason}: {detail}" if detail else reason
            self.samples.append({"locator": locator, "reason": whole})

    def to_dict(self) -> Json:
        """Plain data."""
        return {
            "source": self.source,
            "counts": self.counts.to_dict(),
            "unread": dict(self.unread),
            "samples": self.samples,
            "changes": self.changes,
        }


def open_worker(shared: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Json]:
    """What works on units.

    Args:
        shared: `steps` (a recipe's part, as plain data), `store` (a folder), `excerpt`:
            characters that are kept of a dropped document, null for all; and `sample`: documents
            that are read of a unit, null for all.
    """
    recipe = from_dict(CurateSteps, shared["steps"])
    opened = recipe.opened()
    store = UnitStore(Path(shared["store"]))
    excerpt: int | None = shared["excerpt"]
    sample: int | None = shared["sample"]

    def work(arguments: Mapping[str, Any]) -> Json:
        unit = ReadUnit.from_dict(arguments["unit"])
        with store.writing(arguments["key"]) as folder:
            told = UnitTold(unit.source)
            found = islice(read_unit(unit, recipe.sources[unit.source]), sample)
            batches = _batches(unit.source, found, told)
            _write(_through(batches, opened, told), folder, told, excerpt)
            _mark(folder, recipe.dedup)
            write_json(folder / TOLD, told.to_dict())
        return told.to_dict()

    return work


def _batches(
    source: str, documents: Iterable[Found | Unread], told: UnitTold
) -> Iterator[pa.RecordBatch]:
    waiting: list[Found] = []
    size = 0
    for found in documents:
        if isinstance(found, Unread):
            told.put_aside(found.locator, found.reason, found.detail)
            continue
        waiting.append(found)
        size += len(found.text)
        if size >= BATCH_BYTES or len(waiting) >= BATCH_DOCUMENTS:
            yield make_batch(source, waiting)
            waiting, size = [], 0
    if waiting:
        yield make_batch(source, waiting)


def _through(
    batches: Iterable[pa.RecordBatch], opened: Sequence[tuple[str, Apply]], told: UnitTold
) -> Iterator[pa.RecordBatch]:
    """Batches after all steps, counted after each."""
    shown: Counter[str] = Counter()
    began = time.perf_counter()
    for batch in batches:
        told.counts.see(READ, batch, time.perf_counter() - began)
        for name, apply in opened:
            before, batch = batch, timed(told.counts, name, apply)(batch)
            if shown[name] < CHANGES and name != UNSHOWN:
                changes = list(_changes(name, before, batch))[: CHANGES - shown[name]]
                shown[name] += len(changes)
                told.changes += changes
        told.counts.see_end(batch)
        told.counts.see_personal(batch)
        yield batch
        began = time.perf_counter()


def _changes(step: str, before: pa.RecordBatch, after: pa.RecordBatch) -> Iterator[Json]:
    """Documents whose text a step has changed, as they were and as they are."""
    old, new = before.column("content_hash"), after.column("content_hash")
    if old.equals(new):
        return
    left = alive(after)
    for row in range(after.num_rows):
        if left[row] and old[row] != new[row]:
            yield {
                "id": after.column("id")[row].as_py().hex(),
                "locator": after.column("locator")[row].as_py(),
                "step": step,
                "before": before.column("text")[row].as_py()[:SHOWN_CHARACTERS],
                "after": after.column("text")[row].as_py()[:SHOWN_CHARACTERS],
            }


def _write(
    batches: Iterable[pa.RecordBatch], folder: Path, told: UnitTold, excerpt: int | None
) -> None:
    """Documents that are kept, and those that are not, each in a file if there are any."""
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for batch in batches:
            errors = batch.column("error").to_pylist()
            for row, error in enumerate(errors):
                if error is not None:
                    told.put_aside(batch.column("locator")[row].as_py(), error)
            left = alive(batch)
            gone = ~left & np.asarray([error is None for error in errors], dtype=bool)
            for name, rows in ((KEPT, left), (DROPPED, gone)):
                part = batch.filter(pa.array(rows))
                if not part.num_rows:
                    continue
                if name == DROPPED:
                    part = shortened(part, excerpt)
                if name not in writers:
                    writers[name] = pq.ParquetWriter(folder / name, part.schema, compression="lz4")
                writers[name].write_batch(part)
    finally:
        for writer in writers.values():
            writer.close()


def shortened(batch: pa.RecordBatch, excerpt: int | None) -> pa.RecordBatch:
    """The same rows with no more than so many characters of their texts; None: all."""
    if excerpt is None:
        return batch
    texts = [text[:excerpt] for text in batch.column("text").to_pylist()]
    return with_columns(batch, {"text": pa.array(texts, type=pa.large_string())})


def _mark(folder: Path, dedup: DedupConfig) -> None:
    """Leave beside the documents what the search for duplicates needs of them."""
    if dedup.lines is not None:
        count_lines_unit(_kept(folder), folder, dedup.lines)
    if dedup.exact is not None:
        exact_unit(_kept(folder), folder, dedup.exact)
    if dedup.near is not None:
        sign_unit(_kept(folder), folder, dedup.near)


def _kept(folder: Path) -> Iterator[pa.RecordBatch]:
    path = folder / KEPT
    if path.exists():
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=BATCH_DOCUMENTS)


def read_told(folder: Path) -> Json:
    """What `open_worker`'s work told of a unit that is done."""
    found: Json = json.loads((folder / TOLD).read_text(encoding="utf-8"))
    return found
