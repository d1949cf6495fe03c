"""The plan of filling: complete, within its budget, and the same whatever is taken out of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.tune.trunk_plan import Entries, plan_chunks, run_trunk
from tune.trunk_setup import START, VOCAB, alone, assert_same_to_rounding, some, tiny_model

lengths = st.lists(st.integers(1, 40), max_size=40)


def keys(count: int) -> list[bytes]:
    return [bytes([i * 37 % 251, i]) for i in range(count)]


@given(lengths, st.integers(1, 100))
def test_every_entry_is_in_one_chunk_and_the_budget_counts_padding(
    tokens: list[int], budget: int
) -> None:
    plan = plan_chunks(range(len(tokens)), tokens, keys(len(tokens)), budget)
    assert sorted(entry for chunk in plan for entry in chunk) == list(range(len(tokens)))
    for chunk in plan:
        padded = len(chunk) * max(tokens[entry] for entry in chunk)
        assert padded <= budget or len(chunk) == 1


@given(lengths, st.integers(1, 100), st.data())
def test_whole_chunks_taken_out_leave_the_others_as_they_were(
    tokens: list[int], budget: int, data: st.DataObject
) -> None:
    plan = plan_chunks(range(len(tokens)), tokens, keys(len(tokens)), budget)
    left = [chunk for chunk in plan if data.draw(st.booleans())]
    entries = data.draw(st.permutations([entry for chunk in left for entry in chunk]))
    assert plan_chunks(entries, tokens, keys(len(tokens)), budget) == left


def test_the_same_ids_are_one_entry_in_any_integer_dtype() -> None:
    first, second = np.array([1, 2, 3], np.int32), np.array([4], np.int64)
    entries = Entries([first, second, first.astype(np.int64)], VOCAB)
    assert entries.of == [0, 1, 0]
    assert entries.tokens == [3, 1]


@pytest.mark.parametrize(
    "bad", [np.zeros(0, np.int32), np.zeros((1, 2), np.int32), [VOCAB], [-1], [0.5], [2**40]]
)
def test_what_is_no_row_of_ids_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match=f"sequence 1 is not a row .* from 0 to {VOCAB - 1}"):
        Entries([np.array([1], np.int32), np.asarray(bad)], VOCAB)


@pytest.mark.parametrize("window", [None, 4])
def test_a_batch_gives_what_each_sequence_gives_alone(window: int | None) -> None:
    model, sequences = tiny_model(window_tokens=window), some(6)
    hidden, valid = run_trunk(model, START, sequences)
    assert valid.sum(1).tolist() == [len(ids) for ids in sequences]
    for found, ids in zip(hidden, sequences, strict=True):
        assert_same_to_rounding(found[: len(ids)], alone(model, ids))
    same = [sequences[0]] * 3  # no padding, no mask
    assert torch.equal(*run_trunk(model, START, same)[0][:2])
