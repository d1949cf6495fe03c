"""Who is held out: groups are never parted, shares are stable, and every source has both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.flows.tokenize_split import (
    CONTAMINATED,
    DUPLICATE,
    HELD_OUT,
    TRAIN,
    Found,
    HoldOut,
    choose_sample,
    decide,
    places,
)

Rows = list[tuple[int, int, int, int | None, bool]]  # source, content, text, root, contaminated


def found(rows: Rows) -> Found:
    rows = sorted(rows, key=lambda row: row[0])
    texts = np.array([row[2] + 10 for row in rows], dtype=np.uint64)
    roots = [row[2] + 10 if row[3] is None else row[3] + 1000 for row in rows]
    return Found(
        sources=np.array([row[0] for row in rows]),
        contents=np.array([row[1] for row in rows], dtype=np.uint64),
        texts=texts,
        roots=np.array(roots, dtype=np.uint64),
        contaminated=np.array([row[4] for row in rows], dtype=bool),
    )


def groups(told: Found) -> list[int]:
    """The group of each document, found one by one."""
    parent: dict[Any, Any] = {}

    def top(key: Any) -> Any:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    pairs = list(zip(told.texts.tolist(), told.roots.tolist(), strict=True))
    for text, root in pairs:
        parent[top(("root", root))] = top(("text", text))
    names = [top(("text", text)) for text, _ in pairs]
    return [sorted(set(names)).index(name) for name in names]


rows = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2),
        st.integers(0, 12),
        st.none() | st.integers(0, 6),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


@given(rows, st.sampled_from([0.0, 0.1, 0.3, 0.5]), st.none() | st.integers(1, 5), st.booleans())
def test_the_rules_hold(given_rows: Rows, share: float, most: int | None, drop: bool) -> None:
    told = found(given_rows)
    decisions = decide(told, HoldOut(share, most, seed=3), drop_duplicates=drop)
    group = groups(told)
    stays = decisions != DUPLICATE
    seen: set[tuple[int, int]] = set()
    for number in range(len(decisions)):
        same = (int(told.contents[number]), int(told.texts[number]))
        assert (decisions[number] == DUPLICATE) == (drop and same in seen), "the first one stays"
        seen.add(same)
    held = {group[n] for n in range(len(group)) if decisions[n] == HELD_OUT}
    learnt = {group[n] for n in range(len(group)) if decisions[n] in (TRAIN, CONTAMINATED)}
    assert not held & learnt, "a group is never parted"
    for number in np.flatnonzero(stays).tolist():
        is_held = decisions[number] == HELD_OUT
        if not is_held:
            wanted = CONTAMINATED if told.contaminated[number] else TRAIN
            assert decisions[number] == wanted
    for source in set(told.sources[stays].tolist()):
        mine = {group[n] for n in np.flatnonzero(stays & (told.sources == source)).tolist()}
        assert mine - held, "a source has something to learn from"
    if not share:
        assert not held


def test_every_source_of_two_groups_holds_one_out() -> None:
    sizes = [1, 2, 3, 50]
    given_rows: Rows = [
        (source, number, 100 * source + number, None, False)
        for source, size in enumerate(sizes)
        for number in range(size)
    ]
    told = found(given_rows)
    for seed in range(20):
        decisions = decide(told, HoldOut(1e-9, None, seed), drop_duplicates=True)
        for source, size in enumerate(sizes):
            count = int((decisions[told.sources == source] == HELD_OUT).sum())
            assert count == (0 if size == 1 else 1)


@pytest.mark.parametrize("share", [0.005, 0.1, 0.5])
def test_the_share_is_kept(share: float) -> None:
    count = 40_000
    names = np.random.default_rng(0).integers(0, 2**63, count).astype(np.uint64)
    told = Found(np.zeros(count), names, names, names, np.zeros(count, dtype=bool))
    decisions = decide(told, HoldOut(share, None, 0), drop_duplicates=True)
    held = float((decisions == HELD_OUT).mean())
    assert abs(held - share) < 4 * (share * (1 - share) / count) ** 0.5
    bounded = decide(told, HoldOut(share, 100, 0), drop_duplicates=True)
    assert int((bounded == HELD_OUT).sum()) == 100
    assert set(np.flatnonzero(bounded == HELD_OUT)) < set(np.flatnonzero(decisions == HELD_OUT))


def test_new_documents_do_not_move_old_ones() -> None:
    names = np.random.default_rng(0).integers(0, 2**63, 3000).astype(np.uint64)

    def decided(names: np.ndarray) -> np.ndarray:
        none = np.zeros(len(names), dtype=bool)
        told = Found(np.zeros(len(names)), names, names, names, none)
        return decide(told, HoldOut(0.1, None, 0), drop_duplicates=True)

    old, new = decided(names[:2000]), decided(names)
    assert np.array_equal(old, new[:2000])
    order = np.random.default_rng(1).permutation(3000)
    assert np.array_equal(decided(names[order]), new[order])


def test_long_chains_of_roots_and_texts_are_one_group() -> None:
    count = 300  # document n shares its text with n - 1 and its root with n + 1, by turns
    texts = np.array([10_000 + (n + 1) // 2 for n in range(count)], dtype=np.uint64)
    roots = np.array([20_000 + n // 2 for n in range(count)], dtype=np.uint64)
    contents = np.arange(count).astype(np.uint64)
    texts, roots = np.append(texts, np.uint64(1)), np.append(roots, np.uint64(1))
    contents = np.append(contents, np.uint64(count))
    none = np.zeros(count + 1, dtype=bool)
    told = Found(np.zeros(count + 1), contents, texts, roots, none)
    for seed in range(8):
        decisions = decide(told, HoldOut(0.5, None, seed), drop_duplicates=True)
        assert len(set(decisions[:count].tolist())) == 1
        assert decisions[0] != decisions[count], "of two groups one is held out"


def test_places_are_even_and_depend_on_the_seed() -> None:
    names = np.arange(100_000).astype(np.uint64)
    told = places(names, 0)
    assert 0 <= told.min() < told.max() < 1
    counts, _ = np.histogram(told, bins=10, range=(0, 1))
    assert abs(counts - 10_000).max() < 400
    assert abs(np.corrcoef(told, places(names, 1))[0, 1]) < 0.02
    assert np.array_equal(places(names[::-1], 0), told[::-1])
    assert np.array_equal(places(names, -5), places(names, -5))


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=40), st.integers(1, 400))
def test_a_sample_fits_and_is_of_what_is_wanted(
    given_rows: list[tuple[int, bool]], most: int
) -> None:
    sizes = np.array([size for size, _ in given_rows], dtype=np.int64)
    wanted = np.array([on for _, on in given_rows], dtype=bool)
    keys = np.arange(len(given_rows)).astype(np.uint64)
    chosen = choose_sample(sizes, wanted, keys, most, seed=0)
    assert not (chosen & ~wanted).any()
    total = int(sizes[chosen].sum())
    assert total <= most or chosen.sum() == 1
    if wanted.any():
        assert chosen.any()
        if int(sizes[wanted].sum()) <= most:
            assert np.array_equal(chosen, wanted)
        else:
            assert total > most - 50 or chosen.sum() == 1
