"""`puna curate` and `puna show CORPUS` as a user meets them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows import test_curating as curating
from puna.artifact import read_manifest

Call = Callable[..., Any]


@pytest.fixture
def recipe() -> Path:
    """A recipe in the folder at hand."""
    path = Path("recipe.yaml")
    path.write_text(json.dumps(curating.recipe(Path("data"), count=6)))
    return path


def test_from_a_recipe_to_a_corpus(puna: Call, recipe: Path) -> None:
    ran = puna("curate", recipe, "title=Wool", "--out", "corpus")
    assert (ran.code, ran.out) == (0, ""), ran.err
    assert re.search(r"^read +10 +[\d.]+ MB +100.0%$", ran.err, re.M)
    assert re.search(r"^near_duplicate +7 ", ran.err, re.M)
    assert re.search(r"^put aside +1 x ", ran.err, re.M)
    assert ran.err.splitlines()[-1] == "use it             puna tokenize RECIPE corpus=corpus"
    told = read_manifest(Path("corpus/manifest.json"))
    assert told is not None
    command = "puna curate recipe.yaml title=Wool --out corpus"
    assert told["measured"]["command"] == command
    again = puna("curate", recipe, "title=Wool", "--out", "corpus")
    assert again.code == 0
    assert "this corpus is here already; --force makes it again" in again.err
    other = puna("curate", recipe, "dedup.near=null", "--out", "corpus")
    assert (other.code, other.err.splitlines()[0]) == (2, "puna: corpus: already exists")


def test_a_document_is_shown(puna: Call, recipe: Path) -> None:
    assert puna("curate", recipe, "--out", "corpus", "--quiet").err == ""
    shown = puna("show", "corpus")
    assert (shown.code, shown.err) == (0, "")
    assert re.search(r"^gopher_quality +9 ", shown.out, re.M)
    (row, *_) = pq.read_table("corpus/documents/pages/part-00000.parquet").to_pylist()
    story = puna("show", "corpus", "--doc", row["id"].hex())
    assert story.code == 0
    assert story.out.startswith(f"document      {row['id'].hex()}")
    assert "   1  cleaning: " in story.out
    missing = puna("show", "corpus", "--doc", "00")
    assert missing.code == 2
    assert "there is no document 00" in missing.err


def test_a_sample_is_no_corpus_of_its_own_name(puna: Call, recipe: Path) -> None:
    Path("runs").mkdir()
    ran = puna("curate", recipe, "--sample", "4")
    assert ran.code == 0, ran.err
    told = read_manifest(Path("runs/recipe-sample/manifest.json"))
    assert told is not None
    assert told["measured"]["command"].endswith("--sample 4")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stepps=[]"], "steps"),
        (["sources.pages.files=nothing/*.jsonl"], "nothing"),
        (['steps=[{"step": "clene"}]'], "clene"),
        (["unit_bytes=0"], "unit_bytes must be at least 1"),
    ],
)
def test_what_is_wrong_is_told(puna: Call, recipe: Path, words: list[str], said: str) -> None:
    ran = puna("curate", recipe, *words, "--out", "corpus")
    assert ran.code == 2
    assert ran.err.startswith("puna: ")
    assert said in ran.err
    assert not Path("corpus").exists()
