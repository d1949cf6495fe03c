"""What a curation's summary says, as plain data: the funnel, figures, examples, clusters."""

from __future__ import annotations

import difflib
import platform
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from puna.config import to_dict
from puna.corpus.dedup import Clusters
from puna.corpus.figures import MEANINGS
from puna.corpus.fineweb import FineWeb
from puna.corpus.gopher import GopherQuality, GopherRepetition
from puna.corpus.language import LanguageConfig
from puna.corpus.model_score import ScoreConfig
from puna.corpus.rules import bounds_of
from puna.flows.curate_corpus import read_batches
from puna.flows.curate_counts import READ, Counts, Size
from puna.flows.curate_place import DOCUMENTS, DROPS, part_files
from puna.flows.curate_recipe import CurateRecipe
from puna.flows.curate_steps import AnyStep
from puna.flows.curate_unit import KEPT, Json

BINS = 30
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
EXAMPLE_CHARACTERS = 400
MOST_ROWS = 200_000  # that distributions are drawn from: the first ones
CLUSTERS = 12  # that are shown, the largest first
CLUSTER_DOCUMENTS = 5
CHANGES = 12
SHOWN_FIGURES = (
    "words",
    "mean_word_length",
    "alphabetic_fraction",
    "stop_words",
    "hash_ratio",
    "line_punctuation_fraction",
    "short_line_fraction",
    "duplicate_line_fraction",
    "top_2_gram_character_fraction",
    "duplicated_5_gram_character_fraction",
    "language_score",
)
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def told_summary(
    recipe: CurateRecipe, counts: Counts, units: Sequence[Json], kept: Mapping[str, Size]
) -> Json:
    """The summary without what is read of the finished corpus."""
    unread: Counter[str] = Counter()
    for unit in units:
        unread.update(unit["unread"])
    read = _by_source(units)
    return {
        "kind": "curation",
        "title": recipe.title or "A corpus",
        "asked": to_dict(recipe),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"system": f"{platform.system()} {platform.machine()}"},
        "workers": recipe.workers,
        "funnel": [
            {"step": name, **size.to_dict(), "seconds": round(counts.seconds.get(name, 0.0), 3)}
            for name, size in counts.after.items()
        ],
        "reasons": {name: size.to_dict() for name, size in _largest(counts.reasons)},
        "languages": {name: size.to_dict() for name, size in _largest(counts.languages)},
        "quarantine": {"total": unread.total(), "counts": dict(unread.most_common())},
        "sources": {
            name: {
                "read": read.get(name, Size()).to_dict(),
                "kept": kept.get(name, Size()).to_dict(),
                "license": source.license or "",
            }
            for name, source in recipe.sources.items()
        },
        "personal": dict(counts.personal),
        "changes": [_change(one) for one in _chosen(one for u in units for one in u["changes"])],
        "notes": [],
        "lineage": [],
    }


def told_scores(folder: Path, steps: Sequence[AnyStep]) -> Json:
    """How figures are spread over all documents that were judged, with examples and thresholds.

    Args:
        folder: Of the corpus.
        steps: Of the recipe.
    """
    bounds = _bounds(steps)
    scores = [f"score_{step.name}" for step in steps if isinstance(step, ScoreConfig)]
    tables = [_figures(folder / part) for part in (DOCUMENTS, DROPS)]
    rows = [row for table in tables for row in table][:MOST_ROWS]
    found = {}
    for name in (*SHOWN_FIGURES, *scores):
        there = [(row["stats"][name], row) for row in rows if _known(row, name)]
        if len(there) > 1:
            found[name] = {
                **_spread(sorted(there, key=lambda pair: pair[0])),
                "threshold": {"low": None, "high": None} | bounds.get(name, {}),
                "meaning": MEANINGS.get(name, name.replace("_", " ")),
            }
    return found


def _bounds(steps: Sequence[AnyStep]) -> dict[str, dict[str, float]]:
    """Thresholds by figure: where several steps have one, the narrowest."""
    found: dict[str, dict[str, float]] = {}
    for step in steps:
        for figure, bounds in _bounds_of(step).items():
            known = found.setdefault(figure, {})
            for side, limit in bounds.items():
                narrower = max if side == "low" else min
                known[side] = narrower(limit, known.get(side, limit))
    return found


def _bounds_of(step: AnyStep) -> dict[str, dict[str, float]]:
    if isinstance(step, GopherRepetition | GopherQuality | FineWeb):
        return bounds_of(step)
    if isinstance(step, LanguageConfig):
        return {"language_score": {"low": step.min_score}}
    if isinstance(step, ScoreConfig):
        sides = {"low": step.min_score, "high": step.max_score}
        return {f"score_{step.name}": {k: v for k, v in sides.items() if v is not None}}
    return {}


