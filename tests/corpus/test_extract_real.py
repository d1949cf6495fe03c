"""The fast extractor on real pages with gold text: above resiliparse alone, and none in error."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from puna.corpus import schema
from puna.corpus.extract import ExtractConfig

html2text = pytest.importorskip("resiliparse.extract.html2text")
pytestmark = pytest.mark.data

PAGES = 40


def gold_pages(data: Path) -> Iterator[tuple[str, str]]:
    place = data / "article-extraction-benchmark"
    gold = json.loads(gzip.decompress((place / "ground-truth.json.gz").read_bytes()))
    with tarfile.open(place / "html.tar") as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".html.gz"))
        for name in names[:PAGES]:
            file = archive.extractfile(name)
            assert file is not None
            page = gzip.decompress(file.read()).decode("utf-8", "replace")
            yield page, gold[Path(name).name.removesuffix(".html.gz")]["articleBody"]


def shingles(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(zip(words, words[1:], words[2:], words[3:], strict=False))


def f1(texts: list[str], gold: list[str]) -> float:
    """The mean over pages; the published measure, in `bench.extraction`, averages otherwise."""
    found = []
    for text, wanted in zip(map(shingles, texts), map(shingles, gold), strict=True):
        found.append(2 * (text & wanted).total() / max(1, text.total() + wanted.total()))
    return sum(found) / len(found)


def test_fast_is_better_than_resiliparse_alone(shared_data: Path) -> None:
    pages, gold = (list(column) for column in zip(*gold_pages(shared_data), strict=True))
    batch = schema.make_batch("pages", [schema.Found(str(n), page) for n, page in enumerate(pages)])
    done = ExtractConfig(mode="fast").open()(batch)
    assert done.column("error").null_count == len(pages)
    texts = [
        row["text"] if row["drop"] is None else ""
        for row in done.select(["text", "drop"]).to_pylist()
    ]
    alone = [html2text.extract_plain_text(page, main_content=True) for page in pages]
    assert f1(texts, gold) > f1(alone, gold) + 0.03
    assert f1(texts, gold) > 0.92
    assert sum('"title"' in (about or "") for about in done.column("metadata").to_pylist()) >= 38
