"""The file that a page becomes: well-formed, closed to the outside, and true to its texts."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from puna.errors import InputError
from puna.report import (
    BarChart,
    Cell,
    Chain,
    Code,
    Details,
    Dot,
    Funnel,
    Histogram,
    Interval,
    Intervals,
    KeyValues,
    LineChart,
    MarkedText,
    Page,
    Paragraph,
    Part,
    Sample,
    Scatter,
    Section,
    Series,
    SideBySide,
    Stage,
    Step,
    Table,
    Tile,
    Tiles,
    Verdict,
    render,
    write,
)
from puna.report.words import visible

SPACE = "{http://www.w3.org/1999/xhtml}"
HOSTILE = (
    "<script>alert(1)</script>",
    "</style></title></svg><img src=x onerror=alert(1)>",
    "\" onload='x' \x00\x1b[31m \ud800 \uffff ]]> <!-- {{ page }} {% raw %}",
)


def every_part(text: str) -> tuple[Part, ...]:
    """One of each, with a text wherever one goes."""
    interval = Interval(text, 1.5, 1.0, 2.0, tone="good")
    inner = (Paragraph(text, "even"), Code(text, text), KeyValues({text: text}))
    return (
        Verdict("good", text, text, text, text, text, text),
        Tiles((Tile(text, text, text),)),
        Table((text, text), ((text, Cell(text, text, strip=(interval,))),), total=(text, text)),
        LineChart(text, (Series(text, ((0, 1), (1, 2))),) * 2, text, text, rule=(0.5, text)),
        Histogram(text, ((0, 8, 3), (8, 16, 5)), text, text, text),
        BarChart(text, (interval,), text),
        Intervals((interval,), text),
        Funnel(text, (Stage(text, (4, 2), (text, text), (text, text)),) * 2, (text, text), text),
        Scatter(text, (Dot(text, 1, 1), Dot(text, 2, 3, 2, 4)), text, text, floor=(0, text)),
        SideBySide((text, text), (Sample(text, (text, text), text),)),
        MarkedText(((text, False), (text, True)), text, text),
        Chain((Step(text, text, text),)),
        Details(text, inner),
    )


def page_of(text: str) -> Page:
    section = Section(text, every_part(text), lead=text)
    return Page(text, text, text, (Paragraph(text),), (section, section), text)


class Reader(html.parser.HTMLParser):
    """Collects what a browser would see."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def read(written: str) -> Reader:
    reader = Reader()
    reader.feed(written)
    return reader


PLAIN = read(render(page_of("plain")))


@settings(max_examples=40)
@given(st.text(st.characters(codec=None), min_size=1, max_size=30) | st.sampled_from(HOSTILE))
def test_texts_are_texts_wherever_they_stand(text):
    written = render(page_of(text))
    tree = ElementTree.fromstring(written)
    found = read(written)
    assert found.tags <= PLAIN.tags
    assert {name for name, _ in found.attributes} <= {name for name, _ in PLAIN.attributes}
    code = next(tree.iter(f"{SPACE}code"))
    assert code.text == visible(text)
    answers = [element.text for element in tree.iter(f"{SPACE}dd")]
    assert answers.count(visible(text)) >= 4
    assert written.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_runs_and_nothing_is_loaded(text):
    found = read(render(page_of(text)))
    names = {name for name, _ in found.attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "style"}
    assert not found.tags & {"script", "img", "link", "iframe", "object", "base", "form", "image"}
    targets = [value for name, value in found.attributes if name == "href"]
    assert targets
    assert all(re.fullmatch(r"#[a-z0-9-]+", target) for target in targets)
    policies = [v for n, v in found.attributes if n == "content" and "default-src" in (v or "")]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "unsafe" not in policies[0]


