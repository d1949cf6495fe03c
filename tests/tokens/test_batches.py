"""Batches: every example once, within bounds, the same again, and the same loss however made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generate.tiny import VOCAB, reference, twin
from puna.config import from_dict, to_dict
from puna.errors import InputError
from puna.model import AttentionSpec, LlamaModel
from puna.tokens import TokenExample
from puna.tokens.batches import Batch, BatchConfig, collate, plan
from tokens.conversations import example

LENGTHS = st.lists(st.integers(1, 300), max_size=60)
CONFIGS = st.builds(
    BatchConfig,
    batch_tokens=st.integers(1, 2000),
    batch_examples=st.none() | st.integers(1, 9),
    packing=st.booleans(),
    row_tokens=st.integers(1, 600),
    bucketing=st.booleans(),
)


@given(LENGTHS, CONFIGS, st.integers(0, 3), st.booleans())
def test_every_example_comes_once_and_batches_keep_their_bounds(
    lengths: list[int], config: BatchConfig, epoch: int, shuffle: bool
):
    batches = plan(lengths, config, seed=7, epoch=epoch, shuffle=shuffle)
    assert batches == plan(lengths, config, seed=7, epoch=epoch, shuffle=shuffle)
    assert sorted(i for batch in batches for row in batch for i in row) == list(range(len(lengths)))
    for batch in batches:
        count = sum(map(len, batch))
        rows = [sum(lengths[i] for i in row) for row in batch]
        assert count and all(batch)
        assert count == 1 or len(rows) * max(rows) <= config.batch_tokens
        assert config.batch_examples is None or count <= config.batch_examples
        for row, tokens in zip(batch, rows, strict=True):
            assert len(row) == 1 or (config.packing and tokens <= config.row_tokens)


def lengths_like_real_ones(count: int = 3000) -> list[int]:
    return np.random.default_rng(0).lognormal(3.5, 0.6, count).astype(int).clip(2, 1000).tolist()


def test_epochs_differ_and_without_shuffling_the_longest_come_first():
    lengths = lengths_like_real_ones(300)
    plans = [plan(lengths, BatchConfig(), seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert plans[0] != plans[1] != plans[2] != plans[0]
    still = plan(lengths, BatchConfig(), seed=0, epoch=0, shuffle=False)
    assert still == plan(lengths, BatchConfig(), seed=1, epoch=2, shuffle=False)
    flat = [lengths[i] for batch in still for (i,) in batch]
    assert flat == sorted(lengths, reverse=True)
    natural = BatchConfig(None, batch_examples=2, bucketing=False)
    assert plan([5, 1, 9], natural, seed=0, epoch=0, shuffle=False) == [[[0], [1]], [[2]]]


def test_the_order_is_the_same_on_any_machine():
    config = BatchConfig(None, batch_examples=3, bucketing=False)
    order = [i for batch in plan([1] * 10, config, seed=3, epoch=1) for (i,) in batch]
    assert order == [0, 6, 2, 1, 3, 7, 4, 9, 8, 5]


def padding(lengths: list[int], batches: list[list[list[int]]]) -> float:
    computed = 0
    for batch in batches:
        computed += len(batch) * max(sum(lengths[i] for i in row) for row in batch)
    return 1 - sum(lengths) / computed


def test_buckets_and_packing_leave_little_padding_and_a_random_order():
    lengths = lengths_like_real_ones()
    loose = BatchConfig(bucketing=False)
    assert padding(lengths, plan(lengths, loose, seed=0, epoch=0)) > 0.5
    batches = plan(lengths, BatchConfig(), seed=0, epoch=0)
    assert padding(lengths, batches) < 0.06
    means = [np.mean([lengths[i] for (i,) in batch]) for batch in batches]
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.5
    packed = plan(lengths, BatchConfig(packing=True), seed=0, epoch=0)
    assert padding(lengths, packed) < 0.04
    assert max(len(row) for batch in packed for row in batch) > 20


def test_a_batch_says_what_is_predicted_and_what_is_padding():
    examples = [example([5, 6, 7], [0, 1, 1]), example([8, 9], [0, 1]), example([3, 4], [1, 0])]
    batch = collate(examples, [[0, 1], [2]], pad_id=1)
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9], [3, 4, 1, 1, 1]]
    x = -100
    assert batch.targets.tolist() == [[6, 7, x, 9, x], [x] * 5]
    assert batch.valid is not None and batch.document_ids is not None
    assert batch.valid.tolist() == [[True] * 5, [True, True, False, False, False]]
    assert batch.document_ids.tolist() == [[0, 0, 0, 1, 1], [0, 0, -1, -1, -1]]
    assert batch.members == ((0, 1), (2,)) and (batch.tokens, batch.trained) == (7, 3)
    assert batch.ids.dtype == batch.targets.dtype == torch.int64
    whole = collate(examples, [[1], [2]], pad_id=1)
    assert whole.valid is None and whole.document_ids is None
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.ids, batch.ids) and moved.members == batch.members


def some_examples() -> list[TokenExample]:
    random = np.random.default_rng(1)
    lengths = random.integers(2, 30, 24)
    return [example(random.integers(0, VOCAB, n), random.random(n) < 0.6) for n in lengths]


def loss_and_gradient(model: LlamaModel, batches: list[Batch]) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for batch in batches:
        seen = AttentionSpec(document_ids=batch.document_ids, valid=batch.valid)
        loss = model.head_loss(model.run(model.embed(batch.ids), attention=seen), batch.targets)
        loss.backward()
        total += loss.item()
    return total, [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_packed_bucketed_and_one_by_one_give_the_same_loss_and_gradient():
    model, examples = twin(reference()).requires_grad_(), some_examples()
    lengths = list(map(len, examples))
    one = BatchConfig(None, batch_examples=1)
    ways = [
        one,
        BatchConfig(batch_tokens=120),
        BatchConfig(batch_tokens=120, bucketing=False),
        BatchConfig(batch_tokens=200, packing=True, row_tokens=64),
        BatchConfig(batch_tokens=4096, packing=True),
    ]
    found, trained = [], []
    for config in ways:
        batches = [collate(examples, b, pad_id=0) for b in plan(lengths, config, seed=0, epoch=0)]
        found.append(loss_and_gradient(model, batches))
        trained.append(sum(batch.trained for batch in batches))
        assert any(b.document_ids is not None for b in batches) == config.packing
    assert len(set(trained)) == 1
    assert len(found[0][1]) == len(list(model.parameters()))
    for loss, gradients in found[1:]:
        # Sums in another order, in float32.
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        for gradient, expected in zip(gradients, found[0][1], strict=True):
            assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def test_the_configuration():
    data = {
        "batch_tokens": None,
        "batch_examples": 8,
        "packing": True,
        "row_tokens": 9,
        "bucketing": False,
    }
    assert to_dict(from_dict(BatchConfig, data)) == data
    with pytest.raises(InputError, match=r"needs a bound\n  fix: set batch_tokens or batch_exam"):
        BatchConfig(batch_tokens=None)
    with pytest.raises(InputError, match="row_tokens must be at least 1, not 0"):
        BatchConfig(row_tokens=0)
