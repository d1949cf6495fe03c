"""The loader: resumable at any batch, and dealt out evenly among ranks."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.tokens.batches import Batch, BatchConfig
from puna.tokens.loader import Loader
from tokens.conversations import example

EXAMPLES = [example([n] * (2 + n % 7), [1] * (2 + n % 7)) for n in range(40)]
CONFIG = BatchConfig(batch_tokens=24)


def loader(config: BatchConfig = CONFIG, count: int = 40, **options: Any) -> Loader:
    return Loader(EXAMPLES[:count], config, **{"seed": 1, "pad_id": 0, **options})


def seen(batches: list[tuple[int, Batch]]) -> list[tuple[int, tuple[tuple[int, ...], ...]]]:
    return [(epoch, batch.members) for epoch, batch in batches]


def test_epochs_follow_one_another():
    taken = list(loader(epochs=3))
    per_epoch = [loader().batches_in_epoch(epoch) for epoch in range(3)]
    assert [epoch for epoch, _ in taken] == [n for n in range(3) for _ in range(per_epoch[n])]
    for epoch in range(3):
        members = [i for e, b in taken if e == epoch for row in b.members for i in row]
        assert sorted(members) == list(range(40))
    assert seen(taken[: per_epoch[0]]) != seen(taken[-per_epoch[0] :])
    assert list(loader(epochs=0)) == []
    assert len(list(islice(loader(), 500))) == 500


@given(st.integers(0, 40), st.booleans())
def test_it_goes_on_where_it_stopped(stop: int, shuffle: bool):
    whole = seen(list(loader(epochs=3, shuffle=shuffle)))
    first = loader(epochs=3, shuffle=shuffle)
    begun = seen(list(islice(first, stop)))
    state = first.state_dict()
    second = loader(epochs=3, shuffle=shuffle)
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert begun + seen(list(second)) == whole
    assert begun + seen(list(first)) == whole  # iterating the same one again goes on too


def test_the_state_is_that_after_the_batch_in_hand():
    one = loader()
    for number, _ in enumerate(islice(one, 3), 1):
        assert one.state_dict() == {"epoch": 0, "batch": number}


@given(st.integers(1, 5), st.integers(1, 40), st.booleans())
def test_ranks_share_every_example_in_equally_many_batches(size: int, count: int, packing: bool):
    config = BatchConfig(batch_tokens=24, packing=packing, row_tokens=12)
    ranks = [list(loader(config, count, epochs=2, rank=rank, size=size)) for rank in range(size)]
    assert len({len(batches) for batches in ranks}) == 1
    for epoch in (0, 1):
        real = [b for batches in ranks for e, b in batches if e == epoch and b.trained]
        assert sorted(i for b in real for row in b.members for i in row) == list(range(count))


def test_a_rank_without_examples_takes_its_steps_too():
    (_, batch), *rest = loader(count=1, epochs=1, rank=1, size=2)
    assert not rest and (batch.tokens, batch.trained) == (0, 0)
    assert torch.all(batch.targets == -100) and batch.ids.shape == batch.targets.shape


def test_what_is_refused():
    with pytest.raises(InputError, match="there are no examples to make batches of"):
        loader(count=0)
    with pytest.raises(InputError, match="rank 2 of 2 processes"):
        loader(rank=2, size=2)
    with pytest.raises(InputError, match="epochs must be at least 0, not -1"):
        loader(epochs=-1)
    for state in ({"epoch": 0}, {"epoch": 0, "batch": "1"}, {"epoch": 0, "batch": 1, "x": 2}):
        with pytest.raises(InputError, match="expected the state of a loader, found"):
            loader().load_state_dict(state)
    with pytest.raises(InputError, match=r"no batch 999 in epoch 0\n  fix: the data or the batch"):
        loader().load_state_dict({"epoch": 0, "batch": 999})
    with pytest.raises(InputError, match="no batch 0 in epoch -1"):
        loader().load_state_dict({"epoch": -1, "batch": 0})
