"""Intervals cover what they should, and p-values are as rare as they say."""

from __future__ import annotations

import os
from unittest import mock

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from evaluate.sentences import corrupted, references
from puna.errors import InputError
from puna.evaluate import TextMetric, bootstrap, intervals, measure, paired
from puna.evaluate.intervals import Floats

MEAN = measure("token_accuracy").score  # a ratio of sums: here, of values and ones


def rows_of(values: Floats) -> Floats:
    return np.stack([values, np.ones_like(values)], 1)


def test_intervals_cover_the_truth() -> None:
    """95 %, of 300 samples of 150 from a skewed distribution: 2.5 standard errors are 3 %."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        found = bootstrap(rows_of(rng.exponential(2.0, 150)), MEAN, resamples=400, seed=seed)
        covered += found.low <= 2.0 <= found.high
    assert 0.91 <= covered / 300 <= 0.98


def test_intervals_shrink_with_more_examples() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for count in (100, 1600):
        found = bootstrap(rows_of(rng.normal(5, 1, count)), MEAN)
        widths.append(found.high - found.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)
    assert widths[0] == pytest.approx(2 * 1.96 / 10, rel=0.25)


def test_chance_alone_is_significant_as_often_as_it_should() -> None:
    rng = np.random.default_rng(2)
    values = [
        paired(rows_of(base), rows_of(base + rng.normal(0, 1, 100)), MEAN, resamples=300).p_value
        for base in rng.normal(0, 5, (400, 100))
    ]
    assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(values) == pytest.approx(0.5, abs=0.06)


def test_a_real_difference_is_seen_through_the_noise_of_the_examples() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(0, 50, 200)
    found = paired(rows_of(before), rows_of(before + rng.normal(1, 1, 200)), MEAN)
    assert found.p_value < 0.01 and 0.7 < found.low < found.difference < found.high < 1.3
    back = paired(rows_of(before + 1), rows_of(before), MEAN)
    assert back.difference == pytest.approx(-1) and back.p_value == pytest.approx(1 / 1001)


def test_a_model_does_not_differ_from_itself() -> None:
    rows = rows_of(np.random.default_rng(4).normal(0, 1, 50))
    found = paired(rows, rows.copy(), MEAN)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("nats", [1.0, 1e6])
def test_infinite_figures_prove_nothing(nats: float) -> None:
    score = measure("perplexity").score
    before, after = rows_of(np.full(50, 1e6)), rows_of(np.full(50, nats))
    assert bootstrap(before, score).value == np.inf
    assert paired(before, after, score).p_value == 1


@pytest.mark.parametrize("shares", [(0.4, 0.36), (0.5, 0.3), (0.3, 0.3)])
def test_paired_comparison_agrees_with_sacrebleu(shares: tuple[float, float]) -> None:
    """Scores to the digit; p-values with its randomization test, up to the noise of both."""
    wanted = references(150)
    systems = [corrupted(wanted, share, seed) for seed, share in enumerate(shares)]
    named = list(zip(("before", "after"), systems, strict=True))
    metrics = {"BLEU": BLEU(), "chrF2": CHRF()}
    with mock.patch.dict(os.environ, {"SACREBLEU_SEED": "12345"}):
        _, boot = PairedTest(named, metrics, [wanted], test_type="bs", n_samples=400)()
        _, shuffled = PairedTest(named, metrics, [wanted], test_type="ar", n_samples=1000)()
    for name, theirs in (("bleu", "BLEU"), ("chrf", "chrF2")):
        metric = TextMetric(name)
        rows = [metric.rows(outputs, wanted) for outputs in systems]
        found = paired(*rows, score=measure(name).score, resamples=400)
        first, second = boot[theirs]
        assert found.difference == pytest.approx(second.score - first.score, abs=1e-9)
        ends = bootstrap(rows[1], measure(name).score, resamples=400)
        assert (ends.high - ends.low) / 2 == pytest.approx(second.ci, abs=1e-4)
        assert found.p_value == pytest.approx(shuffled[theirs][1].p_value, abs=0.08)
        # Their bootstrap looks at one side only.
        assert second.p_value <= found.p_value + 0.01


def test_figures_do_not_depend_on_how_the_draws_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(np.random.default_rng(5).normal(0, 1, 37))
    whole = bootstrap(rows, MEAN, resamples=101, seed=9)
    monkeypatch.setattr(intervals, "_CHUNK_ENTRIES", 5 * 37)
    cut = bootstrap(rows, MEAN, resamples=101, seed=9)
    other = bootstrap(rows, MEAN, resamples=101, seed=10)
    assert (cut.low, cut.high) == pytest.approx((whole.low, whole.high), rel=1e-12)
    assert (other.low, other.high) != pytest.approx((whole.low, whole.high), rel=1e-3)


def test_what_cannot_be_resampled_is_refused() -> None:
    rows = rows_of(np.ones(3))
    with pytest.raises(InputError, match="no examples to judge by"):
        bootstrap(rows[:0], MEAN)
    with pytest.raises(InputError, match="resamples must be at least 40, not 10"):
        bootstrap(rows, MEAN, resamples=10)
    with pytest.raises(InputError, match="3 examples before and 2 after"):
        paired(rows, rows[:2], MEAN)
