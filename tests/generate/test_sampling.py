"""Every sampler equals its reference distribution: as a formula, and by counts of its draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from puna.errors import InputError
from puna.generate import Sampler, Sampling

FALSE_ALARM = 1e-6  # probability, over seeds, that a right sampler fails one count test
ROWS, REPEATS = 2000, 10  # random streams, and draws from each

LOGITS = torch.tensor([2.0, 1.0, 1.0, 0.0, -1.0, 0.5])  # two tokens tie


@st.composite
def random_logits(draw: st.DrawFn) -> Tensor:
    """[B, V] float32; half of the time rounded, so that ties are common."""
    rows, vocab = draw(st.integers(1, 4)), draw(st.integers(2, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits = torch.randn(rows, vocab, generator=generator) * draw(st.sampled_from([0.1, 1, 8]))
    return logits.round() if draw(st.booleans()) else logits


@settings(max_examples=100, deadline=None)
@given(
    logits=random_logits(),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 5, 100]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
)
def test_filter_is_that_of_transformers(
    logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    ours = Sampler(sampling, [[0]] * len(logits), logits.shape[1]).filter(logits)
    ids = torch.zeros(len(logits), 1, dtype=torch.long)
    torch.testing.assert_close(ours, warpers(ids, logits), rtol=0, atol=0)


@settings(max_examples=80, deadline=None)
@given(logits=random_logits(), penalty=st.sampled_from([0.5, 0.9, 1.1, 1.3, 5.0]), data=st.data())
def test_repetition_penalty_is_that_of_transformers(
    logits: Tensor, penalty: float, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, logits.shape[1] - 1), min_size=1, max_size=10))
    prompts = [ids] * len(logits)
    sampler = Sampler(Sampling(repetition_penalty=penalty), prompts, logits.shape[1])
    for _ in range(2):  # over the prompt, then over what was generated too
        expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(prompts), logits)
        torch.testing.assert_close(sampler.penalize(logits), expected, rtol=0, atol=0)
        chosen = sampler(logits)
        prompts = [[*row, new] for row, new in zip(prompts, chosen.tolist(), strict=True)]


def openai(logits: Tensor, generated: Sequence[int], presence: float, frequency: float) -> Tensor:
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, as the API reference gives it."""
    expected = logits.clone()
    for token in range(len(logits)):
        count = list(generated).count(token)
        expected[token] -= count * frequency + (count > 0) * presence
    return expected


@pytest.mark.parametrize(("presence", "frequency"), [(0.7, 0.0), (0.0, 0.4), (0.7, -0.4)])
def test_presence_and_frequency_are_those_of_the_openai_reference(
    presence: float, frequency: float
) -> None:
    sampling = Sampling(
        temperature=1.0, presence_penalty=presence, frequency_penalty=frequency, seed=1
    )
    sampler = Sampler(sampling, [[0, 0, 3]], len(LOGITS))  # the prompt does not count
    generated: list[int] = []
    for _ in range(12):
        expected = openai(LOGITS, generated, presence, frequency)
        torch.testing.assert_close(sampler.penalize(LOGITS[None])[0], expected)
        generated += sampler(LOGITS[None]).tolist()
    assert len(set(generated)) > 1


def p_value(counts: Tensor, expected: Tensor) -> float:
    """Pearson's chi-square test: the probability of a larger deviation if `expected` is true."""
    possible = expected > 0
    assert not counts[~possible].any(), "a token was drawn that has no probability"
    counts, expected = counts[possible].double(), expected[possible].double()
    statistic = ((counts - expected) ** 2 / expected).sum()
    if len(expected) == 1:
        return float(statistic == 0)
    return float(torch.special.gammaincc(torch.tensor((len(expected) - 1) / 2), statistic / 2))


