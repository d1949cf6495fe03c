"""`puna tokenize` as a user meets it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.tokenizing_setup import asked, rows
from puna.tokens.shards import open_shards

Call = Callable[..., Any]


@pytest.fixture
def recipe(tiny_folder: Path) -> Path:
    """A recipe in the folder at hand."""
    sources = {"web": rows(40), "books": [*rows(20, begin=500), *rows(2)]}
    told = asked(Path("data"), sources, {"model": str(tiny_folder)})
    path = Path("recipe.yaml")
    path.write_text(json.dumps(told, indent=1))
    return path


def test_from_a_recipe_to_shards(puna: Call, recipe: Path) -> None:
    ran = puna("tokenize", recipe, "held_out=0.2", "--out", "shards")
    assert (ran.code, ran.out) == (0, ""), ran.err
    shards = open_shards(Path("shards"))
    assert list(shards.sources) == ["web", "books"]
    assert re.search(r"^web: [\d,]+ tokens of \d+ documents to learn from, ", ran.err, re.M)
    assert re.search(r"^left out   2 x duplicate$", ran.err, re.M)
    assert re.search(r"^language +documents +text +tokens +tokens/word", ran.err, re.M)
    assert re.search(r"^rate       [\d,]+ tokens/s over [\d,]+ tokens$", ran.err, re.M)
    last = "use them   puna pretrain RECIPE shards=shards"
    assert ran.err.splitlines()[-1] == last
    told = json.loads(Path("shards/manifest.json").read_text())
    command = "puna tokenize recipe.yaml held_out=0.2 --out shards"
    assert told["measured"]["command"] == command


def test_the_same_command_again_and_another_one(puna: Call, recipe: Path) -> None:
    assert puna("tokenize", recipe, "--out", "shards").code == 0
    ran = puna("tokenize", recipe, "--out", "shards")
    assert ran.code == 0
    assert "these shards are here already; --force makes them again" in ran.err
    ran = puna("tokenize", recipe, "seed=1", "--out", "shards")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "puna: shards: already exists")
    assert puna("tokenize", recipe, "seed=1", "--out", "shards", "--force").code == 0


def test_quiet_and_a_log_file(puna: Call, recipe: Path) -> None:
    words = ("--out", "shards", "--quiet", "--log-file", "log.txt")
    ran = puna("tokenize", recipe, *words)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    told = Path("log.txt").read_text()
    for name in ("web", "books"):
        assert f" reading {name}: 1 done" in told
        assert f" tokenizing {name}: " in told
    assert "documents: web: " in told


@pytest.mark.parametrize("vocabulary", ["model", "train", "extend"])
def test_a_dry_run_writes_nothing(
    puna: Call, recipe: Path, tiny_folder: Path, vocabulary: str
) -> None:
    Path("test.txt").write_text("one two three four\nfive\n")
    choices = {
        "model": f"{{model: {tiny_folder}}}",
        "train": "{train: {size: 400}}",
        "extend": f"{{extend: {tiny_folder}, pieces: 9}}",
    }
    judged = "decontaminate={files: test.txt, ngram_words: 3}"
    before = sorted(Path().rglob("*"))
    ran = puna("tokenize", recipe, f"vocabulary={choices[vocabulary]}", judged, "--dry-run")
    assert ran.code == 0, ran.err
    assert sorted(Path().rglob("*")) == before
    assert "source      web: 1 files, " in ran.out
    assert "the first 40 documents: " in ran.out
    assert "held out    10.000% of the documents, at most 2,000 of a source" in ran.out
    assert "judged on   2 runs of 3 words" in ran.out
    assert ("tokens per byte" in ran.out) == (vocabulary != "train")
    assert ("at most about" in ran.out) == (vocabulary == "model")


def test_what_is_wrong_is_told_with_code_two(puna: Call, recipe: Path) -> None:
    ran = puna("tokenize", recipe)
    told = "puna: no folder is named for the shards\n  fix: add --out FOLDER\n"
    assert (ran.code, ran.err) == (2, told)
    ran = puna("tokenize", recipe, "sources.web.text=body", "--out", "shards")
    assert ran.code == 2
    assert "data/web.jsonl:1: there is no column 'body'; there are 'text'" in ran.err
    ran = puna("tokenize", recipe, "held=0.1", "--out", "shards")
    assert ran.code == 2
    assert "did you mean 'held_out'?" in ran.err
    assert not Path("shards").exists()
