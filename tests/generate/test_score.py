"""Log-likelihoods equal those of the full forward pass, however texts are batched."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaForCausalLM

from generate import tiny
from puna.errors import InputError
from puna.generate import Score, score
from puna.model import LlamaModel

MODEL = "module"


@pytest.fixture(scope=MODEL)
def reference() -> LlamaForCausalLM:
    return tiny.reference()


@pytest.fixture(scope=MODEL)
def model(reference: LlamaForCausalLM) -> LlamaModel:
    return tiny.twin(reference)


def expected(reference: LlamaForCausalLM, ids: list[int]) -> list[float]:
    if len(ids) < 2:
        return []
    with torch.inference_mode():
        logprobs = reference(torch.tensor([ids])).logits[0].log_softmax(-1)
    return logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(0, tiny.VOCAB - 1), max_size=40), max_size=6),
    max_batch_tokens=st.sampled_from([1, 30, 60, 8192]),
)
def test_scores_are_those_of_the_full_forward(
    reference: LlamaForCausalLM, model: LlamaModel, texts: list[list[int]], max_batch_tokens: int
) -> None:
    found = score(model, texts, max_batch_tokens=max_batch_tokens)
    assert len(found) == len(texts)
    for ids, values in zip(texts, found, strict=True):
        wanted = expected(reference, ids)
        assert len(values) == len(wanted)
        assert values == pytest.approx(wanted, abs=3e-4, rel=1e-4)


def test_batches_are_bounded(model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    embed = model.embed

    def watched(ids: Tensor) -> Tensor:
        shapes.append(tuple(ids.shape))
        return embed(ids)

    monkeypatch.setattr(model, "embed", watched)
    texts = [[1] * length for length in (3, 50, 10, 10, 120, 2, 1, 0)]
    score(model, texts, max_batch_tokens=60)
    assert sorted(shapes) == [(1, 50), (1, 120), (4, 10)]  # a text alone may be longer


def test_a_text_longer_than_the_context_is_refused(model: LlamaModel) -> None:
    with pytest.raises(InputError, match="text 2: has 129 tokens; the model's context is 128"):
        score(model, [[1], [1] * 129])
    assert len(score(model, [[1] * 128])[0]) == 127


def test_the_arithmetic_of_a_score() -> None:
    found = Score(ids=(1, 2, 3), logprobs=(-math.log(2), -math.log(8)), bytes=8)
    assert found.total == pytest.approx(-4 * math.log(2))
    assert found.bits_per_byte == pytest.approx(0.5)  # 4 bits over 8 bytes
    assert found.perplexity == pytest.approx(4.0)  # 2 bits per token
    empty = Score(ids=(1,), logprobs=(), bytes=0)
    assert (empty.total, empty.bits_per_byte, empty.perplexity) == (0.0, 0.0, 1.0)