DISTRIBUTIONS = {
    "temperature": (Sampling(temperature=0.5), (LOGITS / 0.5).softmax(-1)),
    "model's own": (Sampling(temperature=1.0), LOGITS.softmax(-1)),
    "top-k": (
        Sampling(temperature=1.0, top_k=2),  # the tie keeps three
        torch.tensor([math.e, 1, 1, 0, 0, 0]) / (math.e + 2),
    ),
    "top-p": (  # 0.48 + 0.18 are not 0.7; with the next 0.18 they are
        Sampling(temperature=1.0, top_p=0.7),
        torch.tensor([math.e, 1, 1, 0, 0, 0]) / (math.e + 2),
    ),
    "min-p": (  # exp(-1.5) is 0.22 of the likeliest
        Sampling(temperature=1.0, min_p=0.2),
        torch.tensor([2.0, 1.0, 1.0, -torch.inf, -torch.inf, 0.5]).softmax(-1),
    ),
    "all": (
        Sampling(temperature=2.0, top_k=4, top_p=0.95, min_p=0.5),
        torch.tensor([1.0, 0.5, 0.5, -torch.inf, -torch.inf, -torch.inf]).softmax(-1),
    ),
    "only the likeliest": (Sampling(temperature=1.0, top_p=1e-9), torch.eye(6)[0]),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_have_the_reference_distribution(name: str) -> None:
    sampling, expected = DISTRIBUTIONS[name]
    sampler = Sampler(sampling, [[0]] * ROWS, len(LOGITS))
    logits = LOGITS.expand(ROWS, -1)
    drawn = torch.stack([sampler(logits) for _ in range(REPEATS)])
    counts = torch.bincount(drawn.flatten(), minlength=len(LOGITS))
    assert p_value(counts, expected * ROWS * REPEATS) > FALSE_ALARM


def test_a_wrong_distribution_is_seen() -> None:
    expected = LOGITS.softmax(-1) * ROWS * REPEATS
    skewed = (LOGITS / 1.15).softmax(-1) * ROWS * REPEATS
    assert p_value(skewed.round(), expected) < FALSE_ALARM


def test_penalized_draws_have_the_reference_distribution() -> None:
    """Pairs of draws: the second depends on the first by the penalties."""
    sampling = Sampling(
        temperature=0.8,
        repetition_penalty=1.4,
        presence_penalty=0.5,
        frequency_penalty=0.3,
        seed=5,
    )
    rows, vocab, prompt = 20_000, len(LOGITS), [0, 4]
    sampler = Sampler(sampling, [prompt] * rows, vocab)
    logits = LOGITS.expand(rows, -1)
    first, second = sampler(logits), sampler(logits)
    counts = torch.bincount(first * vocab + second, minlength=vocab**2)

    def law(generated: list[int]) -> Tensor:
        seen = torch.tensor([[*prompt, *generated]])
        divided = RepetitionPenaltyLogitsProcessor(1.4)(seen, LOGITS[None])[0]
        return (openai(divided, generated, 0.5, 0.3) / 0.8).softmax(-1)

    expected = torch.cat([law([])[token] * law([token]) for token in range(vocab)])
    assert p_value(counts, expected * rows) > FALSE_ALARM


def test_streams_are_independent_of_one_another() -> None:
    """Pairs of draws by neighbouring sequences of a batch, and by neighbouring seeds."""
    vocab = len(LOGITS)
    one, other = (
        Sampler(Sampling(temperature=1.0, seed=seed), [[0]] * ROWS, vocab) for seed in (0, 1)
    )
    logits, law = LOGITS.expand(ROWS, -1), LOGITS.softmax(-1)
    draws = torch.stack([one(logits) for _ in range(REPEATS)])  # [REPEATS, ROWS]
    others = torch.stack([other(logits) for _ in range(REPEATS)])
    for left, right in ((draws[:, :-1], draws[:, 1:]), (draws, others), (draws[:-1], draws[1:])):
        counts = torch.bincount((left * vocab + right).flatten(), minlength=vocab**2)
        assert p_value(counts, torch.outer(law, law).flatten() * left.numel()) > FALSE_ALARM


def test_temperature_zero_is_the_likeliest() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    sampler = Sampler(Sampling(), [[0]] * 50, 30)
    assert torch.equal(sampler(logits), logits.argmax(-1))
    penalized = Sampler(Sampling(repetition_penalty=2.0), [[int(logits[0].argmax())]], 30)
    expected = int(penalized.penalize(logits[:1]).argmax())
    assert int(penalized(logits[:1])) == expected != int(logits[0].argmax())


def draws(sampling: Sampling, tokens: int = 20, *, rows: int = 1, first_stream: int = 0) -> Tensor:
    sampler = Sampler(sampling, [[0]] * rows, len(LOGITS), first_stream=first_stream)
    return torch.stack([sampler(LOGITS.expand(rows, -1)) for _ in range(tokens)], 1)


def test_a_seed_names_a_text() -> None:
    texts = [draws(Sampling(temperature=1.0, seed=seed)) for seed in (-1, 0, 1, 2, 2**40)]
    again = [draws(Sampling(temperature=1.0, seed=seed)) for seed in (-1, 0, 1, 2, 2**40)]
    assert all(map(torch.equal, texts, again))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(texts, 2))


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_a_sequence_draws_the_same_beside_any_others(penalty: float) -> None:
    sampling = Sampling(temperature=1.0, presence_penalty=penalty, seed=7)
    together = draws(sampling, rows=3)
    alone = [draws(sampling, first_stream=row)[0] for row in range(3)]
    assert torch.equal(together, torch.stack(alone))
    sampler = Sampler(sampling, [[0]] * 3, len(LOGITS))
    begun = [sampler(LOGITS.expand(3, -1)) for _ in range(5)]
    sampler.keep([2, 0])
    rest = torch.stack([sampler(LOGITS.expand(2, -1)) for _ in range(15)], 1)
    assert torch.equal(torch.stack(begun, 1), together[:, :5])
    assert torch.equal(rest, together[[2, 0], 5:])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, not 0"),
        ({"temperature": -0.1}, r"temperature must be 0 or in \[0.001, 1000\], not -0.1"),
        ({"temperature": 1e-38}, "temperature must be 0 or in"),
        ({"presence_penalty": 1e39}, "penalties must be in"),
        ({"temperature": math.inf}, r"temperature must be 0 or in \[0.001, 1000\], not inf"),
        ({"top_k": -1}, "top_k must be at least 0, not -1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], not 0.0"),
        ({"top_p": math.nan}, r"top_p must be in \(0, 1\], not nan"),
        ({"min_p": 1.5}, r"min_p must be in \[0, 1\], not 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be at least 0.01, not 0.0"),
        ({"presence_penalty": math.nan}, r"penalties must be in \[-100, 100\]"),
        ({"logprobs": 101}, r"logprobs must be in \[-1, 100\], not 101"),
        ({"stop": ("a", "")}, "stop must be a tuple of non-empty strings"),
        ({"stop": "END"}, "stop must be a tuple of non-empty strings, not 'END'"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**wrong)  # type: ignore[arg-type]
