"""A corpus as a source: filtered again by its figures, with other thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.test_curating import documents, recipe, run
from puna.errors import InputError
from puna.flows.curate_opening import document_story
from puna.flows.curating import Curated

STEPS: list[dict[str, Any]] = [
    {"step": "clean"},
    {"step": "statistics"},
    {"step": "gopher_quality", "min_words": 200},
]

ALONE = {"exact": None, "near": None}  # which of two copies stays may depend on their order


def curated(folder: Path, **changes: Any) -> Curated:
    return run(folder / "first", recipe(folder, steps=STEPS, dedup=ALONE, **changes))


def again(corpus: Path, out: Path, min_words: int) -> Curated:
    told = recipe(corpus.parent, dedup=ALONE)
    told["sources"] = {"again": {"files": str(corpus)}}
    told["steps"] = [{**STEPS[-1], "min_words": min_words, "min_stop_words": 0}]
    return run(out, told)


@pytest.mark.parametrize("min_words", [1, 300])
def test_other_thresholds_give_what_the_whole_recipe_would(tmp_path: Path, min_words: int) -> None:
    first = curated(tmp_path, keep_dropped="text")
    second = again(first.path, tmp_path / "second", min_words)
    told = recipe(tmp_path, dedup=ALONE)
    told["steps"] = [*STEPS[:-1], {**STEPS[-1], "min_words": min_words, "min_stop_words": 0}]
    whole = run(tmp_path / "whole", told)
    for part in ("documents", "dropped"):
        found, wanted = (
            {row["id"]: row for row in documents(done.path, part)} for done in (second, whole)
        )
        assert found.keys() == wanted.keys()
        for id, row in wanted.items():
            assert found[id]["drop"] == row["drop"]
            assert found[id]["stats"]["words"] == row["stats"]["words"]
            for name in ("text", "root_id", "url", "license", "language", "locator", "metadata"):
                assert found[id][name] == row[name], name
    assert (len(documents(second.path)) > len(documents(first.path))) == (min_words == 1)


def test_without_their_texts_what_was_dropped_stays_away(tmp_path: Path) -> None:
    first = curated(tmp_path)
    second = again(first.path, tmp_path / "second", 1)
    read = second.summary["funnel"][0]["documents"]
    assert read == len(documents(first.path))
    row = documents(second.path)[0]
    story = "\n".join(document_story(second.path, row["id"].hex()))
    assert "   1  Gopher quality: nothing to change" in story


def test_a_summary_that_is_damaged(tmp_path: Path) -> None:
    first = curated(tmp_path)
    (first.path / "summary.json").write_text("[1]")
    with pytest.raises(InputError, match="is damaged"):
        again(first.path, tmp_path / "second", 1)
