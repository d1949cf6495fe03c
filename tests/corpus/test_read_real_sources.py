"""The readers on the real data sets beside a development checkout."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import pytest

from corpus.reading_sources import documents, faults, read_source, reasons, texts

pytestmark = pytest.mark.data

WIKI = "wikipedia-dump-sample"


def test_warc(shared_data: Path) -> None:
    folder = shared_data / "warc-sample"
    for name in ("example.warc", "example.warc.gz"):
        found = read_source(folder / name)
        (page,) = documents(found)
        assert (page.url, page.date) == ("http://example.com/", "2017-03-06T04:02:06Z")
        assert "<h1>Example Domain</h1>" in page.text
        assert len(reasons(found)) == 1  # the revisit
    (page,) = documents(read_source(folder / "example-iana.org-chunked.warc"))
    assert page.text.rstrip().endswith("</html>")
    arc = read_source(folder / "example.arc.gz", format="warc")
    assert set(reasons(arc)) == {"holds something that is no WARC record"}


@pytest.mark.slow
def test_wikipedia(shared_data: Path) -> None:
    found = read_source(next((shared_data / WIKI).glob("enwiki-latest*")))
    assert len(found) == 206
    assert Counter(reasons(found)) == {
        "is a redirect": 99,
        "is no article (another namespace)": 1,
    }
    by_title = {one.metadata["title"]: one for one in documents(found)}
    anarchism = by_title["Anarchism"].text
    assert "\n\nEtymology and terminology\n\nThe term anarchism is a compound word" in anarchism
    marks = ("[[", "]]", "<ref", "</ref", "'''", "&nbsp;", "|-", "{|", "thumb|", "{{cite")
    left = Counter(mark for one in documents(found) for mark in marks if mark in one.text)
    assert left.total() <= 2, left


def test_dumps_in_utf16_and_with_tables(shared_data: Path) -> None:
    found = read_source(shared_data / WIKI / "enwiki-table-markup.xml.bz2")
    assert not faults(found)
    assert not any("{|" in text or "\n|" in text for text in texts(found))
    found = read_source(shared_data / WIKI / "bgwiki-latest-pages-articles-shortened.xml.bz2")
    assert {one.language for one in documents(found)} == {"bg"}
    assert "Категория:" not in "".join(texts(found))


def test_pages_of_the_web(shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "article-extraction-benchmark" / "html.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    found = read_source(tmp_path, unit_bytes=2 << 20)
    assert (len(documents(found)), faults(found)) == (181, [])
    encodings = Counter(one.metadata["encoding"] for one in documents(found))
    assert encodings["utf-8"] > 170
    assert sum(one.metadata.get("replaced", 0) for one in documents(found)) < 50
    assert sum(one.url is not None for one in documents(found)) > 120
    assert sum(one.language == "en" for one in documents(found)) > 100


def test_lines_and_files_of_text(shared_data: Path) -> None:
    folder = shared_data / "lm-samples"
    assert len(texts(read_source(folder / "c4-web.txt.gz", documents="line"))) > 500
    assert len(texts(read_source(folder))) == 3
