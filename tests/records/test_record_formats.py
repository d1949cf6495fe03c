from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.errors import InputError
from puna.records import Quarantine, format_of, read_parallel, read_rows
from puna.records.formats import content
from records.reading import places, read, values

ROW = {"prompt": "a", "completion": "b"}
KEYS = ("prompt", "completion")


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("x.json", json.dumps([ROW, ROW]), ["1#0", "1#1"]),
        ("x.json", json.dumps([ROW, ROW], indent=1), ["2#0", "6#1"]),
        ("x.json", json.dumps({k: [ROW[k]] * 2 for k in KEYS}), ["1#0", "1#1"]),
        ("x.json", json.dumps({"version": 1, "data": [ROW, ROW]}), ["1#0", "1#1"]),
        ("x.json", f"{json.dumps(ROW)}\n\n{json.dumps(ROW)}\n", ["1", "3"]),
        ("x.jsonl", f"\n{json.dumps(ROW)}\r\n \n{json.dumps(ROW)}", ["2", "4"]),
        ("x.NDJSON", f"{json.dumps(ROW)}\n" * 2, ["1", "2"]),
        ("x.csv", 'prompt,completion\na,b\r\n\n"a",b\n', ["2", "4"]),
        ("x.csv", "prompt;completion\na;b\na;b", ["2", "3"]),
        ("x.tsv", "prompt\tcompletion\na\tb\na\tb\n", ["2", "3"]),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_every_format(
    tmp_path: Path, name: str, text: str, where: list[str], zipped: bool, mark: bytes
) -> None:
    data = mark + text.encode()
    rows, quarantine = read(
        tmp_path, name + ".gz" * zipped, gzip.compress(data) if zipped else data
    )
    assert values(rows) == [ROW, ROW]
    assert places(rows) == where
    assert quarantine.total == 0


def test_one_object_per_file_and_text(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}]
    for name in ("messages", "conversations", "conversation"):
        rows, _ = read(tmp_path, "x.json", json.dumps({name: turns}))
        assert values(rows) == [{name: turns}]
    rows, _ = read(tmp_path, "x.txt", "one\n \ntwo\u2028still two\n")
    assert values(rows) == [{"text": "one"}, {"text": "two\u2028still two"}]
    assert places(rows) == ["1", "3"]


def test_bad_lines_are_set_aside_with_their_number(tmp_path: Path) -> None:
    lines = [
        b'{"a": "fine"}',
        b'{"a": "\xff"}',
        b'{"a": }',
        b'{"a": 1} {"a": 2}',
        b"[1]",
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"1" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a": "\\ud800"}',
        b'{"a": ["x", {"b": "\\u0000"}]}',
        b'{"a": "\x00"}',
        b'{"a": "fine too \\ud83d\\ude00"}',
    ]
    rows, quarantine = read(tmp_path, "x.jsonl", b"\n".join(lines))
    assert values(rows) == [{"a": "fine"}, {"a": "fine too \U0001f600"}]
    assert dict(quarantine.counts) == {
        "holds bytes that are not UTF-8": 1,
        "is not JSON": 3,
        "is no JSON object": 1,
        "has a key twice": 1,
        "has an integer of thousands of digits": 1,
        "is JSON nested too deeply": 1,
        "holds half a surrogate pair": 1,
        "holds a NUL character": 1,
    }
    path = tmp_path / "x.jsonl"
    assert quarantine.samples[1] == (f"{path}:3", "is not JSON: Expecting value at column 7")
    assert quarantine.to_dict()["total"] == 10
    assert quarantine.lines()[0] == "3 x is not JSON"


def test_the_first_case_of_every_reason_is_kept(tmp_path: Path) -> None:
    rows, quarantine = read(tmp_path, "x.jsonl", b"{\n" * 30 + b'{"a": "\xff"}\n' * 2)
    assert (rows, quarantine.total, len(quarantine.samples)) == ([], 32, 21)
    where, why = quarantine.samples[-1]
    assert where.endswith("x.jsonl:31") and why.startswith("holds bytes that are not UTF-8")