def told_clusters(folders: Sequence[Path], found: Sequence[Clusters]) -> list[Json]:
    """The largest clusters of duplicates, with the beginnings of their texts."""
    largest = [(clusters, rows) for clusters in found for rows in clusters.members()[:CLUSTERS]]
    largest = sorted(largest, key=lambda pair: -len(pair[1]))[:CLUSTERS]
    shown = [(clusters, rows, rows[: 1 + CLUSTER_DOCUMENTS]) for clusters, rows in largest]
    wanted = {clusters.ids[row].tobytes() for clusters, _, some in shown for row in some}
    texts = _texts(folders, wanted)
    told = []
    for clusters, rows, some in shown:
        each = [
            {
                **_shown(clusters.ids[row].tobytes(), texts),
                "similarity": float(clusters.similarity[row]),
            }
            for row in some
        ]
        told.append({"size": len(rows), "kept": each[0], "others": each[1:]})
    return told


def _by_source(units: Sequence[Json]) -> dict[str, Size]:
    sizes: dict[str, Size] = {}
    for unit in units:
        read = unit["counts"]["after"].get(READ)
        if read:
            sizes.setdefault(unit["source"], Size()).add(Size(**read))
    return sizes


def _largest(sizes: Mapping[str, Size]) -> list[tuple[str, Size]]:
    return sorted(sizes.items(), key=lambda pair: (-pair[1].documents, pair[0]))


def _chosen(changes: Iterable[Json]) -> list[Json]:
    """Changes of every step, and no more of one than of another: to compare texts takes long."""
    by_step: dict[str, list[Json]] = {}
    for one in changes:
        by_step.setdefault(one["step"], []).append(one)
    turns = zip_longest(*by_step.values())
    return [one for turn in turns for one in turn if one is not None][:CHANGES]


def _change(one: Json) -> Json:
    """Before and after as pieces: what is left, and what was removed."""
    before, after = (_WORDS.findall(one[name]) for name in ("before", "after"))
    pieces: list[list[Any]] = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, start, stop, new_start, new_stop in matcher.get_opcodes():
        if kind in ("delete", "replace"):
            pieces.append(["".join(before[start:stop]), True])
        if kind != "delete":
            pieces.append(["".join(after[new_start:new_stop]), False])
    return {"id": one["id"], "locator": one["locator"], "step": one["step"], "pieces": pieces}


def _figures(folder: Path) -> list[Json]:
    rows: list[Json] = []
    columns = ["id", "locator", "drop", "stats", "text"]
    for path in part_files(folder):
        for batch in read_batches(path, columns):
            texts = pc.utf8_slice_codeunits(batch.column("text"), 0, EXAMPLE_CHARACTERS)
            place = batch.schema.get_field_index("text")
            rows += batch.set_column(place, "text", texts).to_pylist()
            if len(rows) >= MOST_ROWS:
                return rows
    return rows


def _known(row: Json, name: str) -> bool:
    value = (row["stats"] or {}).get(name)
    return value is not None and bool(np.isfinite(value))


def _spread(there: list[tuple[float, Json]]) -> Json:
    values = np.array([value for value, _ in there])
    low, high = np.quantile(values, [0.01, 0.99])
    inside = np.clip(values, low, high)
    heights, edges = np.histogram(inside, bins=BINS)
    examples = []
    for quantile in QUANTILES:
        value, row = there[round(quantile * (len(there) - 1))]
        examples.append(
            {
                "quantile": quantile,
                "value": float(value),
                "id": row["id"].hex(),
                "locator": row["locator"],
                "text": row["text"],
                "drop": row["drop"],
            }
        )
    bins = [
        [float(a), float(b), int(n)] for a, b, n in zip(edges, edges[1:], heights, strict=False)
    ]
    return {"bins": bins, "examples": examples}


def _texts(folders: Sequence[Path], wanted: set[bytes]) -> dict[bytes, tuple[str, str]]:
    found: dict[bytes, tuple[str, str]] = {}
    if not wanted:
        return found
    for folder in folders:
        if not (folder / KEPT).exists():
            continue
        ids = pq.read_table(folder / KEPT, columns=["id"]).column("id").to_pylist()
        if wanted.isdisjoint(ids):
            continue
        for batch in read_batches(folder / KEPT, ["id", "locator", "text"]):
            for row in batch.to_pylist():
                if row["id"] in wanted:
                    found[row["id"]] = (row["locator"], row["text"][:EXAMPLE_CHARACTERS])
    return found


def _shown(id: bytes, texts: Mapping[bytes, tuple[str, str]]) -> Json:
    locator, text = texts.get(id, ("", ""))
    return {"id": id.hex(), "locator": locator, "text": text}
