"""The step `extract`: what becomes of pages, of other documents, and of pages that are too much."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.corpus import schema
from puna.corpus.extract import ExtractConfig, Extracted, open_extractor, title_of
from puna.corpus.extract import step as extract_step
from puna.corpus.step import identity
from puna.errors import InputError, MissingPackageError

pytest.importorskip("resiliparse")
pytest.importorskip("trafilatura")

PARAGRAPHS = [
    "The vicuña lives on the high grassland of the Andes, and gives the finest wool that there is.",
    "Herds are driven together once in two years, shorn, and set free again, as the Incas did it.",
    "A law of 1969 forbade the hunt for them; from five thousand animals they grew to half a "
    "million.",
]
PAGE = f"""<!DOCTYPE html>
<html><head><title>Vicuñas &amp; the
puna - The Grassland Post</title><script>var text = "<p>No text of the page at all.</p>";</script>
</head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/news">News</a></li></ul></nav>
<div id="main"><article class="post"><h1>Vicuñas and the puna</h1>
<p>{PARAGRAPHS[0]}</p><p>{PARAGRAPHS[1]}</p>
<div class="newsletter-box"><p>Receive the best of the land in your mailbox, every week.</p></div>
<h2>Under protection</h2>
<p>{PARAGRAPHS[2]} <a href="/law">More</a> is told elsewhere.</p></article></div>
<div class="teasers"><a href="/1">Why llamas hum</a> <a href="/2">Ten hats of alpaca wool</a></div>
<footer>© 2026 The Grassland Post. All rights reserved.</footer></body></html>"""


def batch_of(*documents: str, **metadata: Any) -> pa.RecordBatch:
    found = [
        schema.Found(locator=str(number), text=text, metadata=metadata)
        for number, text in enumerate(documents)
    ]
    return schema.make_batch("pages", found)


def rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = batch.to_pylist()
    return found


def extracted(page: str, mode: Any = "fast") -> dict[str, Any]:
    return rows(ExtractConfig(mode=mode).open()(batch_of(page)))[0]


@pytest.mark.parametrize("mode", ["fast", "precise", "auto"])
def test_a_page_becomes_its_main_text(mode: Any) -> None:
    row = extracted(PAGE, mode)
    for paragraph in PARAGRAPHS:
        assert paragraph in row["text"]
    assert "Under protection" in row["text"]
    for other in ("Home", "mailbox", "No text of the page", "llamas hum", "All rights reserved"):
        assert other not in row["text"]
    assert row["content_hash"] == schema.content_hash(row["text"])
    assert row["id"] == schema.document_id("pages", "0")
    told = json.loads(row["metadata"])
    assert told["title"] == "Vicuñas & the puna - The Grassland Post"
    assert told["extracted"] == ("precise" if mode == "precise" else "fast")
    assert (row["drop"], row["error"]) == (None, None)


def test_paragraphs_are_apart_and_code_keeps_its_form() -> None:
    page = PAGE.replace("<h2>", "<pre>for llama in herd:\n    feed(llama)</pre><h2>")
    text = extracted(page)["text"]
    assert f"{PARAGRAPHS[0]}\n\n{PARAGRAPHS[1]}\n\nfor llama in herd:\n    feed(llama)\n" in text


def test_chinese_pages() -> None:
    sentence = (
        "安第斯山脉的高原上生活着小羊驼，它们的毛是世界上最细的，牧民每两年把它们赶到一起剪毛。"
    )
    page = PAGE.replace(PARAGRAPHS[0], sentence).replace(
        "</article>", "<p>责任编辑：王芳</p></article>"
    )
    text = extracted(page)["text"]
    assert sentence in text
    assert "王芳" not in text


def test_what_is_no_page_stays_as_it_is() -> None:
    batch = batch_of("plain words, a < b and c > d", "1 <b 2", "")
    for before, after in zip(rows(batch), rows(ExtractConfig().open()(batch)), strict=True):
        assert after == before | {"stats": {**before["stats"], "extract_confidence": None}}
    batch = batch_of(PAGE, format="markdown")
    assert rows(ExtractConfig().open()(batch))[0]["text"] == PAGE


def test_rows_that_go_no_further_are_left_alone() -> None:
    batch = schema.with_errors(schema.with_drops(batch_of(PAGE, PAGE, PAGE), {0: "a.b"}), {1: "c"})
    first, second, third = rows(ExtractConfig(mode="fast").open()(batch))
    assert (first["text"], first["drop"], second["text"], second["error"]) == (
        PAGE,
        "a.b",
        PAGE,
        "c",
    )
    assert third["text"] != PAGE


@pytest.mark.parametrize("mode", ["fast", "precise", "auto"])
def test_pages_without_text_are_dropped(mode: Any) -> None:
    links = "".join(f"<li><a href=/{n}>Story {n} of today</a></li>" for n in range(30))
    batch = batch_of(f"<html><body><ul>{links}</ul></body></html>", "<html></html>", "<div></div>")
    for row in rows(ExtractConfig(mode=mode).open()(batch))[1:]:
        assert (row["drop"], row["error"]) == ("extract.empty", None)
    assert rows(ExtractConfig(mode="fast").open()(batch))[0]["drop"] == "extract.empty"


def test_metadata_is_merged() -> None:
    batch = batch_of(PAGE, title="As its source calls it", encoding="utf-8")
    told = json.loads(rows(ExtractConfig(mode="fast").open()(batch))[0]["metadata"])
    assert told == {"title": "As its source calls it", "encoding": "utf-8", "extracted": "fast"}


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("<div>" * 100_000, "extract: elements lie more than 512 deep"),
        ("<p>" + "x" * 3_000_000, "extract: 3,000,003 bytes, more than max_bytes (2,000,000)"),
    ],
)
@pytest.mark.parametrize("mode", ["fast", "precise", "auto"])
def test_too_much_goes_to_quarantine_at_once(mode: Any, page: str, reason: str) -> None:
    began = time.process_time()
    apply = ExtractConfig(mode=mode, max_bytes=2_000_000).open()
    bad, good = rows(apply(batch_of(page, PAGE)))
    assert (bad["error"], bad["text"], bad["drop"]) == (reason, page, None)
    assert PARAGRAPHS[0] in good["text"]
    assert time.process_time() - began < 15


def test_pages_as_deep_as_allowed_are_read() -> None:
    page = PAGE.replace("<article", "<div>" * 450 + "<article").replace(
        "</article>", "</article>" + "</div>" * 450
    )
    for mode in ("fast", "precise", "auto"):
        assert PARAGRAPHS[0] in extracted(page, mode)["text"]


def test_an_error_of_a_library_is_that_of_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(page: str) -> Extracted:
        if "fail" in page:
            raise RecursionError("too deep")
        return Extracted("text", 1.0, "fast")

    monkeypatch.setattr(extract_step, "open_extractor", lambda config: fail)
    bad, good = rows(ExtractConfig().open()(batch_of("<p>fail", "<p>x")))
    assert (bad["error"], bad["text"]) == ("extract: RecursionError: too deep", "<p>fail")
    assert (good["error"], good["text"]) == (None, "text")


@pytest.mark.parametrize(
    ("mode", "confidence", "precise", "expected"),
    [
        ("fast", 0.1, "precisely", ("fast", 0.1)),
        ("precise", 0.9, "precisely", ("precisely", 1.0)),
        ("precise", 0.9, "", ("fast", 0.9)),
        ("auto", 0.9, "precisely", ("fast", 0.9)),
        ("auto", 0.5, "precisely", ("fast", 0.5)),
        ("auto", 0.49, "precisely", ("precisely", 0.49)),
        ("auto", 0.1, "", ("fast", 0.1)),
    ],
)
def test_auto_is_precise_where_the_fast_one_is_unsure(
    monkeypatch: pytest.MonkeyPatch,
    mode: Any,
    confidence: float,
    precise: str,
    expected: tuple[str, float],
) -> None:
    def fast() -> Callable[[str], Extracted]:
        return lambda page: Extracted("fast", confidence, "fast")

    monkeypatch.setattr(extract_step, "open_fast", fast)
    monkeypatch.setattr(extract_step, "open_precise", lambda *, thorough: lambda page: precise)
    found = open_extractor(ExtractConfig(mode=mode))("<p>")
    assert (found.text, found.confidence) == expected
    large = open_extractor(ExtractConfig(mode=mode, max_precise_tags=3))("<p>" * 4)
    assert (large.text, large.by) == ("fast", "fast")


def test_confidence_is_a_statistic() -> None:
    batch = ExtractConfig(mode="fast").open()(batch_of(PAGE, "no page"))
    page, other = schema.stat(batch, "extract_confidence")
    assert 0 < page < 1
    assert other != other


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lxml_html_clean", None)
    ExtractConfig(mode="fast").open()
    with pytest.raises(MissingPackageError, match=r"'lxml_html_clean'(.|\n)*puna\[corpus\]"):
        ExtractConfig(mode="auto").open()


def test_configurations_are_checked_and_told_apart() -> None:
    with pytest.raises(InputError, match="sure must lie between 0 and 1, found 2"):
        ExtractConfig(sure=2)
    with pytest.raises(InputError, match="max_depth must be at least 1, found 0"):
        ExtractConfig(max_depth=0)
    modes: list[Any] = ["fast", "precise", "auto"]
    assert len({identity(ExtractConfig(mode=mode)) for mode in modes}) == 3


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<title>One</title><title>Two</title>", "One"),
        ("<TITLE lang=en>\n A  &lt;b&gt; </TITLE>", "A <b>"),
        ("<title></title>", None),
        ("<title>unended", None),
        ("<titles>x</titles>", None),
        ("", None),
    ],
)
def test_titles(page: str, title: str | None) -> None:
    assert title_of(page) == title


TAGS = [
    "div",
    "p",
    "a href=/x",
    "table",
    "td",
    "b",
    "ul",
    "li",
    "script",
    "title",
    "pre",
    "!--",
    "svg",
]
PARTS = st.sampled_from(
    [f"<{tag}>" for tag in TAGS]
    + [f"</{tag.split()[0]}>" for tag in TAGS]
    + [*PARAGRAPHS, "<", ">", "-->", "&amp;", "&#xFDD0;", "\ufdd1", "\0", "\n", "高原。", "x" * 50]
)


@settings(max_examples=60)
@given(st.lists(st.lists(PARTS, max_size=30).map("".join), min_size=1, max_size=3))
def test_any_page_is_borne_and_batches_do_not_matter(pages: list[str]) -> None:
    apply = ExtractConfig(mode="fast").open()
    documents = ["<html>" + page for page in pages]
    together = rows(apply(batch_of(*documents)))
    for number, row in enumerate(together):
        assert row["error"] is None
        assert (row["drop"] == "extract.empty") != (row["text"] != documents[number])
        assert not set(row["text"]) & set("\ufdd0\ufdd1\ufdd2\ufdd3\ufdd4") or row["drop"]
        alone = rows(apply(batch_of(documents[number])))[0]
        assert alone["text"] == row["text"]
        assert alone["stats"] == row["stats"]


@pytest.mark.parametrize(
    "part",
    ["<div></div>", "<a href=x>y</a>", "<p>word ", "<table><tr><td>x", "<b x=1></p><p>", "<"],
)
def test_hostile_pages_take_seconds_at_most(part: str) -> None:
    began = time.process_time()
    row = extracted("<html><body>" + part * (200_000 // len(part)), "auto")
    assert row["error"] or row["drop"] or row["text"]
    assert time.process_time() - began < 15
