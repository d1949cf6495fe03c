"""The rows of a source: every document once in an epoch, and any row found at once."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.tokens.mixture import MixtureConfig, Schedule
from puna.tokens.shard_rows import SourceRows, shuffled
from tokens.fake_documents import STRIDE, FakeDocuments, told

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=20)


def stream(lengths: list[int], seed: int, epochs: int) -> list[int]:
    """The tokens of the first epochs, written anew: all documents of an epoch in its order."""
    found: list[int] = []
    for epoch in range(epochs):
        for document in shuffled(len(lengths), seed, epoch).tolist():
            found.extend(document * STRIDE + place for place in range(lengths[document]))
    return found


@given(LENGTHS, st.integers(1, 50), st.integers(0, 5))
def test_rows_are_the_stretches_of_one_stream(lengths: list[int], size: int, seed: int) -> None:
    rows = SourceRows(told(lengths), size, seed)
    count = -(-3 * sum(lengths) // size)
    whole = stream(lengths, seed, 3 + math.ceil((size + 1) / sum(lengths)))
    for number in reversed(range(count)):  # in any order
        row = rows.row(number)
        start = number * size
        assert row.ids.tolist() == whole[start : start + size]
        assert row.ids.dtype == row.targets.dtype == row.document_numbers.dtype == np.int64


@given(LENGTHS, st.integers(1, 50), st.integers(0, 5))
def test_targets_stay_within_documents_or_cross_them(
    lengths: list[int], size: int, seed: int
) -> None:
    whole = stream(lengths, seed, 2 + math.ceil((size + 1) / sum(lengths)))
    apart = SourceRows(told(lengths), size, seed)
    joined = SourceRows(told(lengths), size, seed, separate=False)
    for number in range(-(-sum(lengths) // size)):
        start, row = number * size, apart.row(number)
        following = whole[start + 1 : start + size + 1]
        assert joined.row(number).targets.tolist() == following
        for place, token in enumerate(row.ids.tolist()):
            document, at = divmod(token, STRIDE)
            last = at == lengths[document] - 1
            assert row.targets[place] == (-100 if last else following[place])
            assert row.documents[row.document_numbers[place]] == document
            begins = place == 0 or at == 0
            before = -1 if place == 0 else row.document_numbers[place - 1]
            assert row.document_numbers[place] == before + begins
        assert len(row.documents) == row.document_numbers[-1] + 1


@given(LENGTHS, st.integers(0, 5))
def test_every_epoch_has_each_document_once_in_an_order_of_its_own(
    lengths: list[int], seed: int
) -> None:
    total = sum(lengths)
    rows = SourceRows(told(lengths), total, seed)
    for epoch in range(3):
        assert Counter(rows.row(epoch).ids.tolist()) == Counter(stream(lengths, seed, 1))
        assert sorted(rows.row(epoch).documents) == list(range(len(lengths)))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [shuffled(50, seed, epoch).tolist() for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert shuffled(6, 3, 1).tolist() == shuffled(6, 3, 1).tolist()


@given(
    LENGTHS,
    st.integers(1, 40),
    st.decimals("0.05", "3.5", places=2).map(float),
    st.integers(0, 3),
)
def test_a_document_comes_its_epochs_rounded_down_or_up(
    lengths: list[int], size: int, epochs: float, seed: int
) -> None:
    tokens = {"a": sum(lengths)}
    schedule = Schedule(MixtureConfig(epochs={"a": epochs}), tokens, row_tokens=size, seed=seed)
    rows = SourceRows(told(lengths), size, seed, limit_tokens=schedule.limit(0))
    drawn = schedule.draws(0, schedule.rows_total or 0)[1].tolist()
    seen: Counter[int] = Counter()
    for number in drawn:
        row = rows.row(number)
        seen.update(row.ids[row.document_numbers >= 0].tolist())
    for document, length in enumerate(lengths):
        for place in range(length):  # of every token, and so of every document
            times = seen[document * STRIDE + place]
            assert math.floor(epochs) <= times <= math.ceil(epochs)


def test_the_end_of_the_stream_is_padding() -> None:
    lengths = [4, 3]
    for separate in (True, False):
        rows = SourceRows(told(lengths), 5, 0, separate=separate, limit_tokens=7)
        row, whole = rows.row(1), stream(lengths, 0, 1)
        assert row.ids.tolist() == [*whole[5:], 0, 0, 0]
        assert row.targets.tolist() == [whole[6], -100, -100, -100, -100]
        assert row.document_numbers.tolist() == [0, 0, -1, -1, -1] and len(row.documents) == 1
        with pytest.raises(InputError, match="there is no row 2 in a stream of 7 tokens"):
            rows.row(2)
    full = SourceRows(told(lengths), 7, 0, limit_tokens=7).row(0)
    assert full.targets[-1] == -100 and (full.document_numbers >= 0).all()


def test_empty_documents_are_passed_over() -> None:
    row = SourceRows(told([0, 3, 0, 2, 0]), 5, 0).row(0)
    assert sorted(row.ids.tolist()) == [1000, 1001, 1002, 3000, 3001]
    assert sorted(row.documents) == [1, 3]


def test_a_row_reads_its_own_documents_alone_and_two_orders_are_kept() -> None:
    documents = told([10] * 80)
    rows = SourceRows(documents, 100, 0)
    for number in (10**6, 3, 7, 8, 15):
        documents.reads.clear()
        rows.row(number)
        assert 10 <= len(documents.reads) <= 11
        assert sum(stop - start for _, start, stop in documents.reads) == 101
        assert len(rows._epochs) <= 2
    assert set(rows._epochs) == {1, 2}  # row 15 ends with epoch 1 and looks one token ahead


def test_what_is_refused() -> None:
    for documents in (told([]), told([0, 0])):
        with pytest.raises(InputError, match="there are no documents to make rows of"):
            SourceRows(documents, 4, 0)
    with pytest.raises(InputError, match=r"there is no row -1$"):
        SourceRows(FakeDocuments([[1, 2]]), 1, 0).row(-1)
