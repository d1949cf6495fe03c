"""The story of a document is found again by leading it through the steps once more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.test_curating import documents, recipe, run
from puna.flows.curate_opening import document_story
from puna.flows.curate_recipe import EXCERPT_CHARACTERS
from puna.flows.curating import Curated


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Curated:
    folder = tmp_path_factory.mktemp("replay")
    told = recipe(folder)
    told["steps"] = [*told["steps"], {"step": "statistics"}]  # once more
    return run(folder / "corpus", told)


def story(corpus: Curated, id: bytes) -> str:
    return "\n".join(document_story(corpus.path, id.hex()))


def test_one_that_is_kept(corpus: Curated) -> None:
    rows = documents(corpus.path)
    masked = next(row for row in rows if "for more" in row["text"])
    said = story(corpus, masked["id"])
    assert "jane.roe@wool-mail.net" in said, "the text as it was read"
    assert "email 1" in said or "e-mail address" in said
    assert "personal data: " in said
    assert "statistics (2): nothing to change" in said
    assert [row["step"] for row in corpus.summary["funnel"]][-3] == "statistics_2"


def test_one_that_is_dropped_by_a_rule(corpus: Curated) -> None:
    short = next(r for r in documents(corpus.path, "dropped") if r["text"] == "too short")
    lines = story(corpus, short["id"]).splitlines()
    steps = lines[lines.index("steps") + 1 :]
    assert "Gopher quality: dropped it" in steps[2]
    assert not steps[3].strip(), "no step comes after it"


def test_one_that_is_like_another(corpus: Curated) -> None:
    alike = {
        row["drop"]: row
        for row in documents(corpus.path, "dropped")
        if row["drop"].endswith("_duplicate")
    }
    for reason, kind in (("exact_duplicate", "exact duplicates"), ("near_duplicate", "near-")):
        said = story(corpus, alike[reason]["id"])
        assert f"2 {kind}" in said
        assert "was kept" in said
        assert "similarity" in said
        length = re.search(r"text[a-z ]* \(([\d,]+) characters\)", said)
        assert length is not None
        assert int(length[1].replace(",", "")) > EXCERPT_CHARACTERS, "all of its text"


def test_a_source_that_is_gone_or_another(tmp_path: Path) -> None:
    made = run(tmp_path / "corpus", recipe(tmp_path, count=2))
    row = documents(made.path)[0]
    path = tmp_path / "pages.jsonl"
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[-2:]) + b"\n")
    said = story(made, row["id"])
    assert "not known: it is no longer at" in said or "since" in said
    path.unlink()
    assert "not known: its source cannot be read again" in story(made, row["id"])
