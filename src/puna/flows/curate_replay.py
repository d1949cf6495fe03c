"""One document, read again from its source and led through the steps of its recipe, one by one.

A corpus keeps what a document became. What it was, and what each step did to it, is found again
when somebody asks: steps are pure, so the same comes out as long as the source is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from puna.config import from_dict
from puna.corpus.read import Unread, plan_units, read_unit
from puna.corpus.schema import Found, alive, make_batch
from puna.errors import InputError
from puna.flows.curate_steps import CurateSteps
from puna.flows.curate_unit import Json

CHANGED = "the source has changed since"
MOST_FIGURES = 10  # of a step; those of `statistics` are told apart


def replay(asked: Mapping[str, Any], row: Mapping[str, Any]) -> Json:
    """What `curate_story.story_lines` is told of a document beyond its row.

    Args:
        asked: The recipe, as plain data.
        row: Of the corpus.

    Returns:
        `before`, the text as it was read, `steps`, and of one that was dropped its whole `text`;
        or `note`: why they are not known.
    """
    keys = ("sources", "steps", "dedup")
    recipe = from_dict(CurateSteps, {key: asked[key] for key in keys if key in asked})
    try:
        found = _found(recipe, row["source"], row["locator"], asked.get("unit_bytes") or 1 << 25)
    except InputError as error:
        return {"note": f"its source cannot be read again: {error}"}
    if found is None:
        return {"note": f"it is no longer at {row['locator']}"}
    batch = make_batch(row["source"], [found])
    steps, after = _led(recipe, batch, row)
    told = {"before": found.text, "steps": steps}
    return told if row.get("drop") is None else {**told, "text": after}


def _found(recipe: CurateSteps, source: str, locator: str, unit_bytes: int) -> Found | None:
    """The document at a place.

    Raises:
        InputError: The files of the source are not there.
    """
    config = recipe.sources[source]
    for unit in plan_units(source, config, unit_bytes):
        pieces = unit.pieces
        if unit.format != "corpus":  # where a document has the place that it was read from first
            pieces = tuple(piece for piece in pieces if locator.startswith(piece.place))
        for found in read_unit(replace(unit, pieces=pieces), config) if pieces else ():
            if not isinstance(found, Unread) and found.locator == locator:
                return found
    return None


def _led(
    recipe: CurateSteps, batch: pa.RecordBatch, row: Mapping[str, Any]
) -> tuple[list[Json], str]:
    """What each step does, to the one that drops the document, and what is left of the text."""
    drop, steps = row.get("drop"), list[Json]()
    for name, apply in recipe.opened():
        before, batch = batch, apply(batch)
        steps.append(_told(name, before, batch))
        if not alive(batch)[0]:
            break
    after = batch.column("text")[0].as_py()
    last = steps[-1].get("drop") if steps else None
    if last is not None and last != drop:
        steps[-1]["note"] = f"this has changed since: then it was {drop or 'kept'}"
    elif last is None and drop is not None:  # by what is known of all documents
        steps.append({"step": str(drop).partition(".")[0], "drop": drop})
    elif drop is None and after != row["text"]:
        note = "by lines that other documents have, too" if recipe.dedup.lines else CHANGED
        steps.append({"step": "repeated_line", "note": note, **_lengths(after, row["text"])})
    return steps, after


def _told(name: str, before: pa.RecordBatch, after: pa.RecordBatch) -> Json:
    texts = [batch.column("text")[0].as_py() for batch in (before, after)]
    known, new = (batch.column("stats")[0].as_py() for batch in (before, after))
    told: Json = {"step": name, **_lengths(*texts)}
    for key in ("drop", "error"):
        value = after.column(key)[0].as_py()
        if value is not None:
            told[key] = value
    language = after.column("language")[0].as_py()
    if language != before.column("language")[0].as_py():
        told["language"] = language
    figures = {key: value for key, value in new.items() if value is not None and key not in known}
    if 0 < len(figures) <= MOST_FIGURES:
        told["figures"] = figures
    return told


def _lengths(before: str, after: str) -> Json:
    return {"characters_before": len(before), "characters_after": len(after)}
