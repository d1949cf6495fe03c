"""Scales, ticks and the shapes that charts draw."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from puna.report import Dot, Interval, Intervals, LineChart, Scatter, Series
from puna.report.axes import Scale, drawable, padded, span, tick_label, ticks, unit_for
from puna.report.canvas import clipped, text_width
from puna.report.plot import MAX_POINTS, draw, strip, thinned

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)
SVG = "{http://www.w3.org/2000/svg}"


@given(st.lists(NUMBERS, max_size=6), st.booleans(), st.booleans())
@example([9.253520872580625e67, 5.1474418481824743e-241], True, False)
def test_an_axis_holds_its_values_and_its_ticks(values, log, zero):
    low, high = span(values, log=log, zero=zero and not log)
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low < high
    scale = Scale(low, high, 10.0, 110.0, log)
    for value in values:
        if drawable(value, log=log) is not None:
            assert low <= value <= high
            assert 10.0 <= scale(value) <= 110.0
    found = ticks(low, high, 5, log=log)
    assert found == sorted(found)
    assert len(found) <= 30
    assert all(
        low - 0.01 * abs(low) <= value <= high + 0.01 * abs(high) for value in found if value
    )
    assert all(tick_label(value) for value in found)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [((0, 10), [0, 2, 4, 6, 8, 10]), ((0.9, 2.1), [1.0, 1.25, 1.5, 1.75, 2.0])],
)
def test_ticks_are_round(bounds, expected):
    assert ticks(*bounds, 5) == pytest.approx(expected)


def test_logarithmic_ticks_are_powers_where_there_are_enough():
    assert ticks(0.1, 1e4, 6, log=True) == pytest.approx([0.1, 1, 10, 100, 1000, 10000])
    assert ticks(1, 10, 4, log=True) == pytest.approx([1, 3, 10])


def test_labels_of_ticks():
    assert [tick_label(v) for v in (0.0, 2e-4, 0.05, 1200.0, 25_000.0, 3e6)] == [
        "0", "2e−4", "0.05", "1,200", "25k", "3M",
    ]  # fmt: skip
    assert tick_label(-2.5) == "−2.5"


def test_units_follow_the_largest_value():
    assert unit_for("seconds", 45) == (1.0, "seconds")
    assert unit_for("seconds", 900) == (60.0, "minutes")
    assert unit_for("bytes", 3e9) == (2.0**30, "GiB")
    assert unit_for("plain", 1e9) == (1.0, "")


def test_padding_is_even():
    assert padded(0, 10, 0.1) == (-1.0, 11.0)
    assert padded(1, 100, 0.5, log=True) == pytest.approx((0.1, 1000))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(1, 60))
def test_thinning_keeps_ends_and_extremes(pattern, times):
    values = pattern * times
    run = [(float(step), value) for step, value in enumerate(values)]
    kept = thinned(run, MAX_POINTS)
    assert len(kept) <= MAX_POINTS + 4
    assert kept[0] == run[0]
    assert kept[-1] == run[-1]
    assert kept == sorted(kept)
    assert min(y for _, y in kept) == min(values)
    assert max(y for _, y in kept) == max(values)


def elements(svg: str, name: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{SVG}{name}"))


def test_a_line_breaks_where_a_value_is_missing():
    points = ((1, 1.0), (2, 2.0), (3, float("nan")), (4, 1.0), (5, 2.0), (6, None), (7, 1.5))
    svg = draw(LineChart("Loss", (Series("a", points),), "step", "nats"), 720, "g1")
    assert len(elements(svg, "path")) == 2
    assert len(elements(svg, "circle")) == 1, "a point alone has a mark"


def test_a_chart_can_be_heard():
    svg = draw(
        LineChart("Loss", (Series("train", ((1, 4.0), (9, 1.5))),), "step", "nats"), 720, "g"
    )
    said = elements(svg, "desc")[0].text
    assert "train: begins at 4, ends at 1.5" in said
    assert elements(svg, "title")[0].text == "Loss"
    assert 'aria-labelledby="g-t g-d"' in svg


def test_intervals_are_drawn_where_they_are():
    rows = (Interval("a", 2.0, 1.0, 3.0), Interval("b", 6.0, 5.0, 7.0), Interval("c", 4.0))
    svg = draw(Intervals(rows, "x"), 720, "g1")
    whiskers = [e for e in elements(svg, "line") if e.get("class").startswith("whisker")]
    (a, b) = [(float(e.get("x1")), float(e.get("x2"))) for e in whiskers]
    dots = [float(e.get("cx")) for e in elements(svg, "circle")]
    assert a[0] < dots[0] < a[1] < dots[2] < b[0] < dots[1] < b[1]
    assert len(elements(strip(rows, "g2"), "circle")) == 3


def test_labels_of_points_do_not_meet():
    dots = tuple(Dot(f"method {n}", 1.0 + 0.01 * n, 5.0 + 0.02 * n) for n in range(5))
    svg = draw(Scatter("a", (*dots, Dot("far", 9, 9)), "x", "y"), 720, "g1")
    names = [e for e in elements(svg, "text") if e.get("class") == "name"]
    boxes = [(float(e.get("x")), float(e.get("y")), text_width(e.text)) for e in names]
    for index, (x, y, width) in enumerate(boxes):
        for other_x, other_y, other_width in boxes[index + 1 :]:
            apart = x + width <= other_x or other_x + other_width <= x or abs(y - other_y) >= 15
            assert apart


def test_a_wide_range_is_logarithmic_and_said_to_be():
    svg = draw(Scatter("a", (Dot("a", 1e6, 1), Dot("b", 1e8, 2)), "parameters", "y"), 720, "g")
    assert "parameters (logarithmic)" in svg


@pytest.mark.parametrize(("level", "drawn"), [(28.0, True), (2.0, False)])
def test_a_floor_far_off_is_named_rather_than_crowding_the_points(level, drawn):
    dots = (Dot("a", 1, 30), Dot("b", 2, 34))
    svg = draw(Scatter("a", dots, "x", "y", floor=(level, "untuned")), 720, "g")
    assert ('class="rule"' in svg) is drawn
    assert ("↓ untuned: 2, off this axis" in svg) is not drawn


def test_the_narrow_drawing_fits_its_width():
    chart = Scatter("a", tuple(Dot("m" * 60, n, n) for n in range(6)), "x", "y")
    for element in elements(draw(chart, 350, "g"), "text"):
        if element.get("text-anchor") == "start":
            assert float(element.get("x")) + text_width(element.text) <= 352


def test_long_names_are_cut_with_a_mark():
    assert clipped("short", 100) == "short"
    assert clipped("a very long name indeed", 60).endswith("…")
    assert text_width("単元") > text_width("ab")
    assert re.fullmatch(r"単+…", clipped("単" * 30, 80))
