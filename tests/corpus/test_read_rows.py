from __future__ import annotations

import bz2
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.reading_sources import (
    documents,
    faults,
    places,
    read_content,
    read_source,
    read_units,
    reasons,
    texts,
)
from puna.corpus.read import DocumentColumns, ReadConfig, plan_units
from puna.corpus.read.streams import ByteStream, open_piece
from puna.corpus.schema import make_batch

ROW = {"text": "words", "url": "https://a.org/x", "date": "2020-01-02", "language": "en"}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_columns_have_their_places_and_others_are_metadata(tmp_path: Path) -> None:
    row = ROW | {"license": "CC0", "score": 1.5, "tags": ["a"], "none": None}
    (found,) = documents(read_content(tmp_path / "a.jsonl", lines(row)))
    assert (found.text, found.url, found.date) == ("words", ROW["url"], ROW["date"])
    assert (found.license, found.language) == ("CC0", "en")
    assert found.metadata == {"row": {"score": 1.5, "tags": ["a"], "none": None}}


def test_columns_by_other_names_and_what_the_source_says(tmp_path: Path) -> None:
    row = {"body": {"plain": "words"}, "link": "https://a.org", "made": 2020, "lang": ["en"]}
    columns = DocumentColumns(url="link", date="made", language="lang")
    (found,) = documents(
        read_content(
            tmp_path / "a.jsonl",
            lines(row),
            text="body.plain",
            columns=columns,
            license="MIT",
            language="de",
        )
    )
    assert (found.text, found.url, found.date) == ("words", "https://a.org", "2020")
    assert (found.license, found.language) == ("MIT", "de")


def test_a_bad_line_costs_itself_only(tmp_path: Path) -> None:
    good = json.dumps({"text": "ü"}, ensure_ascii=False).encode()
    bad = (b'{"text": "\xff"}', b"{", b"[1]", b'{"other": 1}', b'{"text": 1}', b'{"text": " "}')
    content = b"\n".join([good, *bad, b"", b"[" * 100_000, good + b"\r", good])
    found = read_content(tmp_path / "a.jsonl", content)
    assert texts(found) == ["ü"] * 3
    assert reasons(found) == [
        "holds bytes that its encoding does not know",
        "is not JSON",
        "is no JSON object",
        "has no column 'text'",
        "the column 'text' holds no text",
        "is empty",
        "is JSON nested too deeply",
    ]
    assert faults(found)[0].locator == f"{tmp_path}/a.jsonl@{len(good) + 1}"
    assert faults(found)[3].detail == "there are 'other'"


def test_what_python_writes_and_json_does_not_know(tmp_path: Path) -> None:
    content = '{"text": "half \\ud83d", "score": NaN}\n{"text": "x", "n": ' + "9" * 5000 + "}\n"
    first, second = read_content(tmp_path / "a.jsonl", content)
    assert texts([first]) == ["half \ufffd"]
    assert documents([first])[0].metadata == {"row": {"score": None}, "replaced": 1}
    assert texts([second]) == ["x"] or reasons([second]) == ["is no JSON object"]
    make_batch("source", documents([first]))


def test_what_is_too_large_to_carry_along_is_named(tmp_path: Path) -> None:
    row = {"text": "x", "vector": [0.5] * 10_000, "page": "y" * 20_000, "n": 1}
    (found,) = documents(read_content(tmp_path / "a.jsonl", lines(row)))
    assert found.metadata == {"row": {"n": 1}, "left_out": ["page", "vector"]}


def test_a_long_line_is_never_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(12):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"text": "after"}\n')
    tracemalloc.start()
    found = read_source(path, max_document_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(found) == ["before", "after"]
    assert reasons(found) == ["is longer than 1 MiB"]
    assert faults(found)[0].detail == f"a line of {(12 << 20) + 13:,} bytes"
    assert peak < 6 << 20


def test_ranges_within_a_long_line_do_not_read_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "' + b"x" * 20_000_000 + b'"}\n{"text": "last"}\n')
    config = ReadConfig(files=str(path), max_document_bytes=1000)
    units = plan_units("source", config, 1_000_000)
    found = read_units(units, config)
    assert (texts(found), reasons(found)) == (["last"], ["is longer than 1,000 bytes"])
    with open_piece(units[1].pieces[0], 1_000_000) as stream:
        assert isinstance(stream, ByteStream)
        assert stream.skip_line(2_000_000) < 1_400_000


def test_marks_and_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert texts(read_content(path, b"\xef\xbb\xbf" + lines(ROW).encode())) == ["words"]
    found = read_content(path, lines(ROW).encode("utf-16"))
    assert reasons(found) == ["is UTF-16, and lines are read of UTF-8 only"]
    row = json.dumps({"text": "学习"}, ensure_ascii=False).encode("gb18030")
    assert texts(read_content(path, row, encoding="gb18030")) == ["学习"]


