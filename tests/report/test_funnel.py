"""The drawing of a funnel: bars as long as their values, joined, readable at both widths."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.report import Funnel, Stage
from puna.report.canvas import text_width
from puna.report.page import NARROW, WIDE
from puna.report.plot import draw

SVG = "{http://www.w3.org/2000/svg}"
WIDTHS = (WIDE, NARROW)


def drawn(chart: Funnel, width: float = WIDE) -> dict[str, list[ElementTree.Element]]:
    """The elements of a drawing by class."""
    found: dict[str, list[ElementTree.Element]] = {}
    for element in ElementTree.fromstring(draw(chart, width, "g1")).iter():
        found.setdefault(str(element.get("class")), []).append(element)
    return found


def number_of(element: ElementTree.Element, name: str) -> float:
    return float(str(element.get(name)))


def funnel(*values: tuple[float | None, float | None]) -> Funnel:
    stages = tuple(Stage(f"step {n}", pair, notes=("−5 %", "")) for n, pair in enumerate(values))
    return Funnel("What is left", stages, ("documents", "bytes"))


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_are_as_long_as_their_values_on_a_scale_for_each_side(width: float) -> None:
    found = drawn(funnel((1000, 8e9), (500, 6e9), (250, 2e9)), width)
    left = [number_of(e, "width") for e in found["stage s0"]]
    right = [number_of(e, "width") for e in found["stage s1"]]
    assert [one / left[0] for one in left] == pytest.approx([1, 0.5, 0.25], abs=0.01)
    assert [one / right[0] for one in right] == pytest.approx([1, 0.75, 0.25], abs=0.01)
    ends = [number_of(e, "x") + number_of(e, "width") for e in found["stage s0"]]
    assert ends == pytest.approx([width / 2] * 3), "back to back on the axis"
    assert len(found["slope s0"]) == len(found["slope s1"]) == 2


def test_a_value_that_is_missing_has_no_bar_and_breaks_the_slope() -> None:
    found = drawn(funnel((9, 9), (None, float("nan")), (-3, 4), (0, 2)))
    assert len(found["stage s0"]) == 2
    assert "slope s0" not in found
    assert len(found["stage s1"]) == 3
    assert len(found["slope s1"]) == 1
    assert [e.text for e in found["value"]] == [
        "9", "–", "−3", "0", "9", "not a number", "4", "2",
    ]  # fmt: skip


def test_it_can_be_heard() -> None:
    chart = funnel((1000, 8e9), (500, 6e9))
    tree = ElementTree.fromstring(draw(chart, WIDE, "g1"))
    said = tree.findtext(f"{SVG}desc") or ""
    assert said.startswith("step 0: documents 1,000, bytes 8,000,000,000; step 1: documents 500")
    assert ElementTree.fromstring(draw(funnel(), WIDE, "g")).findtext(f"{SVG}desc")


@pytest.mark.parametrize("width", WIDTHS)
@given(
    st.lists(
        st.tuples(*[st.none() | st.floats(allow_nan=True)] * 2), max_size=5
    ),
    st.text(max_size=40),
)  # fmt: skip
def test_whatever_the_values_all_that_is_drawn_lies_inside(
    width: float, values: list[tuple[float | None, float | None]], name: str
) -> None:
    stages = tuple(Stage(name, pair, (name, ""), ("", name)) for pair in values)
    found = drawn(Funnel(name, stages, (name, name)), width)
    for side in ("stage s0", "stage s1"):
        for bar in found.get(side, []):
            assert number_of(bar, "x") >= 0
            assert number_of(bar, "x") + number_of(bar, "width") <= width + 1
    for text in (*found.get("value", []), *found.get("tick", [])):
        at, long = number_of(text, "x"), text_width(text.text or "")
        inside = at - long if text.get("text-anchor") == "end" else width - at - long
        assert inside >= -20
