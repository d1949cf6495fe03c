"""Writes a corpus: documents in Parquet files of even size, and what was dropped beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from puna.corpus.schema import alive
from puna.corpus.step import Apply
from puna.flows.curate_counts import Counts, Size, timed
from puna.flows.curate_seen import Seen
from puna.flows.curate_unit import DROPPED, KEPT, Json, shortened
from puna.records.corpus_folder import DOCUMENTS, DROPS

ROWS = 4096  # of a batch


class Parts:
    """Writes batches into a folder for each source, in files of about so many bytes of text."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        self._folder, self._most = folder, part_bytes
        self._writer: pq.ParquetWriter | None = None
        self._source = ""
        self._number = self._bytes = 0
        folder.mkdir()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows of one source; those of one call stay in one file, sources follow each other."""
        if not batch.num_rows:
            return
        source = batch.column("source")[0].as_py()
        if source != self._source:
            self.close()
            self._source, self._number = source, 0
        if self._writer is None:
            path = self._folder / source / f"part-{self._number:05}.parquet"
            path.parent.mkdir(exist_ok=True)
            self._writer = pq.ParquetWriter(path, batch.schema, compression="zstd")
            self._number += 1
        self._writer.write_batch(batch)
        self._bytes += batch.column("text").nbytes
        if self._bytes >= self._most:
            self.close()

    def close(self) -> None:
        """End the file at hand."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._bytes = None, 0


def write_documents(
    folders: Sequence[Path],
    last: Sequence[tuple[str, Apply]],
    out: Path,
    *,
    counts: Counts,
    seen: Seen,
    part_bytes: int,
    excerpt: int | None,
) -> dict[str, Size]:
    """Write the corpus of finished units.

    Args:
        folders: Of the units, in their order.
        last: The steps that need to know all documents, opened; by name.
        out: A folder, to write into.
        counts: Those of the units, which these steps are added to.
        seen: Looks at every document.
        part_bytes: Of text in a file, about.
        excerpt: Characters that are kept of what is dropped here; None: all.

    Returns:
        What is kept, by source.
    """
    kept = Parts(out / DOCUMENTS, part_bytes)
    gone = Parts(out / DROPS, part_bytes)
    steps = [timed(counts, name, apply) for name, apply in last]
    counts.languages.clear()  # those of what is left at the end are counted again
    sizes: dict[str, Size] = {}
    try:
        for folder in folders:
            for batch in read_batches(folder / KEPT):
                for step in steps:
                    batch = step(batch)
                counts.see_end(batch)
                seen.see(batch)
                stays = pa.array(alive(batch))
                kept.write(batch.filter(stays))
                gone.write(shortened(batch.filter(pc.invert(stays)), excerpt))
                _count(sizes, batch.filter(stays))
            for batch in read_batches(folder / DROPPED):
                seen.see(batch)
                gone.write(batch)
    finally:
        kept.close()
        gone.close()
    return sizes


def read_batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file; none where there is no file."""
    if path.exists():
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=ROWS, columns=columns)


def write_quarantine(samples: Iterable[Json], path: Path) -> None:
    """What could not be used, a JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            file.write(json.dumps(sample, ensure_ascii=False) + "\n")


def _count(sizes: dict[str, Size], batch: pa.RecordBatch) -> None:
    lengths = pc.binary_length(batch.column("text")).to_pylist()
    for source, length in zip(batch.column("source").to_pylist(), lengths, strict=True):
        sizes.setdefault(source, Size()).add(Size(1, length))
