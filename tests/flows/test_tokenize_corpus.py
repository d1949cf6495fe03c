"""From a curated corpus to shards: its sources, the names of its documents, and its identity."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.test_curating import documents, identity, recipe, run
from flows.tuning_setup import Heard
from puna.artifact import read_manifest
from puna.config import from_dict
from puna.errors import InputError
from puna.flows.tokenize_corpus import UNKNOWN, with_corpus
from puna.flows.tokenize_recipe import TokenizeRecipe
from puna.flows.tokenize_trial import rehearse
from puna.flows.tokenizing import TokenizeOptions, tokenize
from puna.tokens.shard_file import SPLITS
from puna.tokens.shards import open_shards


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    told = recipe(folder)
    more = folder / "more.txt"
    more.write_text("\n".join(f"Line {n} tells of a llama, and of {n} more." for n in range(20)))
    told["sources"]["pages-2"] = {"files": str(more), "documents": "line"}
    told["steps"], told["dedup"] = [{"step": "clean"}], {"near": None}
    return run(folder / "corpus", told).path


def asked(corpus: Path, **changes: Any) -> TokenizeRecipe:
    told = {"corpus": str(corpus), "vocabulary": {"train": {"size": 300}}, "held_out": 0.1}
    return from_dict(TokenizeRecipe, {**told, "meter": {"use_codecarbon": False}, **changes})


def test_documents_keep_their_names_and_licences(corpus: Path, tmp_path: Path) -> None:
    made = tokenize(asked(corpus), TokenizeOptions(tmp_path / "shards"), Heard())
    shards = open_shards(made.path)
    assert list(shards.sources) == ["pages", "pages-2"]
    rows = documents(corpus)
    for name, source in shards.sources.items():
        found = {
            (part.id(place), part.root(place), shards.licences[part.licence(place)])
            for part in map(source.split, SPLITS)
            for place in range(part.count)
        }
        assert found == {
            (row["id"], row["root_id"], row["license"] or UNKNOWN)
            for row in rows
            if row["source"] == name
        }
    told = read_manifest(made.path / "manifest.json")
    assert told is not None
    assert told["identity"]["parents"][0] == f"corpus {identity(corpus)}"


def test_other_sources_beside_a_corpus(corpus: Path, tmp_path: Path) -> None:
    beside = tmp_path / "more.txt"
    beside.write_text("one more\nand another\n")
    more = {"files": str(beside), "licence": "CC0-1.0"}
    both = with_corpus(asked(corpus, sources={"more": more}))
    assert list(both.sources) == ["pages", "pages-2", "more"]
    assert any("pages-2" in line for line in rehearse(asked(corpus, sources={"more": more})))
    with pytest.raises(InputError, match="has a source 'pages', too"):
        with_corpus(asked(corpus, sources={"pages": more}))


def test_what_is_no_corpus(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        with_corpus(asked(tmp_path / "nothing"))
    with pytest.raises(InputError, match="is no corpus"):
        with_corpus(asked(tmp_path))
    empty = tmp_path / "empty"
    shutil.copytree(corpus, empty)
    shutil.rmtree(empty / "documents")
    with pytest.raises(InputError, match="everything was dropped"):
        with_corpus(asked(empty))
    with pytest.raises(InputError, match="there are no sources"):
        from_dict(TokenizeRecipe, {"vocabulary": {"train": {"size": 300}}})
