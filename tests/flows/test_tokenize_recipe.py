"""Tokenizing recipes: what they say, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from house.source import REPOSITORY
from puna.config import from_dict, load_recipe, to_dict
from puna.errors import InputError
from puna.flows.tokenize_recipe import TokenizeRecipe

WEB = {"files": "web.jsonl", "licence": "MIT"}


def recipe(**changes: Any) -> TokenizeRecipe:
    told = {"sources": {"web": WEB}, "vocabulary": {"model": "llama-base"}, **changes}
    return from_dict(TokenizeRecipe, told, "recipe")


def test_the_recipe_to_copy_says_what_the_page_does() -> None:
    told = load_recipe(REPOSITORY / "recipes" / "tokenize.yaml", TokenizeRecipe)
    assert list(told.sources) == ["web", "books", "laws"]
    assert told.sources["books"].documents == "file"
    assert told.sources["laws"].text == "content"
    assert told.vocabulary.train is not None
    assert told.decontaminate is None


def test_what_nothing_depends_on_is_not_hashed() -> None:
    assert recipe(threads=3, meter={"idle_watts": 3.0}).hashed() == recipe().hashed()
    assert recipe(seed=1).hashed() != recipe().hashed()
    assert from_dict(TokenizeRecipe, to_dict(recipe()), "again") == recipe()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sources": {}}, "there are no sources"),
        ({"sources": {"a/b": WEB}}, "the source 'a/b' cannot be the name of a folder"),
        ({"sources": {"shards.json": WEB}}, r"'shards\.json' cannot be the name of a folder"),
        ({"sources": {"..": WEB}}, "cannot be the name of a folder"),
        ({"sources": {"Web": WEB, "web": WEB}}, "'Web' and 'web' differ in case only"),
        ({"sources": {"web": {"files": "x"}}}, r"missing key 'sources\.web\.licence'"),
        ({"sources": {"web": {**WEB, "licence": " "}}}, r"sources\.web: licence is empty"),
        ({"sources": {"web": {**WEB, "max_documents": 0}}}, "max_documents must be at least 1"),
        ({"sources": {"web": {**WEB, "documents": "line"}}}, "expected one of 'row', 'file'"),
        ({"sources": {"web": {**WEB, "lang": "en"}}}, "unknown key .*did you mean"),
        ({"vocabulary": {}}, "names nothing; expected one of train, model and extend"),
        ({"vocabulary": {"model": "a", "train": {}}}, "names train, model; expected one"),
        ({"vocabulary": {"extend": "a"}}, "extend and pieces go together"),
        ({"vocabulary": {"model": "a", "pieces": 3}}, "extend and pieces go together"),
        ({"vocabulary": {"extend": "a", "pieces": 0}}, "pieces must be at least 1, not 0"),
        ({"vocabulary": {"train": {"size": 7}}}, r"vocabulary\.train: .*too small"),
        ({"held_out": 0.6}, r"held_out is 0\.6; it must be a share from 0 to 0\.5"),
        ({"held_out": -0.1}, "held_out is -0.1"),
        ({"held_out": float("nan")}, "held_out is nan"),
        ({"max_held_out": 0}, "max_held_out must be at least 1, not 0"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"shard_tokens": 0}, "shard_tokens must be at least 1, not 0"),
        ({"decontaminate": {"files": "x", "ngram_words": 0}}, "ngram_words must be at least 1"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=rf"(?s){told}"):
        recipe(**changes)


def test_a_wrong_key_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "sources:\n  web: {files: a.jsonl, licence: MIT}\nvocabulary: {modle: llama-base}\n"
    )
    with pytest.raises(InputError, match=r"a\.yaml:3: unknown key .*\n  fix: did you mean 'voc"):
        load_recipe(path, TokenizeRecipe)
