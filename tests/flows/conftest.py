"""A tiny base and its data, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.tuning_setup import asked, pairs, save_base, write_rows

Recipe = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers with a chat template."""
    return save_base(tmp_path_factory.mktemp("tuning") / "base")


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs."""
    return write_rows(tmp_path_factory.mktemp("tuning") / "pairs.jsonl", pairs())


@pytest.fixture
def recipe(tiny_base: Path, pairs_file: Path) -> Recipe:
    """Makes recipes for them; `recipe(method={...})` replaces an entry."""

    def make(**changes: Any) -> dict[str, Any]:
        return asked(tiny_base, pairs_file, **changes)

    return make


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of two sources, with a vocabulary of 300 tokens."""
    from flows.pretraining_setup import make_shards, texts

    sources = {"tales": texts(), "notes": texts(120, begin=1000)}
    folder = tmp_path_factory.mktemp("pretraining")
    return make_shards(folder, sources, {"train": {"size": 300}})
