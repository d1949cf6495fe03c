"""With a cache, tokens are computed once, and come out as if computed all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.reference import TINY, tiny_model, token_ids
from model.tolerances import assert_close
from puna.errors import InputError
from puna.model import AttentionSpec, ContiguousCache, LlamaConfig, LlamaModel, lowering
from puna.model.lowering import ContinuationPlan, StepPlan, lower

pytestmark = pytest.mark.usefixtures("no_gradients")
WINDOWED = replace(TINY, window_tokens=4)
CONFIGS = {"full": TINY, "windowed": WINDOWED, "wide": replace(TINY, num_key_value_heads=4)}
VOCAB = TINY.vocab_size
MAX_TOKENS = 32


@pytest.fixture
def no_gradients():
    with torch.inference_mode():
        yield


def new_cache(config: LlamaConfig, batch: int, max_tokens: int = MAX_TOKENS) -> ContiguousCache:
    return ContiguousCache(config, batch=batch, max_tokens=max_tokens)


def by_chunks(model: LlamaModel, ids: Tensor, sizes: Sequence[int]) -> Tensor:
    cache = new_cache(model.config, len(ids))
    parts = [model(part, cache=cache) for part in ids.split(list(sizes), 1)]
    assert cache.lengths == [ids.shape[1]] * len(ids)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batch", [1, 3])
def test_step_by_step(name: str, batch: int) -> None:
    """One by one, each step over the cache; the windowed model goes far beyond its window."""
    model, ids = tiny_model(CONFIGS[name]), token_ids(batch, 19)
    assert_close(by_chunks(model, ids, [1] * 19), model(ids), "logits")
    assert_close(by_chunks(model, ids, [6] + [1] * 13), model(ids), "logits")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    name=st.sampled_from(sorted(CONFIGS)),
    block=st.sampled_from([1, 3, 256]),
)
def test_chunks_of_any_size(sizes: list[int], name: str, block: int) -> None:
    model, ids = tiny_model(CONFIGS[name]), token_ids(2, sum(sizes))
    sizes = sizes[:]
    with patch.object(lowering, "BLOCK_TOKENS", block), torch.no_grad():
        if sum(sizes) > MAX_TOKENS:
            sizes, ids = [9, 9, 9], ids[:, :27]
        assert_close(by_chunks(model, ids, sizes), model(ids), "logits")


def test_a_window_of_the_spec_over_a_cache() -> None:
    model, ids = tiny_model(), token_ids(2, 13)
    spec = AttentionSpec(window_tokens=3)
    cache = new_cache(TINY, 2)
    parts = [model(part, spec, cache=cache) for part in ids.split([2, 5, 1, 1, 4], 1)]
    assert_close(torch.cat(parts, 1), model(ids, spec), "logits")


LENGTHS = (3, 9, 5, 1)
STEPS = 6


def sequences() -> list[Tensor]:
    return [token_ids(1, n + STEPS, seed=n) for n in LENGTHS]


def check_steps(model: LlamaModel, cache: ContiguousCache, chunk: int = 1) -> None:
    """Continue all sequences together from their own lengths; each equals itself alone."""
    alone = [model(ids)[0] for ids in sequences()]
    for step in range(0, STEPS, chunk):
        rows = [ids[0, n + step :][:chunk] for n, ids in zip(LENGTHS, sequences(), strict=True)]
        logits = model(torch.stack(rows), cache=cache)
        for row, n in enumerate(LENGTHS):
            assert_close(logits[row], alone[row][n + step :][:chunk], "logits")
    assert cache.lengths == [n + STEPS for n in LENGTHS]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("chunk", [1, 3])
def test_ragged_batch_filled_row_by_row(name: str, chunk: int) -> None:
    model = tiny_model(CONFIGS[name])
    cache = new_cache(model.config, len(LENGTHS))
    for row, (n, ids) in enumerate(zip(LENGTHS, sequences(), strict=True)):
        view = cache.row(row)
        logits = model(ids[:, :n], cache=view)
        assert_close(logits, model(ids)[:, :n], "logits")
        assert view.lengths == [n]
        cache.lengths[row] = n
    check_steps(model, cache, chunk)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mode", ["causal", "spec window"])
@pytest.mark.parametrize("chunk", [1, 2])
def test_ragged_batch_padded_on_the_right(name: str, mode: str, chunk: int) -> None:
    """What padding writes into the cache is never seen, whichever plan computes it."""
    model = tiny_model(CONFIGS[name])
    cache = new_cache(model.config, len(LENGTHS))
    longest = max(LENGTHS)
    ids = torch.full((len(LENGTHS), longest), VOCAB - 1)
    for row, (n, sequence) in enumerate(zip(LENGTHS, sequences(), strict=True)):
        ids[row, :n] = sequence[0, :n]
    valid = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    # A window as wide as the rows changes nothing but the plan.
    spec = AttentionSpec(valid=valid, window_tokens=None if mode == "causal" else longest)
    logits = model(ids, spec, cache=cache)
    assert cache.lengths == list(LENGTHS)
    for row, (n, sequence) in enumerate(zip(LENGTHS, sequences(), strict=True)):
        assert_close(logits[row, :n], model(sequence)[0, :n], "logits")
    check_steps(model, cache, chunk)


def test_a_prefix_is_prefilled_and_then_continued() -> None:
    """Prefix and bidirectional prompts of different lengths, then causal steps after them."""
    model = tiny_model()
    lengths = torch.tensor(LENGTHS)
    valid = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.zeros(len(LENGTHS), int(lengths.max()), dtype=torch.long)
    for row, (n, sequence) in enumerate(zip(LENGTHS, sequences(), strict=True)):
        ids[row, :n] = sequence[0, :n]
    cache = new_cache(TINY, len(LENGTHS))
    model(ids, AttentionSpec("prefix", prefix_len=lengths, valid=valid), cache=cache)
    step = torch.stack([s[0, n : n + 1] for n, s in zip(LENGTHS, sequences(), strict=True)])
    logits = model(step, cache=cache)
    for row, (n, sequence) in enumerate(zip(LENGTHS, sequences(), strict=True)):
        spec = AttentionSpec("prefix", prefix_len=torch.tensor([n]))
        assert_close(logits[row, 0], model(sequence[:, : n + 1], spec)[0, n], "logits")


def test_which_plan_a_continuation_takes() -> None:
    cache = new_cache(TINY, 2)
    cache.lengths = [4, 4]

    def plan(tokens: int, window: int | None = None) -> lowering.Plan:
        device = torch.device("cpu")
        return lower(
            AttentionSpec(),
            batch=2,
            tokens=tokens,
            device=device,
            window_tokens=window,
            cache=cache,
        )

    assert plan(1) == StepPlan(torch.tensor([4]), None)
    assert plan(1, window=5) == StepPlan(torch.tensor([4]), None)  # all five slots are seen
    narrow = plan(1, window=4)
    assert isinstance(narrow, StepPlan)
    assert narrow.seen is not None
    assert narrow.seen.flatten().tolist() == [False, True, True, True, True]
    assert isinstance(plan(2), ContinuationPlan)
    cache.lengths = [4, 2]
    ragged = plan(1)
    assert ragged.positions.tolist() == [[4], [2]]


def test_grow_keeps_what_is_held() -> None:
    model, ids = tiny_model(), token_ids(2, 12)
    cache = new_cache(TINY, 2, max_tokens=7)
    first = model(ids[:, :7], cache=cache)
    before = cache.nbytes
    cache.grow(12)
    assert cache.max_tokens == 12
    assert cache.nbytes == before * 12 // 7
    cache.grow(3)  # a cache never shrinks
    assert cache.max_tokens == 12
    assert_close(torch.cat((first, model(ids[:, 7:], cache=cache)), 1), model(ids), "logits")


def test_rewind_forgets_the_end() -> None:
    model, ids = tiny_model(), token_ids(2, 12)
    cache = new_cache(TINY, 2)
    model(token_ids(2, 9, seed=8), cache=cache)
    cache.rewind([0, 0])
    model(ids[:, :5], cache=cache)
    model(token_ids(2, 3, seed=9), cache=cache)
    assert cache.lengths == [8, 8]
    cache.rewind([5, 5])
    assert_close(model(ids[:, 5:], cache=cache), model(ids)[:, 5:], "logits")
    with pytest.raises(InputError, match=r"cannot rewind a cache of \[12, 12\] tokens to"):
        cache.rewind([5, 13])


def test_rewind_rows_to_different_lengths() -> None:
    model, ids = tiny_model(), token_ids(2, 9)
    cache = new_cache(TINY, 2)
    model(ids[:, :7], cache=cache)
    cache.rewind([4, 6])
    step = torch.stack((ids[0, 4:5], ids[1, 6:7]))
    logits = model(step, cache=cache)[:, 0]
    whole = model(ids)
    assert_close(logits, torch.stack((whole[0, 4], whole[1, 6])), "logits")


def test_keep_takes_rows_in_order() -> None:
    model, ids = tiny_model(), token_ids(3, 9)
    cache = new_cache(TINY, 3)
    model(ids[:, :6], cache=cache)
    cache.keep([2, 0, 0])
    assert cache.lengths == [6, 6, 6]
    order = ids[[2, 0, 0]]
    assert_close(model(order[:, 6:], cache=cache), model(order)[:, 6:], "logits")


def test_a_row_shares_memory_and_has_its_own_length() -> None:
    cache = new_cache(TINY, 2)
    row = cache.row(1)
    tiny_model()(token_ids(1, 3), cache=row)
    assert (cache.lengths, row.lengths) == ([0, 0], [3])
    assert row.nbytes * 2 == cache.nbytes
    assert cache.keys[0][1, :, :3].abs().sum() > 0
    assert not cache.keys[0][0].any()


def test_overflow_says_how_much_is_needed() -> None:
    model = tiny_model()
    cache = new_cache(TINY, 1, max_tokens=5)
    with pytest.raises(InputError, match="the cache holds 5 tokens; 6 are needed"):
        model(token_ids(1, 6), cache=cache)
    assert cache.lengths == [0]
    model(token_ids(1, 5), cache=cache)
    with pytest.raises(InputError, match=r"6 are needed\n  fix: ask for fewer tokens, or"):
        model(token_ids(1, 1), cache=cache)


LEFT = torch.tensor([[False, True, True], [True, True, True]])
DOCUMENTS = AttentionSpec(document_ids=torch.tensor([[0, 0, 1]] * 2))
FRESH_ERRORS: list[tuple[AttentionSpec, str]] = [
    (AttentionSpec(valid=LEFT), "a cache takes padding on the right only, not on the left"),
    (DOCUMENTS, "a cache holds one document per sequence, not packed ones"),
]
CONTINUED_ERRORS: list[tuple[AttentionSpec, str]] = [
    (AttentionSpec("bidirectional"), "bidirectional attention cannot be continued"),
    (AttentionSpec(valid=LEFT), "tokens that continue a cache are neither padded nor packed"),
    (DOCUMENTS, "tokens that continue a cache are neither padded nor packed"),
    (
        AttentionSpec("prefix", prefix_len=torch.tensor([5, 4])),
        "the prefix of 5 tokens is longer than the 4 held: pass a prefix as a whole",
    ),
]


@pytest.mark.parametrize(("spec", "message"), FRESH_ERRORS)
def test_what_a_fresh_cache_cannot_take(spec: AttentionSpec, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_model()(token_ids(2, 3), spec, cache=new_cache(TINY, 2))


@pytest.mark.parametrize(("spec", "message"), CONTINUED_ERRORS)
def test_what_cannot_continue_a_cache(spec: AttentionSpec, message: str) -> None:
    model, cache = tiny_model(), new_cache(TINY, 2)
    model(token_ids(2, 4), cache=cache)
    with pytest.raises(InputError, match=message):
        model(token_ids(2, 3), spec, cache=cache)
    assert cache.lengths == [4, 4]


def test_a_cache_for_another_batch() -> None:
    with pytest.raises(InputError, match="the cache holds 3 sequences, the input has 2"):
        tiny_model()(token_ids(2, 3), cache=new_cache(TINY, 3))


def test_a_cache_of_another_dtype_rounds_only_what_it_holds() -> None:
    model, ids = tiny_model(replace(TINY)).bfloat16(), token_ids(2, 9)
    cache = ContiguousCache(TINY, batch=2, max_tokens=9, dtype=torch.bfloat16)
    parts = [model(part, cache=cache) for part in ids.split(3, 1)]
    assert_close(torch.cat(parts, 1), model(ids), "logits", torch.bfloat16)
