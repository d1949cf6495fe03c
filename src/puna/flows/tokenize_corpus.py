"""A curated corpus as what is tokenized: each of its sources is one that a mixture weighs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from puna.errors import InputError
from puna.flows.tokenize_recipe import SourceConfig, TokenizeRecipe
from puna.records.corpus_folder import DOCUMENTS, corpus_identity

UNKNOWN = "unknown"  # the licence of documents that have none


def with_corpus(recipe: TokenizeRecipe) -> TokenizeRecipe:
    """The recipe with the sources of its corpus, before its own ones.

    Raises:
        InputError: The folder is no corpus, nothing was kept in it, or a source is named twice.
    """
    if recipe.corpus is None:
        return recipe
    path = Path(recipe.corpus)
    _identity(path)
    folders = sorted(folder for folder in (path / DOCUMENTS).glob("*") if folder.is_dir())
    if not folders:
        raise InputError("holds no document: everything was dropped", where=path)
    twice = sorted({folder.name for folder in folders} & recipe.sources.keys())
    if twice:
        raise InputError(
            f"the corpus has a source {twice[0]!r}, too",
            where=f"sources.{twice[0]}",
            fix="rename the one in the recipe",
        )
    found = {folder.name: SourceConfig(str(folder), UNKNOWN) for folder in folders}
    return replace(recipe, sources=found | recipe.sources)


def corpus_parents(recipe: TokenizeRecipe) -> list[str]:
    """What the shards descend from, as their manifest names it."""
    return [] if recipe.corpus is None else [f"corpus {_identity(Path(recipe.corpus))}"]


def _identity(path: Path) -> str:
    found = corpus_identity(path)
    if found is None:
        raise InputError(
            "is no corpus" if path.exists() else "does not exist",
            where=path,
            fix="name a folder that `puna curate` made; other files belong below `sources`",
        )
    return found
