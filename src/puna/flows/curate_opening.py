"""A finished corpus, to look at: what it is, and the story of one document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from puna.corpus.dedup import Clusters
from puna.corpus.figures import MEANINGS
from puna.errors import InputError
from puna.flows.curate_corpus import read_batches
from puna.flows.curate_replay import replay
from puna.flows.curate_story import story_lines
from puna.flows.curate_unit import Json
from puna.records.corpus_folder import DOCUMENTS, DROPS, cluster_files, part_files, read_summary

ID_DIGITS = 32


def corpus_lines(summary: Json) -> list[str]:
    """For a terminal: what was left after each step, what was put aside, the rate."""
    found = []
    funnel = summary.get("funnel") or []
    read = funnel[0] if funnel else None
    for row in funnel:
        share = row["bytes"] / read["bytes"] if read and read["bytes"] else 0.0
        size = f"{row['bytes'] / 1e6:,.1f} MB"
        found.append(f"{row['step']:<18} {row['documents']:>9,} {size:>12} {share:>7.1%}")
    for reason, count in summary["quarantine"]["counts"].items():
        found.append(f"put aside          {count:>9,} x {reason}")
    if read and summary.get("seconds"):
        rate = read["bytes"] / 1e6 / summary["seconds"]
        found.append(f"rate               {rate:,.1f} MB/s of what was read")
    return found


def document_story(path: Path, document: str) -> list[str]:
    """Everything that is known of one document, kept or dropped.

    Args:
        path: Of a corpus.
        document: Its id in hexadecimal digits, or the beginning of it.

    Raises:
        InputError: It is no id, there is no such document, or there are several.
    """
    try:
        low = bytes.fromhex(document.ljust(ID_DIGITS, "0"))
        high = bytes.fromhex(document.ljust(ID_DIGITS, "f"))
    except ValueError as error:
        raise InputError(f"{document!r} is no id: expected hexadecimal digits") from error
    if len(document) > ID_DIGITS:
        raise InputError(f"{document!r} is no id: it has more than {ID_DIGITS} digits")
    found = list(_rows(path, low, high))
    if not found:
        raise InputError(
            f"there is no document {document}",
            where=path,
            fix="report.html shows the ids of its examples; so does the column `id` of its files",
        )
    if len({row["id"] for row in found}) > 1:
        raise InputError(f"{len(found)} documents begin with {document}", fix="give more digits")
    (row,) = found[:1]
    asked = read_summary(path).get("asked") or {}
    told = replay(asked, row) if asked else {"note": "the corpus does not tell its recipe"}
    return story_lines({**row, **told, "cluster": _cluster(path, row["id"]), "meanings": MEANINGS})


def _cluster(path: Path, document: bytes) -> Json:
    """The documents that are like one, from the files of clusters; nothing where there are none."""
    for file in cluster_files(path):
        clusters = Clusters.read(file)
        rows = clusters.of(document)
        if len(rows):
            alike = dict(zip((clusters.ids[row].tobytes() for row in rows), rows, strict=True))
            return {
                "reason": clusters.reason,
                "size": len(rows),
                "kept": clusters.kept_ids[rows[0]].tobytes(),
                "similarity": float(clusters.similarity[alike[document]]),
                "members": [
                    f"{member.hex()}, similarity {clusters.similarity[at]:.3f}"
                    for member, at in alike.items()
                    if member != document
                ],
            }
    return {}


def _rows(path: Path, low: bytes, high: bytes) -> Iterator[Json]:
    for part in (DOCUMENTS, DROPS):
        for file in part_files(path / part):
            for batch in read_batches(file):
                ids = batch.column("id").cast(pa.binary())
                inside = pc.and_(pc.greater_equal(ids, low), pc.less_equal(ids, high))
                for row in batch.filter(inside).to_pylist():
                    yield {**row, "kept": part == DOCUMENTS}
