"""What the report shows of single documents, gathered while all of them are written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from puna.corpus.dedup import Clusters
from puna.corpus.figures import MEANINGS
from puna.corpus.fineweb import FineWeb
from puna.corpus.gopher import GopherQuality, GopherRepetition
from puna.corpus.language import LanguageConfig
from puna.corpus.model_score import ScoreConfig
from puna.corpus.rules import bounds_of
from puna.flows.curate_steps import AnyStep
from puna.flows.curate_unit import Json

BINS = 30
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
EXAMPLE_CHARACTERS = 400
MOST_ROWS = 200_000  # that distributions are drawn from: the first ones
CLUSTERS = 12  # that are shown, the largest first
CLUSTER_DOCUMENTS = 5
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
_TOLD = ("id", "locator", "drop", "text")


class Seen:
    """Looks at the documents that pass by, and keeps what will be shown.

    Args:
        steps: Of the recipe.
        found: The clusters of duplicates.
    """

    def __init__(self, steps: Sequence[AnyStep], found: Sequence[Clusters]) -> None:
        self._bounds = _bounds(steps)
        scores = [f"score_{step.name}" for step in steps if isinstance(step, ScoreConfig)]
        self._names = (*SHOWN_FIGURES, *scores)
        self._judged: list[pa.RecordBatch] = []  # columns of `_TOLD`; `text` is its beginning
        self._figures: dict[str, list[np.ndarray]] = {name: [] for name in self._names}
        self._rows = 0
        largest = [(one, rows) for one in found for rows in one.members()[:CLUSTERS]]
        self._clusters = sorted(largest, key=lambda pair: -len(pair[1]))[:CLUSTERS]
        shown = [
            one.ids[row].tobytes()
            for one, rows in self._clusters
            for row in rows[: 1 + CLUSTER_DOCUMENTS]
        ]
        self._wanted = pa.array(shown, pa.binary())
        self._members: dict[bytes, Json] = {}

    def see(self, batch: pa.RecordBatch) -> None:
        """Documents after all steps, kept or dropped."""
        if len(self._wanted):
            ids = batch.column("id").cast(pa.binary())
            for row in _told(batch.filter(pc.is_in(ids, value_set=self._wanted))).to_pylist():
                self._members[row["id"]] = row
        stats: pa.StructArray = batch.column("stats")
        names = {stats.type.field(place).name for place in range(stats.type.num_fields)}
        if names.isdisjoint(self._names) or self._rows >= MOST_ROWS:
            return
        self._judged.append(_told(batch))
        self._rows += batch.num_rows
        for name, values in self._figures.items():
            if name in names:
                values.append(np.asarray(pc.struct_field(stats, name).fill_null(float("nan"))))
            else:
                values.append(np.full(batch.num_rows, np.nan, np.float32))

    def scores(self) -> Json:
        """How figures are spread over all documents that were judged, with examples."""
        if not self._judged:
            return {}
        table = pa.Table.from_batches(self._judged)
        found = {}
        for name, parts in self._figures.items():
            values = np.concatenate(parts)
            known = np.flatnonzero(np.isfinite(values))
            if len(known) > 1:
                order = known[np.argsort(values[known], kind="stable")]
                found[name] = {
                    **_spread(values[order]),
                    "examples": _examples(values, order, table),
                    "threshold": {"low": None, "high": None} | self._bounds.get(name, {}),
                    "meaning": MEANINGS.get(name, name.replace("_", " ")),
                }
        return found

    def clusters(self) -> list[Json]:
        """The largest clusters of duplicates, with the beginnings of their texts."""
        told = []
        for clusters, rows in self._clusters:
            each = []
            for row in rows[: 1 + CLUSTER_DOCUMENTS]:
                id = clusters.ids[row].tobytes()
                known = self._members.get(id, {})
                one = {"id": id.hex(), "locator": known.get("locator", "")}
                similarity = float(clusters.similarity[row])
                each.append({**one, "text": known.get("text", ""), "similarity": similarity})
            told.append({"size": len(rows), "kept": each[0], "others": each[1:]})
        return told


def _told(batch: pa.RecordBatch) -> pa.RecordBatch:
    """What is shown of documents."""
    texts = pc.utf8_slice_codeunits(batch.column("text"), 0, EXAMPLE_CHARACTERS)
    columns = [batch.column(name) for name in _TOLD[:-1]]
    return pa.RecordBatch.from_arrays([*columns, texts], names=list(_TOLD))


def _spread(values: np.ndarray) -> Json:
    """A histogram of values in their order, without the outermost hundredths."""
    low, high = np.quantile(values, [0.01, 0.99])
    heights, edges = np.histogram(np.clip(values, low, high), bins=BINS)
    pairs = zip(edges, edges[1:], heights, strict=False)
    return {"bins": [[float(a), float(b), int(n)] for a, b, n in pairs]}


def _examples(values: np.ndarray, order: np.ndarray, table: pa.Table) -> list[Json]:
    """Documents at some quantiles."""
    places = [int(order[round(quantile * (len(order) - 1))]) for quantile in QUANTILES]
    rows = table.take(places).to_pylist()
    return [
        {
            "quantile": quantile,
            "value": float(values[place]),
            **row,
            "id": row["id"].hex(),
        }
        for quantile, place, row in zip(QUANTILES, places, rows, strict=True)
    ]


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
