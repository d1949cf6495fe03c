"""The loader of shards: the same steps on any number of ranks, from any place on, at once."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.config import from_dict
from puna.errors import InputError
from puna.tokens.batches import Batch
from puna.tokens.mixture import MixtureConfig
from puna.tokens.shard_loader import RowConfig, ShardLoader
from tokens.fake_documents import STRIDE, FakeDocuments, told

BASE = 100_000  # added to the tokens of the second source


def two_sources() -> dict[str, FakeDocuments]:
    random = np.random.default_rng(0)
    lengths = [random.integers(1, 60, count).tolist() for count in (40, 25)]
    books = [
        range(BASE + d * STRIDE, BASE + d * STRIDE + length) for d, length in enumerate(lengths[1])
    ]
    return {"web": told(lengths[0]), "books": FakeDocuments(books)}


SOURCES = two_sources()
CONFIG = RowConfig(row_tokens=16, step_rows=8, batch_rows=2)
WEIGHTED = MixtureConfig(weights={"web": 3.0, "books": 1.0})
READ = MixtureConfig(epochs={"web": 1.5, "books": 2.0})


def loader(mixture: MixtureConfig = WEIGHTED, **options: Any) -> ShardLoader:
    given_options = {"config": CONFIG, "seed": 5, "steps": None if mixture is READ else 12}
    options = {**given_options, **options}
    return ShardLoader(SOURCES, mixture, options.pop("config"), **options)


def batches(made: ShardLoader, count: int | None = None) -> list[Batch]:
    found = list(islice(made, count))
    assert all(epoch == 0 for epoch, _ in found)
    return [batch for _, batch in found]


def same(left: Batch, right: Batch) -> bool:
    fields = ("ids", "targets", "valid", "document_ids")
    pairs = [(getattr(left, name), getattr(right, name)) for name in fields]
    tensors = all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)
    return tensors and (left.tokens, left.trained) == (right.tokens, right.trained)


@given(st.integers(0, 60), st.sampled_from([WEIGHTED, READ]), st.sampled_from([1, 2]))
@settings(max_examples=30)
def test_it_goes_on_where_it_stopped(stop: int, mixture: MixtureConfig, size: int) -> None:
    first = loader(mixture, size=size)
    begun = batches(first, stop)
    state = first.state_dict()
    assert state == {"epoch": 0, "batch": len(begun)}
    second = loader(mixture, size=size)
    second.load_state_dict(state)
    for one, other in zip(batches(first, 5), batches(second, 5), strict=True):
        assert same(one, other)
    whole = batches(loader(mixture, size=size), stop)
    assert all(map(same, begun, whole)) and len(begun) == len(whole)


@pytest.mark.parametrize("mixture", [WEIGHTED, READ])
def test_a_step_is_the_same_micro_batches_on_any_number_of_ranks(mixture: MixtureConfig) -> None:
    alone = loader(mixture)
    whole = batches(alone, 20 * alone.micro_batches)
    for size in (2, 4):
        ranks = [loader(mixture, rank=rank, size=size) for rank in range(size)]
        micro = ranks[0].micro_batches
        assert micro == alone.micro_batches // size
        dealt = [batches(rank, 20 * micro) for rank in ranks]
        turns = [batch for turn in zip(*dealt, strict=True) for batch in turn]
        assert len(turns) == len(whole) and all(map(same, turns, whole))


def test_smaller_micro_batches_have_the_same_rows() -> None:
    fine = RowConfig(row_tokens=16, step_rows=8, batch_rows=1)
    coarse, single = batches(loader(), 8), batches(loader(config=fine), 16)
    rows = torch.cat([batch.ids.flatten() for batch in single])
    assert torch.equal(torch.cat([batch.ids.flatten() for batch in coarse]), rows)


def test_a_batch_says_what_is_predicted_and_what_attends_to_what() -> None:
    for batch in batches(loader(), 48):
        assert batch.ids.shape == batch.targets.shape
        assert batch.ids.dtype == batch.targets.dtype == torch.int64
        assert batch.valid is None and batch.members == ((),) * len(batch.ids)
        assert batch.tokens == 32 and batch.trained == int((batch.targets != -100).sum())
        follows = torch.where(batch.targets >= 0, batch.targets, batch.ids + 1)
        assert torch.equal(follows, batch.ids + 1)  # the next token of the same document
        documents = batch.ids // STRIDE
        if batch.document_ids is None:
            assert batch.ids.shape == (2, 16) and (documents == documents[:, :1]).all()
        else:
            assert batch.ids.shape == (1, 32)  # its rows, joined
            changes = (batch.ids[:, 1:] != batch.ids[:, :-1] + 1) | (batch.ids[:, 1:] % STRIDE == 0)
            changes[:, 15] = True  # a row sees nothing of the one before
            assert torch.equal(batch.document_ids.diff(dim=1), changes.long())


def test_concatenation_predicts_every_token() -> None:
    config = RowConfig(row_tokens=16, step_rows=8, batch_rows=2, separate_documents=False)
    for joined, apart in zip(
        batches(loader(config=config), 20), batches(loader(), 20), strict=True
    ):
        assert joined.document_ids is None and joined.trained == 32
        assert joined.ids.shape == (2, 16)
        assert torch.equal(joined.ids.flatten(), apart.ids.flatten())
        assert torch.equal(joined.targets[:, :-1], joined.ids[:, 1:])
        targets, expected = joined.targets.flatten(), apart.targets.flatten()
        some = expected != -100
        assert torch.equal(targets[some], expected[some])


def test_by_epochs_every_document_comes_its_times_and_the_rest_is_padding() -> None:
    made = loader(READ)
    seen: Counter[int] = Counter()
    found = batches(made)
    for batch in found:
        real = torch.ones_like(batch.ids, dtype=torch.bool) if batch.valid is None else batch.valid
        seen.update(batch.ids[real].tolist())
        assert not (batch.targets[~real] + 100).any() and batch.tokens == int(real.sum())
    for name, base in (("web", 0), ("books", BASE)):
        epochs = READ.epochs[name]
        for document, length in enumerate(SOURCES[name].lengths.tolist()):
            for place in range(length):
                times = seen[base + document * STRIDE + place]
                assert math.floor(epochs) <= times <= math.ceil(epochs)
    rows = made.schedule.rows_total or 0
    assert made.steps == made.max_steps == math.ceil(rows / 8)
    assert len(found) == made.batches_in_epoch(0) == 4 * made.steps
    assert sum(batch.tokens for batch in found) == sum(
        read["tokens"] for read in made.consumed(made.steps).values()
    )
    assert rows % 8, "the last step of this test is to have padding"


@pytest.mark.parametrize("mixture", [WEIGHTED, READ])
def test_what_is_consumed_is_what_came(mixture: MixtureConfig) -> None:
    made = loader(mixture)
    assert list(made.consumed(0).values()) == [{"rows": 0, "tokens": 0, "epochs": 0.0}] * 2
    for steps in (1, 5, 12):
        tokens: Counter[str] = Counter()
        for batch in batches(loader(mixture), steps * made.micro_batches):
            real = batch.ids if batch.valid is None else batch.ids[batch.valid]
            tokens.update("web" if token < BASE else "books" for token in real.flatten().tolist())
        for name, read in made.consumed(steps).items():
            assert (read["rows"], read["tokens"]) == (-(-tokens[name] // 16), tokens[name])
            assert read["epochs"] == pytest.approx(tokens[name] / SOURCES[name].tokens)


def test_it_begins_anywhere_without_reading_what_lies_before() -> None:
    sources = two_sources()
    made = ShardLoader(sources, WEIGHTED, CONFIG, seed=5, steps=10**9)
    made.load_state_dict({"epoch": 0, "batch": 3 * 10**9})
    (batch,) = batches(made, 1)
    assert batch.tokens == 32
    read = sum(stop - start for source in sources.values() for _, start, stop in source.reads)
    assert read == 2 * 17  # its two rows, and what each one's last token predicts


def test_beyond_its_steps_it_goes_on_as_far_as_the_mixture_reaches() -> None:
    made = loader(steps=2)
    assert made.batches_in_epoch(0) == 8 and made.batches_in_epoch(1) == 0
    assert made.max_steps is None and len(batches(made, 50)) == 50
    endless = loader(steps=None)  # where time alone ends the run
    assert endless.max_steps is None and endless.batches_in_epoch(0) > 10**12
    assert all(map(same, batches(endless, 50), batches(loader(steps=2), 50)))
    short = loader(READ, steps=2)
    assert short.batches_in_epoch(0) == 8 and short.max_steps is not None
    assert len(batches(short)) == 4 * short.max_steps and not batches(short)
    short.load_state_dict({"epoch": 1, "batch": 0})  # a run that is over says so
    assert short.state_dict() == {"epoch": 1, "batch": 0} and not batches(short)


def test_the_same_documents_in_two_sources_come_in_two_orders() -> None:
    twice = {"a": told([3] * 30), "b": told([3] * 30)}
    config = RowConfig(row_tokens=90, step_rows=2, batch_rows=2)
    (batch,) = batches(ShardLoader(twice, MixtureConfig(), config, seed=0, steps=None))
    first, second = batch.ids.view(2, 90).tolist()
    assert first != second and sorted(first) == sorted(second)


def test_the_rows_of_a_step_are_dealt_out_evenly_or_refused() -> None:
    with pytest.raises(InputError, match="step_rows is 30, which is no multiple of 8, ") as error:
        from_dict(RowConfig, {"step_rows": 30, "batch_rows": 8})
    assert error.value.fix == "the nearest that is: 32 or 24; or change batch_rows"
    with pytest.raises(InputError, match=r"of one micro-batch \(8\)") as error:
        RowConfig(step_rows=3, batch_rows=8)
    assert error.value.fix == "the nearest that is: 8; or change batch_rows"
    with pytest.raises(InputError, match=r"no multiple of 6, .* \(2\) on 3 ranks") as error:
        loader(size=3)
    assert error.value.fix == "the nearest that is: 6 or 12; or change batch_rows"
    for name in ("row_tokens", "step_rows", "batch_rows"):
        with pytest.raises(InputError, match=f"{name} must be at least 1, not 0"):
            RowConfig(**{name: 0})


def test_rows_that_are_not_given_suit_the_device() -> None:
    config = RowConfig(row_tokens=256, step_rows=30)
    assert config.rows_at_once == 3  # of 256 tokens, 1,024 at most, and 30 is a multiple
    assert config.settled(1, "cpu").batch_rows == 3
    assert config.settled(5, "cpu").batch_rows == 3
    assert config.settled(15, "cpu").batch_rows == 2
    assert config.settled(1, "cuda").batch_rows == 30
    assert RowConfig(row_tokens=2**20, step_rows=6).settled(2, "cuda").batch_rows == 1
    assert RowConfig(step_rows=8, batch_rows=4).settled(1, "cpu").batch_rows == 4
    assert config.micro_batches(15) == 1
    with pytest.raises(InputError, match=r"no multiple of 7, .* \(1\) on 7 ranks"):
        config.micro_batches(7)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="rank 2 of 2 processes"):
        loader(rank=2, size=2)
    with pytest.raises(InputError, match="at least one step, not 0"):
        loader(steps=0)
    with pytest.raises(InputError, match=r"the mixture has text for \d+ steps, and 999 are asked"):
        loader(READ, steps=999)
    with pytest.raises(InputError, match=r"names 'wep', which is not among") as error:
        loader(MixtureConfig(weights={"wep": 1.0}))
    assert error.value.fix == "sources here: books, web"
    with pytest.raises(InputError, match="a seed must be at least 0, not -3"):
        loader(seed=-3)


def test_too_little_text_is_refused() -> None:
    small = {"a": told([20]), "b": told([9])}
    config = RowConfig(row_tokens=10, step_rows=1, batch_rows=1)
    with pytest.raises(InputError, match="source 'b' has 9 tokens to train on, too few for one"):
        ShardLoader(small, MixtureConfig(weights={"a": 1, "b": 1}), config, seed=0, steps=1)
    assert ShardLoader(small, MixtureConfig(), config, seed=0, steps=None).max_steps == 3
    long = RowConfig(row_tokens=30, step_rows=1, batch_rows=1)
    with pytest.raises(InputError, match="have 29 tokens to train on, too few for one row of 30"):
        ShardLoader(small, MixtureConfig(), long, seed=0, steps=None)
    with pytest.raises(InputError, match="there are no sources to read"):
        ShardLoader({}, MixtureConfig(), config, seed=0, steps=None)


def test_a_place_that_is_none_is_refused() -> None:
    for state in ({"epoch": 0}, {"epoch": 0, "batch": "1"}, {"epoch": 0, "batch": 1, "x": 2}):
        with pytest.raises(InputError, match="expected the state of a loader, found"):
            loader().load_state_dict(state)
    for epoch, batch in ((0, 9999), (0, -1), (1, 1), (-1, 0)):
        with pytest.raises(InputError, match=f"there is no batch {batch} in epoch {epoch}"):
            loader(READ).load_state_dict({"epoch": epoch, "batch": batch})
