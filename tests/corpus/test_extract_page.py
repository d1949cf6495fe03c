"""What is HTML, and what is too much of it for a parser, told without a parser."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.extract.page import excess, looks_like_html, tags

DEEPEST = 512


def found_excess(page: str) -> str | None:
    return excess(page, np.frombuffer(page.encode(), np.uint8), DEEPEST)


@pytest.mark.parametrize(
    ("text", "metadata", "expected"),
    [
        ("<!DOCTYPE html><p>x", {}, True),
        ("\n\n <HTML lang=en>", {}, True),
        ("<p>A paragraph.</p>", {"title": "x"}, True),
        ("if a <b: print(a)", {}, False),
        ("List<String> names", {}, False),
        ("plain words", {}, False),
        ("", {}, False),
        ("<html>", {"format": "markdown"}, False),
        ("words alone", {"format": "html"}, True),
        ("<html>", {"format": "warc"}, True),
        ("x" * 5000 + "<p>", {}, False),
    ],
)
def test_what_is_html(text: str, metadata: dict[str, str], expected: bool) -> None:
    assert looks_like_html(text, metadata) is expected


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<",
        "words",
        "<div></div>" * 30_000,
        "<p>one<p>two" * 12_000,
        "<br>" * 30_000,
        "<ul>" + "<li><a href=x>y</a>" * 12_000 + "</ul>",
        "<table>" + "<tr><td>1<td>2" * 9_000 + "</table>",
        "<script>" + "if (a<b) {}" * 30_000 + "</script>",
        "<!--" + "<div>" * 5_000 + "--><p>x",
        "<div>" * DEEPEST,
    ],
)
def test_large_pages_are_not_too_much(page: str) -> None:
    assert found_excess(page) is None


@pytest.mark.parametrize(
    "page",
    [
        "<div>" * 100_000,
        "<div>" * (DEEPEST + 1),
        "<div></other>" * 100_000,
        "<span><div></span>" * 30_000,
        "</x>" * 50_000 + "<div>" * 50_000,
        "<!--x--><section><article>" * 10_000,
    ],
)
def test_deep_pages_are_too_much(page: str) -> None:
    assert found_excess(page) == "elements lie more than 512 deep"


def test_formatting_left_open_is_too_much() -> None:
    opened = "".join(f"<b id={number}>" for number in range(500))
    assert found_excess(opened + "<p>x</p>" * 100) is None
    assert found_excess(opened + "<p>x</p>" * 19_000) == (
        "500 formatting elements are left open over 19,500 elements"
    )


def test_much_text_within_many_elements_is_too_much() -> None:
    page = "<div>" * 400 + "words " * 200_000 + "</div>" * 400
    assert found_excess(page) is None
    page = "<div>" * 500 + "words " * 200_000 + "</div>" * 500
    assert found_excess(page) == "1,205,500 bytes lie up to 500 elements deep"


@given(st.text(alphabet="<>/ab!- d=\"'\n"), st.integers(1, 20))
def test_any_text_is_judged(text: str, depth: int) -> None:
    data = np.frombuffer(text.encode(), np.uint8)
    assert tags(data) == sum(
        one == "<" and other.isalpha() for one, other in itertools.pairwise(text)
    )
    if text.count("<") <= depth:
        assert excess(text, data, depth) is None


@given(st.integers(1, 60), st.integers(1, 60))
def test_depth_is_counted_exactly_in_good_pages(depth: int, limit: int) -> None:
    page = "<div><p>text" * depth + "</p></div>" * depth
    data = np.frombuffer((page * 3).encode(), np.uint8)
    assert (excess(page * 3, data, limit) is not None) == (depth > limit)
