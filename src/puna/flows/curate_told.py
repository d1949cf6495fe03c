"""What a curation's summary says, as plain data: the funnel, figures, examples, clusters."""

from __future__ import annotations

import difflib
import platform
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from puna.config import to_dict
from puna.flows.curate_counts import READ, Counts, Size
from puna.flows.curate_recipe import CurateRecipe
from puna.flows.curate_unit import Json

CHANGES = 12
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
