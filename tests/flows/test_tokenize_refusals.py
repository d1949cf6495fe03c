"""What a tokenizing run refuses: before any work, and leaving nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.tokenizing_setup import asked, left_behind, rows, run
from puna.errors import InputError


@pytest.fixture
def model(tiny_base: Path) -> dict[str, str]:
    """The vocabulary of a tiny model."""
    return {"model": str(tiny_base)}


def refused(tmp_path: Path, recipe: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        run(tmp_path / "shards", recipe)
    assert not (tmp_path / "shards").exists()
    assert left_behind(tmp_path / "shards") == []


def test_a_source_without_documents(tmp_path: Path, model: dict[str, str]) -> None:
    recipe = asked(tmp_path, {"web": rows(5), "books": []}, model)
    refused(tmp_path, recipe, r"sources\.books: the source holds no document\n  fix: name other")
    (tmp_path / "books.jsonl").write_text("no json\n")
    refused(tmp_path, recipe, r"sources\.books: the source holds no document: 1 x ")
    (tmp_path / "books.jsonl").write_text('{"text": ""}\n')
    refused(tmp_path, recipe, r"sources\.books: the source holds no document")


def test_a_column_that_is_not_there(tmp_path: Path, model: dict[str, str]) -> None:
    recipe = asked(tmp_path, {"web": [{"content": "A text.", "url": "x"}]}, model)
    told = r"web\.jsonl:1: there is no column 'text'; there are 'content', 'url'"
    refused(tmp_path, recipe, told)
    recipe["sources"]["web"]["text"] = "contents"
    refused(tmp_path, recipe, r"fix: set sources\.web\.text: content$")


def test_files_that_are_not_there(tmp_path: Path, model: dict[str, str]) -> None:
    recipe = asked(tmp_path, {"web": rows(5)}, model)
    recipe["sources"]["web"]["files"] = str(tmp_path / "wep.jsonl")
    refused(tmp_path, recipe, r"sources\.web\.files: does not exist\n  fix: did you mean .*web\.js")


def test_a_source_of_which_nothing_is_left(tmp_path: Path, model: dict[str, str]) -> None:
    recipe = asked(tmp_path, {"web": rows(5), "books": rows(5)}, model)
    refused(tmp_path, recipe, "sources.books: of 5 documents none is left .*: 5 x duplicate")


def test_a_vocabulary_without_an_end(tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "base").mkdir()
    told = (tiny_base / "tokenizer.json").read_bytes()
    (tmp_path / "base" / "tokenizer.json").write_bytes(told)
    recipe = asked(tmp_path, {"web": rows(5)}, {"model": str(tmp_path / "base")})
    refused(tmp_path, recipe, "its vocabulary has no token that ends a text")
    recipe["vocabulary"] = {"model": "no-such-model"}
    refused(tmp_path, recipe, "there is no model 'no-such-model'")


def test_a_test_whose_texts_are_too_short(tmp_path: Path, model: dict[str, str]) -> None:
    (tmp_path / "test.txt").write_text("short\n")
    judged = {"files": str(tmp_path / "test.txt")}
    recipe = asked(tmp_path, {"web": rows(5)}, model, decontaminate=judged)
    refused(tmp_path, recipe, r"decontaminate: no text in them has 13 words\n  fix: lower")


def test_a_place_that_is_taken(tmp_path: Path, model: dict[str, str]) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "mine.txt").write_text("precious")
    recipe = asked(tmp_path, {"web": rows(5)}, model)
    with pytest.raises(InputError, match="already exists"):
        run(tmp_path / "shards", recipe)
    with pytest.raises(InputError, match=r"holds mine\.txt, which puna did not write"):
        run(tmp_path / "shards", recipe, force=True)
    with pytest.raises(InputError, match=r"the folder .*/no does not exist"):
        run(tmp_path / "no" / "shards", recipe)