def test_a_row_of_very_many_columns_takes_no_longer_for_a_fault(tmp_path: Path) -> None:
    names = [*(f"k{number}" for number in range(200_000)), "k199999"]
    row = ",".join(f'"{name}":1' for name in names)
    _, quarantine = read(tmp_path, "x.jsonl", f"{{{row}}}")
    assert quarantine.samples == [(f"{tmp_path / 'x.jsonl'}:1", "has a key twice: 'k199999'")]


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    rows, quarantine = read(tmp_path, "X.JSONL.GZ", gzip.compress(b'{"a": "b"}\n'))
    assert (values(rows), quarantine.total) == ([{"a": "b"}], 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'[\n{"a": 1},\n{"a": 2', r"x\.json:3: is not JSON: Expecting ',' delimiter, at line 3"),
        (
            b'[{"a": 1} {"a": 2}]',
            r"x\.json:1: is not JSON: expected ',' or '\]', at line 1, column 11",
        ),
        (b'[{"a": 1}]\n[]', r"x\.json:2: is not JSON: more follows after the array"),
        (b'[{"a": 1},]', "Expecting value, at line 1, column 11"),
        (b'{"a":\n 1} {"a": 2}', "more than one value, at line 2, column 5"),
        (b"3", "holds a number, not objects"),
        (b'[{"a": "\xe9"}]', r"x\.json:1: holds bytes that are not UTF-8, the first at byte 8"),
        (b"[" * 100_000, "nested too deeply"),
        ("[]".encode("utf-16"), r"is UTF-16, not UTF-8\n  fix: iconv -f UTF-16"),
    ],
)
def test_files_that_are_no_json(tmp_path: Path, text: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(tmp_path, "x.json", text)


def test_tables_with_faults(tmp_path: Path) -> None:
    text = b'a,b\n1\n1,"two\nlines"\n1,2,3\n\xe9,x\n1,"x"y\n' + b"z" * 200_000 + b',"end\nnever'
    rows, quarantine = read(tmp_path, "x.csv", text)
    assert values(rows) == [{"a": "1", "b": "two\nlines"}]
    assert places(rows) == ["3"]
    reasons = [(Path(where).name, why) for where, why in quarantine.samples]
    assert reasons[:3] == [
        ("x.csv:2", "has another number of fields than columns: 1 fields, 2 columns"),
        ("x.csv:5", "has another number of fields than columns: 3 fields, 2 columns"),
        ("x.csv:6", "holds bytes that are not UTF-8: column 'a'"),
    ]
    assert quarantine.counts["has quotes that do not match"] == 2
    assert reasons[-1][1].endswith("lines 8 to 9")
    assert csv.field_size_limit() == 131_072  # the interpreter's own bound is put back


def test_headers(tmp_path: Path) -> None:
    for name in ("x.csv", "x.tsv"):
        mark = "," if name == "x.csv" else "\t"
        with pytest.raises(InputError, match=r"x\..sv:1: two columns are called 'a'"):
            read(tmp_path, name, f"a{mark}a\n1{mark}2\n")
        with pytest.raises(InputError, match="header holds bytes that are not UTF-8"):
            read(tmp_path, name, f"a{mark}".encode() + b"\xff\n")
        rows, _ = read(tmp_path, name, f"Hi.{mark}嗨。\n", header=False)
        assert values(rows) == [{"1": "Hi.", "2": "嗨。"}]


def test_tsv_takes_quotes_for_text_unless_a_program_wrote_them(tmp_path: Path) -> None:
    text = 'a\tb\n"Hi," he said.\t"x"\n"He said ""hi"""\tx\n"\t""\n'
    rows, quarantine = read(tmp_path, "x.tsv", text)
    assert values(rows) == [
        {"a": '"Hi," he said.', "b": '"x"'},
        {"a": 'He said "hi"', "b": "x"},
        {"a": '"', "b": '""'},
    ]
    assert quarantine.total == 0


def test_a_long_line_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MAX_LINE_BYTES", 100)
    for length in (95, 96, 99, 100, 101, 250, 301):
        rows, quarantine = read(tmp_path, "x.txt", f"a\n{'x' * length}\nb")
        kept = [row.values["text"] for row in rows]
        assert kept in (["a", "x" * length, "b"], ["a", "b"])
        assert len(kept) == 3 - quarantine.total
        assert len(kept) == 2 if length > 100 else length > 96 or len(kept) == 3
        assert places(rows)[-1] == "3"


def test_whole_files_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MAX_WHOLE_BYTES", 10)
    with pytest.raises(InputError, match=r"read whole\n  fix: save it as \.jsonl"):
        read(tmp_path, "x.json.gz", gzip.compress(b" " * 11))


def test_damaged_compression(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"a": "b"}\n' * 10_000)
    with pytest.raises(InputError, match="ends in the middle of its gzip data"):
        read(tmp_path, "x.jsonl.gz", whole[:-20])
    with pytest.raises(InputError, match="is not sound gzip data"):
        read(tmp_path, "x.jsonl.gz", b'{"a": "b"}')
    with pytest.raises(InputError, match="is not sound gzip data"):
        read(tmp_path, "x.jsonl.gz", whole[:15] + b"\xff" * 10 + whole[25:])


def test_unknown_suffixes_and_missing_files(tmp_path: Path) -> None:
    assert format_of(Path("a.b/data")) is None
    with pytest.raises(InputError, match=r"known are \.json, \.jsonl.*\n  fix: say which"):
        read(tmp_path, "x.log", "a")
    (row,) = read_rows([tmp_path / "x.log"], quarantine=Quarantine(), format="txt")
    assert row.values == {"text": "a"}
    with pytest.raises(InputError, match="does not exist"):
        list(read_rows([tmp_path / "no.jsonl"], quarantine=Quarantine()))


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    turns = [[{"role": "user", "content": "q"}], []]
    table = arrow.table({"text": ["a", "b\x00"], "turns": turns, "n": [1, None]})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    for name, data in (
        ("x.parquet", buffer.getvalue()),
        ("x.parquet.gz", gzip.compress(buffer.getvalue())),
    ):
        rows, quarantine = read(tmp_path, name, data)
        assert values(rows) == [{"text": "a", "turns": turns[0], "n": 1}]
        assert rows[0].locator.endswith("#0")
        assert quarantine.counts == {"holds a NUL character": 1}
    with pytest.raises(InputError, match="cannot be read as parquet"):
        read(tmp_path, "x.parquet", buffer.getvalue()[:-9])


def test_parquet_with_text_that_is_not_utf8(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    raw = arrow.array([b"good", b"\xff", b"fine"], arrow.binary())
    broken = arrow.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    buffer = io.BytesIO()
    parquet.write_table(arrow.table({"text": broken}), buffer)
    rows, quarantine = read(tmp_path, "x.parquet", buffer.getvalue())
    assert values(rows) == [{"text": "good"}, {"text": "fine"}]
    assert quarantine.counts == {"has a value that cannot be read": 1}


def test_parallel_files(tmp_path: Path) -> None:
    left, right = tmp_path / "a.en", tmp_path / "a.de.gz"
    left.write_bytes("one\u2028\x85still one\ntwo\n\nfour\nfive".encode())
    right.write_bytes(gzip.compress(b"eins\r\n \r\n\r\nvier\xff\r\nf\xc3\xbcnf\r\n"))
    quarantine = Quarantine()
    rows = list(read_parallel(left, right, quarantine=quarantine))
    assert values(rows) == [
        {"source": "one\u2028\x85still one", "target": "eins"},
        {"source": "five", "target": "fünf"},
    ]
    assert places(rows) == ["1", "5"]
    assert quarantine.counts == {
        "has text on one side only": 1,
        "holds bytes that are not UTF-8": 1,
    }
    left.write_bytes(b"one\n")
    with pytest.raises(InputError, match=r"a\.en: has 1 lines, but .*a\.de\.gz has 5"):
        list(read_parallel(left, right, quarantine=quarantine))


SUFFIXES = ["json", "jsonl", "csv", "tsv", "txt", "po", "mo", "json.gz", "csv.gz", "parquet"]
PIECES = [b'{"a":', b'"x"', b"}", b"[", b"]", b",", b"\n", b'"', b"\t", b"\\", b"\xff", b"\x00"]
PIECES += [b'msgid "a"\n', b'msgstr "b"\n', b"#~ ", b"#, fuzzy\n", b"\xde\x12\x04\x95", b"PAR1"]
PIECES += [b"\r", b"1" * 20, b"NaN", b"\\ud800", b"\xef\xbb\xbf", b"\\x41", b"charset=utf-16"]


@given(
    st.sampled_from(SUFFIXES),
    st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join),
    st.booleans(),
)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_rows_or_reasons(
    tmp_path: Path, suffix: str, data: bytes, header: bool
) -> None:
    if suffix.endswith("gz") and header:
        data = gzip.compress(data)
    try:
        rows, _ = read(tmp_path, f"x.{suffix}", data, header=header)
    except InputError as error:
        assert str(tmp_path) in str(error)
        return
    for row in rows:
        json.dumps(row.values, default=str, ensure_ascii=False).encode()
    assert len({row.locator for row in rows}) == len(rows)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
JSON = st.recursive(
    SCALARS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(TEXT, JSON, max_size=4), max_size=4), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_rows_come_back(tmp_path: Path, rows: list[dict[str, Any]], ascii: bool) -> None:
    lines = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows)
    array = json.dumps(rows, ensure_ascii=ascii, indent=2)
    for name, text in (("x.jsonl", lines), ("x.json", array)):
        found, quarantine = read(tmp_path, name, text)
        assert values(found) == rows
        assert quarantine.total == 0


@given(st.lists(st.tuples(TEXT, TEXT.filter(bool)), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_rows_come_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    with (tmp_path / "x.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("a", "b"), *rows])
    quarantine = Quarantine()
    found = list(read_rows([tmp_path / "x.csv"], quarantine=quarantine))
    wanted = [{"a": a, "b": b} for a, b in rows]
    strip = [{k: v.replace("\r\n", "\n") for k, v in row.items()} for row in wanted]
    assert [{k: v.replace("\r\n", "\n") for k, v in row.items()} for row in values(found)] == strip
    assert quarantine.total == 0
