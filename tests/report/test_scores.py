"""A verdict says no more than the figures show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.report import Change, Score, direction, metric_title, read_change, read_score, verdict


def score(value: float, half: float = 1.0, **more) -> Score:
    return Score("bleu", value, value - half, value + half, n=200, unit="points", **more)


def test_a_certain_gain_is_told_with_interval_and_test():
    said = verdict(score(2.1), score(24.6), Change(22.5, 20.5, 24.5, 0.0, 200))
    assert (said.tone, said.word, said.before, said.after) == ("good", "Better", "2.1", "24.6")
    assert said.sentence == (
        "BLEU rose from 2.1 (95 % interval 1.1 to 3.1) to 24.6 (23.6 to 25.6)."
    )
    assert said.detail == (
        "Paired difference over the same 200 examples: +22.5 (+20.5 to +24.5), p < 0.001."
    )


def test_no_gain_is_said_plainly():
    said = verdict(score(20.0), score(20.4), Change(0.4, -0.6, 1.4, 0.43, 200))
    assert (said.tone, said.word) == ("even", "No proven gain")
    assert said.sentence.startswith("No gain is shown: BLEU went from 20.0")
    assert "chance alone may explain" in said.sentence
    assert "p = 0.43" in said.detail
    assert "includes zero" in said.detail


def test_a_loss_is_a_loss():
    said = verdict(score(20.0), score(12.0), Change(-8.0, -9.0, -7.0, 0.0, 200))
    assert (said.tone, said.word) == ("bad", "Worse")
    assert "fell from" in said.sentence
    assert "worse than its base" in said.sentence


def test_overlapping_intervals_are_mentioned_beside_a_paired_gain():
    said = verdict(score(20.0, 2), score(22.0, 2), Change(2.0, 1.0, 3.0, 0.002, 200))
    assert said.tone == "good"
    assert "The two intervals overlap, but the paired test" in said.detail


@pytest.mark.parametrize(
    ("before", "after", "tone", "said"),
    [
        (score(20, 2), score(22, 2), "even", "overlap, and no paired test was made"),
        (score(2), score(22), "good", "do not overlap; no paired test was made"),
        (Score("bleu", 2.0), Score("bleu", 22.0), "even", "No interval was computed"),
    ],
)
def test_without_a_paired_test_the_intervals_decide(before, after, tone, said):
    found = verdict(before, after, None)
    assert found.tone == tone
    assert said in found.detail


def test_a_test_that_is_not_passed_is_no_proof():
    assert direction(score(1), score(9), Change(8, 6, 10, 0.2, 200)) == "even"


def test_lower_may_be_better():
    before, after = (score(v, higher_is_better=False) for v in (9.0, 3.0))
    said = verdict(before, after, Change(-6, -7, -5, 0.0, 50))
    assert said.tone == "good"
    assert said.unit == "BLEU, lower is better"


def test_half_a_comparison_is_none():
    assert verdict(None, None, None).word == "Not judged"
    alone = verdict(None, score(24.6), None)
    assert alone.word == "No comparison"
    assert alone.sentence == "BLEU is 24.6 (23.6 to 25.6)."
    assert verdict(score(1), Score("bleu", None), None).word == "Not judged"


def test_shares_are_percentages_and_differ_by_points():
    share = Score("exact_match", 0.281, 0.221, 0.341, unit="share")
    assert (share.text(share.value), share.interval_text()) == ("28 %", "22 to 34 %")
    assert Change(0.28, 0.22, 0.34).text("share") == "+28 pp (+22 to +34)"


def test_plain_data_is_read_with_care():
    told = {"value": float("nan"), "low": "x", "high": None, "n": 7, "unit": "points"}
    assert read_score("bleu", told) == Score("bleu", None, n=7, unit="points")
    assert read_score("bleu", 3.5) == Score("bleu", 3.5)
    assert read_score("bleu", None) is None
    assert read_score("bleu", True) is None
    assert read_change({"difference": float("inf")}) is None
    assert read_change({"difference": 1, "low": 0.5, "high": 2}) == Change(1.0, 0.5, 2.0)


def test_names_of_metrics():
    assert metric_title("chrf") == "chrF"
    assert metric_title("my_metric") == "My metric"
    assert metric_title("") == "Metric"


VALUES = st.floats(-100, 100) | st.none()


@given(VALUES, VALUES, st.floats(0, 20), st.booleans(), VALUES, st.floats(0, 1) | st.none())
def test_a_better_or_worse_verdict_always_rests_on_an_interval(
    before, after, half, higher, gain, p_value
):
    def made(value: float | None) -> Score | None:
        bounds = (None, None) if value is None else (value - half, value + half)
        return Score("x", value, *bounds, higher_is_better=higher)

    change = None if gain is None else Change(gain, gain - half, gain + half, p_value)
    said = verdict(made(before), made(after), change)
    if said.tone in ("good", "bad"):
        certain = change.certain() if change else abs(after - before) > 2 * half
        assert certain
        moved = gain if change else after - before
        assert (said.tone == "good") == ((moved > 0) == higher)
    assert said.sentence
