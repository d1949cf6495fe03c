"""The trunk cache: what it gives for a batch, what it keeps, and what it tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from puna.config import from_dict, to_dict
from puna.errors import InputError
from puna.model import AttentionSpec, LlamaModel
from puna.tune.trunk_cache import TrunkCache, TrunkCacheConfig
from puna.tune.trunk_identity import trunk_identity
from puna.tune.trunk_plan import Entries, run_trunk
from tune.trunk_setup import (
    START,
    WIDTH,
    alone,
    assert_same_to_rounding,
    chunk_files,
    config,
    draw,
    everything,
    filled,
    some,
    tiny_model,
)


def naive(cache: TrunkCache, members: list[list[int]], width: int) -> Tensor:
    """The batch put together token by token, from batches of one sequence."""
    out = torch.zeros(len(members), width, WIDTH)
    for row, sequences in enumerate(members):
        at = 0
        for sequence in sequences:
            for vector in cache.gather([[sequence]], 20)[0]:
                if not (vector == 0).all():
                    out[row, at] = vector
                    at += 1
    return out


@given(
    members=st.lists(st.lists(st.integers(0, 23), max_size=4), min_size=1, max_size=5),
    spare=st.integers(0, 5),
    dtype=st.sampled_from(["auto", "bfloat16", "int8"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_a_batch_is_what_a_naive_loop_puts_together(
    tmp_path: Path, members: list[list[int]], spare: int, dtype: str
) -> None:
    sequences = some()
    cache = filled(tmp_path, sequences, dtype=dtype)
    width = max(1, *(sum(len(sequences[i]) for i in row) for row in members)) + spare
    batch = cache.gather(members, width)
    assert batch.shape == (len(members), width, WIDTH)
    assert torch.equal(batch, naive(cache, members, width))


def test_a_float32_entry_is_bit_for_bit_the_trunks_output_in_the_plan(tmp_path: Path) -> None:
    model, sequences = tiny_model(), some()
    hidden = everything(filled(tmp_path, sequences, model), sequences)
    entries = Entries(sequences, model.config.vocab_size)
    plan = entries.plan(range(len(sequences)), 32)
    assert len(plan) > 3
    for chunk in plan:
        expected, _ = run_trunk(model, START, [sequences[i] for i in chunk])
        for found, i in zip(expected, chunk, strict=True):
            assert torch.equal(hidden[i, : len(sequences[i])], found[: len(sequences[i])])
    for i, ids in enumerate(sequences):
        assert_same_to_rounding(hidden[i, : len(ids)], alone(model, ids))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("enabled", [True, False])
def test_packed_rows_are_what_the_trunk_makes_of_them(
    tmp_path: Path, dtype: torch.dtype, enabled: bool
) -> None:
    model, sequences = tiny_model().to(dtype), some(4)
    cache = filled(tmp_path, sequences, model, enabled=enabled)
    members = [[0, 1, 2], [3]]
    width = sum(len(sequences[i]) for i in members[0])
    ids = torch.zeros(2, width, dtype=torch.int64)
    documents = torch.full((2, width), -1)
    for row, row_members in enumerate(members):
        joined = np.concatenate([sequences[i] for i in row_members])
        ids[row, : len(joined)] = torch.from_numpy(joined)
        lengths = torch.tensor([len(sequences[i]) for i in row_members])
        documents[row, : len(joined)] = torch.repeat_interleave(torch.tensor(row_members), lengths)
    with torch.no_grad():
        spec = AttentionSpec(document_ids=documents, valid=documents >= 0)
        live = model.run(model.embed(ids), 0, START, spec)
    live[documents < 0] = 0
    batch = cache.gather(members, width)
    assert batch.dtype is dtype
    if dtype is torch.float32:
        assert_same_to_rounding(batch, live)
    else:
        torch.testing.assert_close(batch, live, rtol=2**-5, atol=2**-5)


def losses(model: LlamaModel, cache: TrunkCache, sequences: list[np.ndarray]) -> list[float]:
    """Twenty steps of AdamW on the last block, over what the cache gives for the batches."""
    model.model.layers[START:].requires_grad_(True)
    optimizer = torch.optim.AdamW(model.model.layers[START].parameters(), lr=1e-2)
    order = torch.Generator().manual_seed(0)
    found = []
    for _ in range(20):
        members = [[int(i)] for i in torch.randperm(len(sequences), generator=order)[:6]]
        width = max(len(sequences[row[0]]) for row in members)
        targets = torch.full((6, width), -100)
        for row, (i,) in enumerate(members):
            targets[row, : len(sequences[i]) - 1] = torch.from_numpy(sequences[i][1:])
        hidden = cache.gather(members, width)
        loss = model.head_loss(model.run(hidden, START), targets) / (targets >= 0).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def test_a_cached_run_has_the_losses_of_an_uncached_one(tmp_path: Path) -> None:
    sequences = some()
    caches = [
        filled(tmp_path, sequences, tiny_model(), enabled=enabled) for enabled in (True, False)
    ]
    cached, live = (losses(cache.model, cache, sequences) for cache in caches)
    assert np.mean(live[-5:]) < np.mean(live[:5]) - 0.01
    # Hidden states equal to rounding; twenty steps of Adam may not blow that up beyond this.
    np.testing.assert_allclose(cached, live, rtol=1e-5)
    assert caches[0].stats().live == caches[1].stats().hits == 0


def test_a_batch_is_an_ordinary_tensor_also_where_it_is_computed_live(tmp_path: Path) -> None:
    for enabled in (True, False):
        hidden = filled(tmp_path, some(2), enabled=enabled).gather([[0], [1]], 12)
        assert not hidden.is_inference()
        assert not hidden.requires_grad
        weight = torch.ones(WIDTH, requires_grad=True)
        (hidden * weight).sum().backward()


def test_a_second_run_finds_what_the_first_stored(tmp_path: Path) -> None:
    sequences = some()
    first = filled(tmp_path, sequences[:16])
    files = chunk_files(tmp_path)
    second = filled(tmp_path, sequences[8:])
    assert (first.stats().computed, second.stats().found, second.stats().computed) == (16, 8, 8)
    assert set(files) < set(chunk_files(tmp_path))
    hidden = first.gather([[i] for i in range(8, 16)], 12)
    assert torch.equal(hidden, second.gather([[i] for i in range(8)], 12))


def test_other_trunks_and_other_dtypes_share_nothing(tmp_path: Path) -> None:
    sequences = some(4)
    filled(tmp_path, sequences)
    assert filled(tmp_path, sequences, tiny_model(1)).stats().found == 0
    assert filled(tmp_path, sequences, dtype="int8").stats().found == 0
    assert filled(tmp_path, sequences, dtype="float32").stats().found == 4  # as auto was


def test_progress_counts_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    sequences = some()
    told: list[tuple[int, int]] = []
    cache = TrunkCache(tiny_model(), START, [*sequences, sequences[0]], config(tmp_path))
    cache.fill(lambda done, total: told.append((done, total)))
    total = sum(map(len, sequences))
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    told.clear()
    cache.fill(lambda done, total: told.append((done, total)))
    assert told == []


def test_the_longest_are_beyond_the_budget_whatever_is_stored_already(tmp_path: Path) -> None:
    model, sequences = tiny_model(), some()
    whole = filled(tmp_path / "whole", sequences, model)
    budget = whole.stats().bytes_on_disk // 2
    for _ in range(2):  # the second run finds what the first stored, and decides the same
        cache = filled(tmp_path / "half", sequences, model, max_bytes=budget)
        stats = cache.stats()
        assert 0 < stats.bytes_on_disk <= budget
        assert 0 < stats.beyond < len(sequences)
        hidden = everything(cache, sequences)
        assert torch.equal(hidden, everything(cache, sequences))
        assert_same_to_rounding(hidden, everything(whole, sequences))
        assert cache.stats().live == 2 * stats.beyond
    stored = [len(ids) for ids, slot in zip(sequences, cache._slots, strict=True) if slot]
    live = [len(ids) for ids, slot in zip(sequences, cache._slots, strict=True) if not slot]
    assert max(stored) <= min(live)
    assert cache.notes == []


def test_nothing_is_written_where_the_cache_is_off_or_has_no_budget(tmp_path: Path) -> None:
    for changes in ({"enabled": False}, {"max_bytes": 0}):
        cache = filled(tmp_path / "none", some(3), None, **changes)
        assert cache.stats().beyond == 3
        assert_same_to_rounding(
            everything(cache, some(3)), everything(filled(tmp_path, some(3)), some(3))
        )
        assert not (tmp_path / "none").exists()


def test_before_it_is_filled_a_cache_computes(tmp_path: Path) -> None:
    cache = TrunkCache(tiny_model(), START, some(3), config(tmp_path))
    assert_same_to_rounding(
        everything(cache, some(3)), everything(filled(tmp_path, some(3)), some(3))
    )
    assert cache.stats().live == 3


def test_an_identity_that_is_given_is_taken(tmp_path: Path) -> None:
    model, sequences = tiny_model(), some(3)
    filled(tmp_path, sequences, model)
    given = trunk_identity(model, START)
    for identity, found in ((given, 3), ("another", 0)):
        cache = TrunkCache(model, START, sequences, config(tmp_path), identity=identity)
        assert cache.stats().found == found


def test_the_statistics_say_what_was_done(tmp_path: Path) -> None:
    sequences = some(5)
    cache = filled(tmp_path, [*sequences, sequences[0]])
    everything(cache, sequences)
    stats = cache.stats()
    assert (stats.sequences, stats.found, stats.hits, stats.computed) == (5, 0, 5, 5)
    assert stats.bytes_on_disk == sum(path.stat().st_size for path in chunk_files(tmp_path))
    assert stats.seconds_filling > 0
    assert stats.to_dict()["damaged"] == 0
    sentence = stats.sentence()
    assert sentence.startswith("trunk cache: 5 sequences, ")
    assert "0 found, 5 computed in " in sentence
    assert "5 reads saved about " in sentence
    assert "not stored" not in sentence
    off = filled(tmp_path, sequences, enabled=False).stats().sentence()
    assert off.endswith("; 5 not stored")


def test_a_row_that_is_too_short_and_a_trunk_that_learns_are_refused(tmp_path: Path) -> None:
    cache = filled(tmp_path, draw([5, 4]))
    with pytest.raises(InputError, match="row 1 has 9 tokens or more; a row holds 8"):
        cache.gather([[0], [0, 1]], 8)
    model = tiny_model().requires_grad_(True)
    with pytest.raises(InputError, match="learns"):
        TrunkCache(model, START, draw([5]), config(tmp_path))


def test_the_configuration_is_one_that_a_recipe_can_hold(tmp_path: Path) -> None:
    told = {"dtype": "int8", "folder": str(tmp_path), "max_bytes": 10}
    cache_config = from_dict(TrunkCacheConfig, told)
    assert cache_config == TrunkCacheConfig(dtype="int8", folder=tmp_path, max_bytes=10)
    assert from_dict(TrunkCacheConfig, to_dict(cache_config)) == cache_config
    for bad, message in (({"max_bytes": -1}, "at least 0"), ({"batch_tokens": 0}, "at least 1")):
        with pytest.raises(InputError, match=message):
            from_dict(TrunkCacheConfig, bad)
