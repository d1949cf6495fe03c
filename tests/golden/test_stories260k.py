"""A trained model of 260 thousand parameters tells its story word for word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from golden.llama2c import Tokenizer, read_model
from puna.model import ContiguousCache, LlamaModel, count, preset

pytestmark = pytest.mark.data
PROMPT = "Once upon a time"
FRESH_TOKENS = 60


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "stories260k"


@pytest.fixture(scope="module")
def story(folder: Path) -> str:
    """The reference sample, from the note beside the weights."""
    note = (folder / "LICENSE-NOTE.txt").read_text(encoding="utf-8")
    found = re.search(rf'"({PROMPT}.*?)"', note)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def model(folder: Path) -> LlamaModel:
    return read_model(folder / "stories260K.bin")


@pytest.fixture(scope="module")
def tokenizer(folder: Path, model: LlamaModel) -> Tokenizer:
    return Tokenizer(folder / "tok512.bin", model.config.vocab_size)


def test_the_shape_is_the_preset(model: LlamaModel) -> None:
    assert model.config == preset("stories260k")
    assert sum(p.numel() for p in model.parameters()) == count(model.config).parameters


def test_the_prompt_is_cut_into_pieces(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(PROMPT)
    assert tokenizer.decode(ids) == PROMPT
    assert len(ids) < len(PROMPT) // 2


def test_greedy_continuation_over_a_cache(
    model: LlamaModel, tokenizer: Tokenizer, story: str
) -> None:
    ids = tokenizer.encode(PROMPT)
    cache = ContiguousCache(model.config, batch=1, max_tokens=len(ids) + FRESH_TOKENS)
    new = ids
    with torch.inference_mode():
        for _ in range(FRESH_TOKENS):
            new = [int(model(torch.tensor([new]), cache=cache)[0, -1].argmax())]
            ids = ids + new
    text = tokenizer.decode(ids)
    assert len(story) > 150
    assert text.startswith(story)


def test_greedy_continuation_without_a_cache(
    model: LlamaModel, tokenizer: Tokenizer, story: str
) -> None:
    """The story, read at once: each of its tokens is the likeliest after those before it."""
    ids = torch.tensor([tokenizer.encode(story)])
    prompt = len(tokenizer.encode(PROMPT))
    likeliest = model(ids)[0].argmax(-1)
    # The last piece may be cut short by the end of the sample.
    assert torch.equal(likeliest[prompt - 1 : -2], ids[0, prompt:-1])