def test_the_style_sheet_is_the_one_that_the_policy_allows():
    import base64
    import hashlib

    written = render(Page("A"))
    style = re.search("<style>(.*?)</style>", written, flags=re.DOTALL)[1]
    assert "&" not in style
    assert "<" not in style
    assert "url(" not in style
    assert "@import" not in style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    content = dict(read(written).attributes)
    assert f"sha256-{digest}" in render(Page("A")).replace("&#39;", "'")
    assert content["lang"] == "en"


def test_ids_are_unique_and_every_link_leads_somewhere():
    found = read(render(page_of("Überraschung")))
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in found.attributes:
        if name == "href":
            assert value[1:] in ids
        if name == "aria-labelledby":
            assert set(value.split()) <= set(ids)


def test_sections_get_names_that_can_be_read():
    titles = ("What it cost", "What it cost", "費用", "Data!")
    found = read(render(Page("A", sections=tuple(Section(t, ()) for t in titles))))
    targets = [value for name, value in found.attributes if name == "href"]
    assert targets == ["#what-it-cost", "#section-2", "#section-3", "#data"]


def test_direction_follows_the_text():
    written = render(Page("A", opening=(Paragraph("البحث"), Paragraph("単元格"))))
    tree = ElementTree.fromstring(written)
    shown = {p.text: p.get("dir") for p in tree.iter(f"{SPACE}p")}
    assert shown["البحث"] == "auto"
    assert shown["単元格"] == "auto"


def test_an_answer_equal_to_the_first_is_ticked_and_an_empty_one_is_named():
    part = SideBySide(
        ("reference", "base", "tuned"),
        (Sample("a", ("oui", "", " oui ")), Sample("b", ("non", "oui", "oui"))),
    )
    written = render(Page("A", opening=(part,)))
    assert written.count("same as reference") == 1
    assert written.count("<em>nothing</em>") == 1


def test_marked_pieces_join_without_seams():
    part = MarkedText((("Enreg", True), ("istrer", True), ("\n", False)), "trained", "context")
    written = render(Page("A", opening=(part,)))
    assert "<mark>Enregistrer</mark>\n" in written


def test_missing_and_strange_numbers_are_drawn_without_them():
    nan, huge = float("nan"), 1e308
    values = ((0, nan), (1, None), (2, huge), (3, float("inf")), (None, 4), (5, -3.0))
    parts = (
        LineChart("a", (Series("x", values),), "x", "y"),
        LineChart("a", (Series("x", values),), "x", "y", log_y=True),
        LineChart("a", (), "x", "y"),
        Histogram("a", (), "x", "y"),
        Histogram("a", ((0, nan, 3),), "x", "y"),
        BarChart("a", (), "x"),
        BarChart("a", (Interval("b", nan, nan, None), Interval("b", -2, -3, -1)), "x"),
        Intervals((Interval("b", None),), "x"),
        Funnel("a", (), ("x", "y")),
        Funnel("a", tuple(Stage("b", (y, x)) for x, y in values), ("x", "y")),
        Scatter("a", (), "x", "y"),
        Scatter("a", (Dot("b", nan, 1), Dot("b", 1, None), Dot("b", 0, 0, nan)), "x", "y"),
        Table((), ()),
        SideBySide((), ()),
    )
    written = render(Page("A", opening=parts))
    ElementTree.fromstring(written)
    for found in re.findall(r'<(?:path|circle|line|polygon|rect|text) [^>]*"', written):
        assert "nan" not in found
        assert "inf" not in found


def test_a_file_is_written_whole_and_not_over_another(tmp_path: Path):
    path = tmp_path / "report.html"
    write(Page("A \ud800"), path)
    assert "<title>A \ufffd</title>" in path.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="already exists"):
        write(Page("B"), path)
    write(Page("B"), path, force=True)
    assert "<title>B</title>" in path.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_rendered_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "report.html"
    write(Page("A"), path)
    with pytest.raises(UndefinedError, match="no attribute 'kind'"):
        write(Page("B", opening=("no part",)), path, force=True)  # type: ignore[arg-type]
    assert "<title>A</title>" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_it_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, puna.report, puna.report.page; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
