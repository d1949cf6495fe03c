"""Lines that a site repeats: counted once for each document, over units, and removed everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.corpus.dedup import (
    LinesConfig,
    count_lines_unit,
    find_repeated_lines,
    removing_lines,
    signature_twin,
)
from puna.corpus.dedup.lines import site_of
from puna.corpus.schema import Found, content_hash, make_batch, stat, with_drops
from puna.errors import InputError

TWO = LinesConfig(documents=2)


def batch_of(texts: Sequence[str], urls: Sequence[str | None] = ()) -> pa.RecordBatch:
    given = urls or [f"https://www.site.org/{i}" for i in range(len(texts))]
    pairs = enumerate(zip(texts, given, strict=True))
    return make_batch("s", [Found(str(i), text, url=url) for i, (text, url) in pairs])


def repeated_in(
    place: Path, units: Sequence[Sequence[pa.RecordBatch]], config: LinesConfig
) -> np.ndarray:
    folders = [place / f"unit-{number}" for number in range(len(units))]
    for folder, batches in zip(folders, units, strict=True):
        count_lines_unit(batches, folder, config)
    return find_repeated_lines(folders, config)


def cleaned(place: Path, batch: pa.RecordBatch, config: LinesConfig) -> pa.RecordBatch:
    units = [[batch.slice(start, 2)] for start in range(0, batch.num_rows, 2)]
    return removing_lines(repeated_in(place, units, config), config)(batch)


def test_a_menu_goes_and_the_rest_stays(tmp_path: Path) -> None:
    texts = [f"Home | About\nText number {i}.\n\nMore of it {i}.\n\n© Site 2020" for i in range(3)]
    batch = cleaned(tmp_path, batch_of(texts), TWO)
    found = batch.column("text").to_pylist()
    assert found == [f"Text number {i}.\n\nMore of it {i}." for i in range(3)]
    assert batch.column("content_hash").to_pylist() == [content_hash(text) for text in found]
    assert stat(batch, "repeated_lines").tolist() == [2, 2, 2]
    assert batch.column("drop").null_count == 3


def test_a_line_counts_once_for_a_document_and_by_site(tmp_path: Path) -> None:
    texts = ["la\nla\nla\nla", "la\nother", "la", "la", "la"]
    urls = ["http://a.org/1", "https://www.a.org", "http://b.org", None, "http://[bad"]
    batch = cleaned(tmp_path, batch_of(texts, urls), TWO)
    assert batch.column("text").to_pylist() == texts
    by_source = LinesConfig(documents=2, site="source")
    found = cleaned(tmp_path, batch_of(texts, urls), by_source).column("text").to_pylist()
    assert found == ["", "other", "", "", ""]


def test_case_and_punctuation_do_not_hide_a_line_and_wordless_ones_stay(tmp_path: Path) -> None:
    texts = ["Share this!\n---\nx", "SHARE  THIS\n---\ny", "share this ...\n---\nz"]
    found = cleaned(tmp_path, batch_of(texts), TWO).column("text").to_pylist()
    assert found == ["---\nx", "---\ny", "---\nz"]


def test_a_document_of_which_nothing_is_left_is_dropped(tmp_path: Path) -> None:
    batch = with_drops(batch_of(["menu"] * 4 + ["text"]), {3: "c4.curly"})
    result = cleaned(tmp_path, batch, TWO)
    assert result.column("drop").to_pylist() == [*["repeated_line"] * 3, "c4.curly", None]
    assert result.column("text").to_pylist() == ["", "", "", "menu", "text"]


def test_paragraphs_go_only_as_a_whole(tmp_path: Path) -> None:
    texts = [f"Follow us\non the net\n\nFollow us\n{i}" for i in range(3)]
    config = LinesConfig(documents=2, unit="paragraph")
    found = cleaned(tmp_path, batch_of(texts), config).column("text").to_pylist()
    assert found == [f"Follow us\n{i}" for i in range(3)]


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "C", "c.", "é", "", "-"]), max_size=6), max_size=9)
)
def test_it_removes_what_a_counter_says(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[str]]
) -> None:
    def key(line: str) -> tuple[int, ...]:
        return tuple(word.hash for word in signature_twin.words_of(line))

    counts = Counter(k for lines in documents for k in {key(line) for line in lines} if k)
    texts = ["\n".join(lines) for lines in documents]
    for memory_bytes in (1, 1 << 20):
        config = LinesConfig(documents=2, memory_bytes=memory_bytes)
        batch = cleaned(tmp_path_factory.mktemp("units"), batch_of(texts), config)
        for lines, text in zip(documents, batch.column("text").to_pylist(), strict=True):
            kept = [line for line in lines if counts[key(line)] <= 2]
            assert [x for x in text.split("\n") if x] == [x for x in kept if x]
            assert text == "\n".join(lines) or len(kept) < len(lines)


def test_sites() -> None:
    assert site_of("https://WWW.Example.org:80/a") == "example.org"
    assert site_of(None) is site_of("no address") is site_of("http://[bad") is None


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no unit whose lines were counted"):
        find_repeated_lines([tmp_path], TWO)
    with pytest.raises(InputError, match="documents: expected at least 1"):
        LinesConfig(documents=0)
    assert len(repeated_in(tmp_path, [[], [batch_of([])]], TWO)) == 0
    assert removing_lines(np.zeros(0, np.uint64), TWO)(batch_of([])).num_rows == 0
