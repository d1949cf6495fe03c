"""The decoding loop: the tokens of transformers' `generate`, and when a sequence ends."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from generate import tiny
from puna.errors import InputError
from puna.generate import Sampling, Step, decode, engine
from puna.model import ContiguousCache, LlamaModel

PROMPTS = [[5, 9, 11], [7], [3, 1, 4, 1, 5, 9, 2, 6, 5], [8, 8, 2], list(range(20, 60))]
Running = Generator[list[Step], set[int], None]


@pytest.fixture(scope="module")
def reference() -> LlamaForCausalLM:
    return tiny.reference()


@pytest.fixture(scope="module")
def model(reference: LlamaForCausalLM) -> LlamaModel:
    return tiny.twin(reference)


def finished(batches: Iterator[list[Step]], rows: int) -> list[list[Step]]:
    """All steps by row."""
    steps: list[list[Step]] = [[] for _ in range(rows)]
    for batch in batches:
        for step in batch:
            steps[step.row].append(step)
    return steps


def decoded(
    model: LlamaModel, prompts: Sequence[Sequence[int]], sampling: Sampling, **more: Any
) -> list[list[int]]:
    steps = finished(decode(model, prompts, sampling, **more), len(prompts))
    return [[step.id for step in row] for row in steps]


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_greedy_tokens_are_those_of_transformers(
    reference: LlamaForCausalLM, model: LlamaModel, prompt: list[int]
) -> None:
    expected = tiny.greedy(reference, prompt, 40)
    assert len(set(expected)) > 3, "a text of one token proves little"
    assert decoded(model, [prompt], Sampling(max_tokens=40)) == [expected]


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True, "attention_bias": True},
        {"num_key_value_heads": 4, "head_dim": 16, "mlp_bias": True},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    ],
    ids=["tied", "wide heads", "linear rope"],
)
def test_greedy_tokens_of_other_shapes(changes: dict[str, object]) -> None:
    reference = tiny.reference(seed=1, **changes)
    expected = tiny.greedy(reference, PROMPTS[2], 30)
    assert decoded(tiny.twin(reference), [PROMPTS[2]], Sampling(max_tokens=30)) == [expected]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=30),
        Sampling(max_tokens=30, temperature=1.0, seed=4),
        Sampling(max_tokens=30, temperature=0.8, top_p=0.9, repetition_penalty=1.2, seed=4),
    ],
    ids=["greedy", "sampled", "penalized"],
)
def test_a_batch_gives_what_its_prompts_give_alone(model: LlamaModel, sampling: Sampling) -> None:
    alone = [
        decoded(model, [prompt], sampling, first_stream=row)[0]
        for row, prompt in enumerate(PROMPTS)
    ]
    assert decoded(model, PROMPTS, sampling) == alone
    same_length = [PROMPTS[0], PROMPTS[3]]
    assert decoded(model, same_length, Sampling(max_tokens=30)) == [
        decoded(model, [prompt], Sampling(max_tokens=30))[0] for prompt in same_length
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_a_batch_whose_sequences_end_at_different_times(
    model: LlamaModel, temperature: float, penalty: float
) -> None:
    sampling = Sampling(max_tokens=30, temperature=temperature, repetition_penalty=penalty)
    whole = decoded(model, PROMPTS, sampling)
    stop = whole[0][4]
    expected = [row[: row.index(stop) + 1] if stop in row else row for row in whole]
    assert len({len(row) for row in expected}) > 1
    assert decoded(model, PROMPTS, replace(sampling, stop_tokens=(stop,))) == expected


def test_max_tokens_end_a_sequence(model: LlamaModel) -> None:
    steps = finished(decode(model, PROMPTS, Sampling(max_tokens=3)), len(PROMPTS))
    for row, own in enumerate(steps):
        assert [step.finish for step in own] == [None, None, "length"]
        assert {step.row for step in own} == {row}
    assert finished(decode(model, [[1]], Sampling(max_tokens=1)), 1)[0][0].finish == "length"


def test_stop_tokens_and_stop_ids_end_a_sequence(model: LlamaModel) -> None:
    whole = decoded(model, [PROMPTS[0]], Sampling(max_tokens=20))[0]
    stop = whole[3]
    cut = whole[: whole.index(stop) + 1]
    by_ids = finished(decode(model, [PROMPTS[0]], Sampling(max_tokens=20), stop_ids={stop}), 1)[0]
    tokens = Sampling(max_tokens=20, stop_tokens=(stop,), ignore_eos=True)
    by_tokens = finished(decode(model, [PROMPTS[0]], tokens, stop_ids={whole[0]}), 1)[0]
    for steps in (by_ids, by_tokens):
        assert [step.id for step in steps] == cut
        assert [step.finish for step in steps] == [None] * (len(cut) - 1) + ["stop"]


def test_a_stop_token_at_the_last_place_is_a_stop(model: LlamaModel) -> None:
    whole = decoded(model, [PROMPTS[0]], Sampling(max_tokens=20))[0]
    place = next(i for i, token in enumerate(whole) if token not in whole[:i] and i > 0)
    sampling = Sampling(max_tokens=place + 1, stop_tokens=(whole[place],))
    assert finished(decode(model, [PROMPTS[0]], sampling), 1)[0][-1].finish == "stop"


def test_ignore_eos_goes_on(model: LlamaModel) -> None:
    whole = decoded(model, [PROMPTS[0]], Sampling(max_tokens=20))[0]
    sampling = Sampling(max_tokens=20, ignore_eos=True)
    assert decoded(model, [PROMPTS[0]], sampling, stop_ids=set(whole)) == [whole]


def test_the_context_ends_a_sequence(model: LlamaModel) -> None:
    context = model.config.max_position_embeddings
    prompts = [[1] * (context - 4), [2, 3]]
    steps = finished(decode(model, prompts, Sampling(max_tokens=1000)), 2)
    assert [len(own) for own in steps] == [4, context - 2]
    assert [own[-1].finish for own in steps] == ["length", "length"]
    last = finished(decode(model, [[1] * (context - 1)], Sampling()), 1)[0]
    assert [step.finish for step in last] == ["length"]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_logprobs_are_those_of_the_full_forward(
    reference: LlamaForCausalLM, model: LlamaModel, temperature: float
) -> None:
    sampling = Sampling(max_tokens=12, temperature=temperature, repetition_penalty=1.3, logprobs=5)
    for row, steps in enumerate(finished(decode(model, PROMPTS, sampling), len(PROMPTS))):
        ids = [*PROMPTS[row], *(step.id for step in steps)]
        with torch.inference_mode():
            logits: Tensor = reference(torch.tensor([ids])).logits[0]
        expected = logits.log_softmax(-1)[len(PROMPTS[row]) - 1 : -1]  # of the new tokens
        own = expected.gather(1, torch.tensor([[step.id] for step in steps]))[:, 0]
        found = torch.tensor([step.logprob for step in steps])
        torch.testing.assert_close(found, own, atol=2e-4, rtol=1e-4)
        best = expected.topk(5)
        assert [[id_ for id_, _ in step.top] for step in steps] == best.indices.tolist()
        values = torch.tensor([[value for _, value in step.top] for step in steps])
        torch.testing.assert_close(values, best.values, atol=2e-4, rtol=1e-4)


def test_how_many_logprobs(model: LlamaModel) -> None:
    none, zero, all_ = (
        next(decode(model, [[1]], Sampling(logprobs=wanted)))[0] for wanted in (-1, 0, 100)
    )
    assert (none.logprob, none.top) == (None, ())
    assert zero.logprob is not None
    assert zero.top == ()
    assert len(all_.top) == tiny.VOCAB  # there are no more
    assert sum(torch.tensor([v for _, v in all_.top]).exp()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("size", [1, 5, 7])
def test_a_long_prompt_is_read_in_pieces(
    model: LlamaModel, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    whole = decoded(model, PROMPTS, Sampling(max_tokens=10))
    seen: list[int] = []
    embed = model.embed

    def watched(ids: Tensor) -> Tensor:
        seen.append(ids.shape[1])
        return embed(ids)

    monkeypatch.setattr(engine, "PREFILL_TOKENS", size)
    monkeypatch.setattr(model, "embed", watched)
    assert decoded(model, PROMPTS, Sampling(max_tokens=10)) == whole
    assert max(seen) <= size


def test_rows_end_when_they_are_sent(model: LlamaModel) -> None:
    whole = decoded(model, PROMPTS, Sampling(max_tokens=6))
    batches = cast(Running, decode(model, PROMPTS, Sampling(max_tokens=6)))
    seen = [next(batches), batches.send({0, 3}), batches.send(set()), batches.send({1, 2})]
    assert [[step.row for step in batch] for batch in seen] == [
        [0, 1, 2, 3, 4],
        [1, 2, 4],
        [1, 2, 4],
        [4],
    ]
    assert [step.id for batch in seen for step in batch if step.row == 4] == whole[4][:4]
    with pytest.raises(StopIteration):
        batches.send({4})


def test_what_a_cache_holds_is_not_computed_again(
    model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = PROMPTS[4]
    whole = decoded(model, [prompt], Sampling(max_tokens=10))
    cache = ContiguousCache(model.config, batch=1, max_tokens=60)
    with torch.inference_mode():
        model(torch.tensor([prompt]), cache=cache)
    cache.rewind([30])
    seen: list[int] = []
    embed = model.embed

    def watched(ids: Tensor) -> Tensor:
        seen.append(ids.shape[1])
        return embed(ids)

    monkeypatch.setattr(model, "embed", watched)
    assert decoded(model, [prompt], Sampling(max_tokens=10), cache=cache) == whole
    assert seen[0] == 10
    assert set(seen[1:]) <= {1}
    with pytest.raises(InputError, match="holds the whole prompt already; rewind it by one token"):
        next(decode(model, [prompt[:5]], Sampling(), cache=_rewound(cache, 5)))


def _rewound(cache: ContiguousCache, tokens: int) -> ContiguousCache:
    cache.rewind([tokens])
    return cache


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([[1], []], "prompt 2: empty: there is nothing to continue"),
        ([[1] * 128], "prompt 1: has 128 tokens; the model's context is 128"),
        ([[1, tiny.VOCAB]], "prompt 1: has the token id 96; the model knows 0 to 95"),
        ([[5, -1]], "prompt 1: has the token id -1; the model knows 0 to 95"),
    ],
)
def test_prompts_that_cannot_be_continued(
    model: LlamaModel, prompts: list[list[int]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        next(decode(model, prompts, Sampling()))


def test_the_model_is_not_changed(model: LlamaModel) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decoded(model, PROMPTS, Sampling(max_tokens=5, temperature=1.0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert list(decode(model, [], Sampling())) == []
