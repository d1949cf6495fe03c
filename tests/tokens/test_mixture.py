"""The mixture: exact shares, exact epochs, and any stretch of rows found at once."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from house.source import REPOSITORY
from puna.config import from_dict
from puna.errors import InputError
from puna.tokens.mixture import PERIOD_ROWS, MixtureConfig, Schedule

PUBLISHED = {  # arXiv 2302.13971, table 1: share in per cent, epochs
    "commoncrawl": (67.0, 1.10),
    "c4": (15.0, 1.06),
    "github": (4.5, 0.64),
    "wikipedia": (4.5, 2.45),
    "books": (4.5, 2.23),
    "arxiv": (2.5, 1.06),
    "stackexchange": (2.0, 1.03),
}
WEIGHTS = {name: share for name, (share, _) in PUBLISHED.items()}
EPOCHS = {name: epochs for name, (_, epochs) in PUBLISHED.items()}
TOKENS = {name: 40_000 + 7_919 * n for n, name in enumerate(PUBLISHED)}


def schedule(
    config: MixtureConfig, tokens: dict[str, int] = TOKENS, *, row_tokens: int = 100, seed: int = 3
) -> Schedule:
    return Schedule(config, tokens, row_tokens=row_tokens, seed=seed)


def recipe_text() -> str:
    return (REPOSITORY / "recipes" / "llama-mixture.yaml").read_text(encoding="utf-8")


def test_the_recipe_has_the_published_mixture_both_ways() -> None:
    text = recipe_text()
    mixture = yaml.safe_load(text)["mixture"]
    assert from_dict(MixtureConfig, mixture) == MixtureConfig(weights=WEIGHTS)
    bare = re.sub(r"^  # (epochs:|  \w+: [\d.]+)$", r"  \1", text, flags=re.MULTILINE)
    assert from_dict(MixtureConfig, {"epochs": yaml.safe_load(bare)["mixture"]["epochs"]}) == (
        MixtureConfig(epochs=EPOCHS)
    )


def test_a_million_draws_have_the_shares_of_the_recipe() -> None:
    mixture = from_dict(MixtureConfig, yaml.safe_load(recipe_text())["mixture"])
    made = schedule(mixture)
    sources, _ = made.draws(0, 1_000_000)
    shares = np.bincount(sources, minlength=len(made.names)) / 1_000_000
    for name, share in zip(made.names, shares, strict=True):
        assert share == pytest.approx(PUBLISHED[name][0] / 100, abs=1e-3)
        assert share == pytest.approx(PUBLISHED[name][0] / 100, abs=1e-5)  # what the method gives
    assert made.rows_total is None and made.period_rows == PERIOD_ROWS == sum(made.quotas)


@given(st.integers(0, 3 * PERIOD_ROWS), st.integers(1, 4000), st.integers(0, 9))
@settings(max_examples=30)
def test_any_stretch_has_nearly_the_shares(start: int, rows: int, seed: int) -> None:
    made = schedule(MixtureConfig(weights=WEIGHTS), seed=seed)
    sources, _ = made.draws(start, start + rows)
    counted = np.bincount(sources, minlength=len(made.names))
    for name, count in zip(made.names, counted, strict=True):
        # At each end, a row of every source may stand before or behind its share's place.
        assert abs(count - rows * WEIGHTS[name] / 100) <= 8


@pytest.mark.parametrize(
    "config", [MixtureConfig(weights=WEIGHTS), MixtureConfig(epochs=EPOCHS), MixtureConfig()]
)
def test_the_rows_of_a_source_come_in_order_and_none_is_left_out(config: MixtureConfig) -> None:
    made = schedule(config)
    total = made.rows_total or PERIOD_ROWS + 5000
    sources, rows = made.draws(0, total)
    for number in range(len(made.names)):
        own = rows[sources == number]
        np.testing.assert_array_equal(own, np.arange(len(own)))
    assert sources.dtype == np.int32 and rows.dtype == np.int64


@st.composite
def stretches(draw: st.DrawFn) -> tuple[MixtureConfig, tuple[int, int, int]]:
    if draw(st.booleans()):
        config, near = MixtureConfig(weights=WEIGHTS), draw(st.sampled_from([0, 1, 10**9]))
        first = max(near * PERIOD_ROWS - draw(st.integers(0, 3000)), 0)
        cuts = sorted(draw(st.tuples(*[st.integers(first, first + 6000)] * 3)))
    else:
        config = MixtureConfig(epochs=EPOCHS)
        cuts = sorted(draw(st.tuples(*[st.integers(0, schedule(config).rows_total or 0)] * 3)))
    return config, (cuts[0], cuts[1], cuts[2])


@given(stretches())
@settings(max_examples=40)
def test_two_stretches_are_the_one_that_they_make(
    case: tuple[MixtureConfig, tuple[int, int, int]],
) -> None:
    config, (a, b, c) = case
    whole = schedule(config).draws(a, c)
    made = schedule(config)
    second, first = made.draws(b, c), made.draws(a, b)  # asked for out of order
    for joined, parts in zip(whole, zip(first, second, strict=True), strict=True):
        np.testing.assert_array_equal(joined, np.concatenate(parts))


@given(stretches())
@settings(max_examples=20)
def test_counts_are_those_of_the_draws(
    case: tuple[MixtureConfig, tuple[int, int, int]],
) -> None:
    config, (a, b, _) = case
    made = schedule(config)
    drawn = Counter(made.draws(a, b)[0].tolist())
    more = zip(made.counts(a), made.counts(b), strict=True)
    assert [after - before for before, after in more] == [drawn[n] for n in range(len(TOKENS))]


def test_the_order_is_that_of_the_stated_method() -> None:
    """Written anew from the description: the floors, the places, and Philox's raw bits."""
    made, seed, block, period = schedule(MixtureConfig(weights={"c4": 3, "books": 1})), 3, 5, 2
    used = [name for name in sorted(TOKENS) if name in ("c4", "books")]
    quotas = {"books": PERIOD_ROWS // 4, "c4": 3 * PERIOD_ROWS // 4}
    blocks = PERIOD_ROWS // 1024
    key = np.random.SeedSequence([seed, 0x6D69]).generate_state(2, np.uint64)
    generator = np.random.Philox(key=key, counter=np.array([0, block, period, 0], dtype=np.uint64))
    items = []
    for name in used:
        quota = quotas[name]
        begin, end = (math.floor(b * quota / blocks) for b in (block, block + 1))
        for index in range(end - begin):
            place = index + (int(generator.random_raw()) >> 11) / 2**53
            row = period * quota + begin + index
            items.append((place / (end - begin), made.names.index(name), row))
    start = period * PERIOD_ROWS + block * 1024
    sources, rows = made.draws(start, start + 1024)
    assert [(source, row) for _, source, row in sorted(items)] == list(
        zip(sources.tolist(), rows.tolist(), strict=True)
    )


def test_the_order_follows_the_seed_and_the_period_and_not_the_order_of_sources() -> None:
    config = MixtureConfig(weights=WEIGHTS)
    first = schedule(config).draws(0, 3000)[0]
    turned = schedule(config, dict(reversed(TOKENS.items()))).draws(0, 3000)[0]
    np.testing.assert_array_equal(first, turned)
    for other in (
        schedule(config, seed=4).draws(0, 3000)[0],
        schedule(config).draws(PERIOD_ROWS, PERIOD_ROWS + 3000)[0],
    ):
        assert (first != other).any()


def test_it_begins_anywhere_at_once_and_keeps_little() -> None:
    made = schedule(MixtureConfig(weights=WEIGHTS))
    far = 10**15
    sources, rows = made.draws(far, far + 8)
    assert len(sources) == len(rows) == 8
    share = rows[sources == made.names.index("commoncrawl")] / far
    assert share == pytest.approx([0.67] * len(share), abs=1e-5)
    kept = made._kept
    assert kept is not None and sum(array.nbytes for array in kept[1]) < 100_000


def test_epochs_end_when_all_is_read() -> None:
    config = MixtureConfig(epochs=EPOCHS)
    made = schedule(config)
    sources, _ = made.draws(0, made.rows_total or 0)
    counted = np.bincount(sources)
    for number, name in enumerate(made.names):
        wanted = EPOCHS[name] * TOKENS[name] / 100
        assert wanted - 1e-9 <= counted[number] < wanted + 1
        assert made.limit(number) == math.ceil(EPOCHS[name]) * TOKENS[name]
    assert made.tokens(made.quotas) == [
        min(quota * 100, math.ceil(EPOCHS[name]) * TOKENS[name])
        for quota, name in zip(made.quotas, made.names, strict=True)
    ]
    with pytest.raises(InputError, match=r"no rows from 0 to \d+ in this schedule of \d+"):
        made.draws(0, (made.rows_total or 0) + 1)


def test_with_neither_every_source_is_read_once() -> None:
    made = schedule(MixtureConfig(), {"b": 1000, "a": 250, "c": 1})
    assert made.names == ("a", "b", "c") and made.quotas == [3, 10, 1]
    assert [made.limit(n) for n in range(3)] == [250, 1000, 1] and made.rows_total == 14
    assert made.tokens(made.quotas) == [250, 1000, 1]


def test_sources_that_are_not_named_are_not_read() -> None:
    for config in (MixtureConfig(weights={"c4": 1}), MixtureConfig(epochs={"c4": 0.5})):
        made = schedule(config)
        assert set(made.draws(0, 200)[0].tolist()) == {made.names.index("c4")}
        assert [quota > 0 for quota in made.quotas] == [name == "c4" for name in made.names]
    empty = schedule(MixtureConfig(weights={"a": 1}), {"a": 100, "b": 0})
    assert empty.quotas == [PERIOD_ROWS, 0] and empty.counts(7) == [7, 0]


@given(st.lists(st.floats(0.1, 1e3), min_size=1, max_size=12))
def test_quotas_are_the_weights_to_one_row(weights: list[float]) -> None:
    config = MixtureConfig(weights={f"s{n:02}": weight for n, weight in enumerate(weights)})
    made = schedule(config, dict.fromkeys(config.weights, 1000))
    assert sum(made.quotas) == PERIOD_ROWS
    for quota, weight in zip(made.quotas, weights, strict=True):
        assert abs(quota - PERIOD_ROWS * weight / sum(weights)) < 1 + 1e-6


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("key", ["weights", "epochs"])
def test_what_is_no_amount_is_refused(key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"{key}\.c4 must be a positive number, found") as error:
        MixtureConfig(**{key: {"c4": value}})
    assert error.value.fix == "leave a source out that is not to be read"


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="a mixture has weights or epochs, not both"):
        MixtureConfig(weights={"c4": 1.0}, epochs={"c4": 1.0})
    for config in (MixtureConfig(weights={"c5": 1.0}), MixtureConfig(epochs={"c5": 1.0})):
        with pytest.raises(InputError, match="names 'c5', which is not among the sources") as error:
            schedule(config, {"c4": 1, "books": 2})
        assert error.value.fix == "sources here: books, c4"
    with pytest.raises(InputError, match="there are no sources to read"):
        schedule(MixtureConfig(), {})
    for config in (MixtureConfig(), MixtureConfig(weights={"a": 1.0})):
        with pytest.raises(InputError, match="the source 'a' has no tokens to train on"):
            schedule(config, {"a": 0, "b": 5})
    with pytest.raises(InputError, match=r"weights\.a is 1e-09, less than one row in 1048576"):
        schedule(MixtureConfig(weights={"a": 1e-9, "b": 1.0}), {"a": 5, "b": 5})
    with pytest.raises(InputError, match="a seed must be at least 0, not -1"):
        schedule(MixtureConfig(), seed=-1)
    made = schedule(MixtureConfig(weights=WEIGHTS))
    for start, stop in ((-1, 2), (3, 2)):
        with pytest.raises(InputError, match=f"no rows from {start} to {stop} in this schedule"):
            made.draws(start, stop)
    with pytest.raises(InputError, match="no rows from 0 to -1 in this schedule"):
        made.counts(-1)