@given(
    texts_of=st.lists(st.text(max_size=30).filter(lambda text: bool(text.strip())), max_size=30),
    unit_bytes=st.integers(1, 200),
    ends=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_ranges_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, texts_of: list[str], unit_bytes: int, ends: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "ranges.jsonl"
    path.write_bytes("".join(json.dumps({"text": one}) + ends for one in texts_of).encode())
    config = ReadConfig(files=str(path))
    units = plan_units("source", config, unit_bytes)
    found = read_units(units, config)
    assert texts(found) == texts_of
    assert not faults(found)
    assert found == read_units(plan_units("source", config, 1 << 30), config)
    assert len(units) >= min(2, path.stat().st_size // unit_bytes)


def test_lines_of_text_are_documents_where_that_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    content = gzip.compress("one\n\n  \nzwei ü\r\n\xff".encode("latin-1"))
    found = read_content(path, content, documents="line")
    assert texts(found) == ["one"]
    assert reasons(found) == ["holds bytes that its encoding does not know"] * 2
    assert places(found) == ["a.txt.gz@0", "a.txt.gz@8", "a.txt.gz@16"]
    found = read_content(path, content, documents="line", encoding="latin-1")
    assert texts(found) == ["one", "zwei ü", "ÿ"]


def test_a_cut_file_gives_what_stood_before(tmp_path: Path) -> None:
    whole = lines(*({"text": f"document {number} " + "x" * number} for number in range(2000)))
    packed = gzip.compress(whole.encode())
    found = read_content(tmp_path / "a.jsonl.gz", packed[: len(packed) // 2])
    assert texts(found)[0] == "document 0 "
    assert reasons(found) == ["ends in the middle of its gzip data"]
    assert 10 < len(documents(found)) < 2000
    assert texts(read_content(tmp_path / "b.jsonl.bz2", bz2.compress(whole.encode())))[1999]


CSV = 'text,url\n"two\nlines, ""quoted""",u\nplain,v\n'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv(tmp_path: Path, end: str) -> None:
    found = read_content(tmp_path / "a.csv", CSV.replace("\n", end))
    assert [(one.text, one.url) for one in documents(found)] == [
        ('two\nlines, "quoted"', "u"),
        ("plain", "v"),
    ]
    assert places(found) == ["a.csv:2", "a.csv:4"]
    assert texts(read_content(tmp_path / "b.csv", "a;text\n1;x, y\n")) == ["x, y"]
    assert read_content(tmp_path / "c.csv", "") == []


def test_bad_rows_of_csv_cost_themselves_only(tmp_path: Path) -> None:
    content = b"text,n\nok,1\n\xffbad,2\nfew\n" + b"x" * 200 + b",3\nlast,4\n"
    found = read_content(tmp_path / "a.csv", content, max_document_bytes=100)
    assert texts(found) == ["ok", "last"]
    assert sorted(reasons(found)) == [
        "has another number of fields than columns",
        "holds bytes that its encoding does not know",
        "is longer than 100 bytes",
    ]


def test_an_open_quote_is_told_with_its_lines(tmp_path: Path) -> None:
    found = read_content(tmp_path / "a.csv", 'text\nok\n"open\nlost\n')
    assert texts(found) == ["ok"]
    assert faults(found)[0].reason == "has quotes that do not match"
    assert faults(found)[0].detail == "unexpected end of data; lines 3 to 4"


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_tables_that_cannot_be_used(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    (fault,) = faults(read_content(path, "body\nx\n"))
    assert (fault.reason, fault.detail) == ("has no column 'text'", "there are 'body'")
    mark = "," if suffix == "csv" else "\t"
    assert reasons(read_content(path, f"text{mark}text\nx{mark}y\n")) == [
        "two columns have one name"
    ]


def test_tsv(tmp_path: Path) -> None:
    content = 'text\tlang\na "quoted" one\ten\n\nb\n"c\tfr'
    columns = DocumentColumns(language="lang")
    found = read_content(tmp_path / "a.tsv.gz", gzip.compress(content.encode()), columns=columns)
    assert [(one.text, one.language) for one in documents(found)] == [
        ('a "quoted" one', "en"),
        ('"c', "fr"),
    ]
    assert places(found) == ["a.tsv.gz:2", "a.tsv.gz:4", "a.tsv.gz:5"]
    assert reasons(found) == ["has another number of fields than columns"]


def table(count: int) -> pa.Table:
    words = [f"document {number}" for number in range(count)]
    return pa.table({"text": words, "n": list(range(count))})


@pytest.mark.parametrize("unit_bytes", [1, 2000, 1 << 30])
def test_parquet_by_row_groups(tmp_path: Path, unit_bytes: int) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(1000), path, row_group_size=130)
    config = ReadConfig(files=str(path))
    units = plan_units("source", config, unit_bytes)
    found = read_units(units, config)
    assert texts(found) == [f"document {number}" for number in range(1000)]
    assert places(found)[999] == "a.parquet#999"
    assert documents(found)[7].metadata == {"row": {"n": 7}}
    assert (len(units) > 1) == (unit_bytes < 1 << 30)
    assert len(units) == 8 or unit_bytes > 1


def test_damage_to_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(3000), path, row_group_size=1000, use_dictionary=False)
    whole = path.read_bytes()
    found = read_content(path, whole[:-100])
    assert reasons(found) == ["cannot be read as parquet from here on"]
    broken = bytearray(whole)
    middle = len(whole) // 2
    broken[middle - 400 : middle + 400] = bytes(800)
    found = read_content(path, bytes(broken))
    assert texts(found)[:1000] == [f"document {number}" for number in range(1000)]
    assert reasons(found) == ["cannot be read as parquet from here on"]


def test_values_of_parquet_that_cannot_be_read(tmp_path: Path) -> None:
    bad = pa.array([b"good", b"\xff", None]).cast(pa.binary()).view(pa.string())
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": bad}), path)
    found = read_source(path)
    assert texts(found) == ["good"]
    assert reasons(found) == [
        "has a value that cannot be read",
        "the column 'text' holds no text",
    ]
    pq.write_table(pa.table({"body": ["x"]}), path)
    assert reasons(read_source(path)) == ["has no column 'text'"]
