from __future__ import annotations

import gzip
import io
import random
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.reading_sources import (
    documents,
    faults,
    read_content,
    read_source,
    read_units,
    reasons,
    texts,
)
from puna.corpus.read import ReadConfig, plan_units
from puna.corpus.read.http import Answer, parse_answer, plain_body

HTML = '<html lang="en"><body>Words ü</body></html>'


def record(kind: str, block: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    told = {
        "WARC-Type": kind,
        "WARC-Target-URI": "http://a.org/",
        "WARC-Date": "2020-01-01T00:00:00Z",
    }
    told |= {"Content-Length": str(len(block))} | dict(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return b"WARC/1.1\r\n" + head.encode() + b"\r\n" + block + b"\r\n\r\n"


def answer(body: bytes | str, *headers: str, status: str = "200 OK") -> bytes:
    data = body.encode() if isinstance(body, str) else body
    lines = headers or ("Content-Type: text/html; charset=utf-8",)
    head = "\r\n".join((f"HTTP/1.1 {status}", *lines))
    return record("response", head.encode() + b"\r\n\r\n" + data)


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_pages_with_what_their_headers_say(tmp_path: Path) -> None:
    (found,) = documents(read_content(tmp_path / "a.warc", answer(HTML), license="x"))
    assert (found.text, found.url, found.language) == (HTML, "http://a.org/", "en")
    assert (found.date, found.license) == ("2020-01-01T00:00:00Z", "x")
    assert found.metadata == {"format": "html", "encoding": "utf-8", "encoding_by": "http"}
    latin = answer("ü".encode("latin-1"), "content-type: Text/Plain;Charset='ISO-8859-1'")
    (found,) = documents(read_content(tmp_path / "b.warc.gz", gzip.compress(latin)))
    assert (found.text, found.metadata["format"]) == ("ü", "text")


def test_texts_of_a_wet_file(tmp_path: Path) -> None:
    headers = {"Content-Type": "text/plain", "WARC-Identified-Content-Language": "zho,eng"}
    content = record("warcinfo", b"x: y") + record("conversion", "学习\n".encode(), headers)
    (found,) = documents(read_content(tmp_path / "a.warc.wet", content))
    assert (found.text, found.language) == ("学习\n", "zh")
    assert found.metadata["languages"] == "zho,eng"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(HTML.encode(), mtime=0), "Content-Encoding: gzip"),
        (zlib.compress(HTML.encode()), "Content-Encoding: deflate"),
        (zlib.compress(HTML.encode())[2:-4], "Content-Encoding: deflate"),
        (chunked(HTML.encode(), 7), "Transfer-Encoding: chunked"),
        (
            chunked(gzip.compress(HTML.encode(), mtime=0), 9),
            "Transfer-Encoding: chunked\r\nContent-Encoding: gzip",
        ),
        (HTML.encode(), "Transfer-Encoding: chunked\r\nContent-Encoding: gzip"),
        (HTML.encode(), "Content-Encoding: br"),
    ],
    ids=("gzip", "deflate", "raw deflate", "chunked", "both", "neither as told", "unknown"),
)
def test_bodies_as_servers_send_them_or_as_crawls_store_them(
    tmp_path: Path, body: bytes, headers: str
) -> None:
    (found,) = documents(read_content(tmp_path / "a.warc", answer(body, headers)))
    assert found.text == HTML
    assert "cut" not in found.metadata


def test_bodies_that_break_off_give_their_beginning(tmp_path: Path) -> None:
    long = HTML.encode() + random.Random(0).randbytes(3000).hex().encode()
    for body, headers in (
        (gzip.compress(long)[:-200], "Content-Encoding: gzip"),
        (chunked(long, 1000)[:-200], "Transfer-Encoding: chunked"),
    ):
        (found,) = documents(read_content(tmp_path / "a.warc", answer(body, headers)))
        assert found.metadata["cut"] is True
        assert found.text.startswith(HTML)


def test_records_that_give_no_document(tmp_path: Path) -> None:
    contents = {
        "is an answer of another status than 200": answer("x", status="404 Not Found"),
        "is neither HTML nor plain text": answer(b"\x89PNG", "Content-Type: image/png"),
        "is empty": answer(" "),
        "is compressed in a way that is not read": answer(b"\x8b\x01", "Content-Encoding: br"),
        "is a WARC record of a kind that holds no document of its own": record("revisit", b"x"),
        "holds no HTTP answer": record("response", b"\x16\x03"),
        "is longer than 50 bytes": answer("x" * 51),
        "holds something that is no WARC record": b"nonsense\r\nmore\r\n",
    }
    for reason, content in contents.items():
        found = read_content(
            tmp_path / "a.warc",
            content + record("request", b"GET /") + answer(HTML),
            max_document_bytes=50,
            format="warc",
        )
        assert reasons(found) == [reason]
        assert texts(found) == [HTML]
        assert faults(found)[0].locator == f"{tmp_path}/a.warc@0"


def test_a_bomb_within_a_record(tmp_path: Path) -> None:
    body = gzip.compress(bytes(30 << 20))
    found = read_content(
        tmp_path / "a.warc", answer(body, "Content-Encoding: gzip"), max_document_bytes=1 << 20
    )
    assert reasons(found) == ["is longer than 1 MiB"]


@pytest.mark.parametrize("length", ["-1", "", "1e3", "9" * 30])
def test_lengths_that_are_none(tmp_path: Path, length: str) -> None:
    bad = record("response", b"x", {"Content-Length": length})
    found = read_content(tmp_path / "a.warc", answer(HTML) + bad + answer(HTML))
    assert texts(found) == [HTML] * 2
    assert reasons(found) == ["holds something that is no WARC record"]


def test_a_length_that_lies_costs_what_it_covers(tmp_path: Path) -> None:
    short = record(
        "conversion", b"words " * 20, {"Content-Length": "6", "Content-Type": "text/plain"}
    )
    found = read_content(tmp_path / "a.warc", short + answer(HTML))
    assert texts(found) == ["words ", HTML]
    assert reasons(found) == ["holds something that is no WARC record"]
    far = record("conversion", b"words", {"Content-Length": "9999999999"})
    found = read_content(tmp_path / "a.warc", answer(HTML) + far + answer(HTML))
    assert texts(found) == [HTML]
    assert reasons(found) == ["ends in the middle of a WARC record"]


def test_what_stands_before_damage_is_kept(tmp_path: Path) -> None:
    pages = [f"<html>{random.Random(number).randbytes(500).hex()}</html>" for number in range(50)]
    packed = [gzip.compress(answer(page)) for page in pages]
    whole = b"".join(packed)
    found = read_content(tmp_path / "a.warc.gz", whole[: len(whole) - len(packed[-1]) - 200])
    assert texts(found) == pages[:48]
    assert reasons(found) == ["ends in the middle of its gzip data"]
    plain = b"".join(answer(page) for page in pages)
    found = read_content(tmp_path / "a.warc", plain[:-100])
    assert texts(found) == pages[:49]
    assert reasons(found) == ["ends in the middle of a WARC record"]


def numbered(count: int) -> list[bytes]:
    pages = (f"<p>{number} {random.Random(number).randbytes(300).hex()}" for number in range(count))
    return [gzip.compress(answer(page) + record("metadata", b"x")) for page in pages]


@pytest.mark.parametrize("unit_bytes", [1, 100, 1000, 5000, 1 << 20])
def test_ranges_change_nothing(tmp_path: Path, unit_bytes: int) -> None:
    path, packed = tmp_path / "a.warc.gz", numbered(30)
    path.write_bytes(b"".join(packed))
    config = ReadConfig(files=str(path))
    units = plan_units("source", config, max(unit_bytes, 200))
    found = read_units(units, config)
    starts = [sum(map(len, packed[:number])) for number in range(30)]
    assert [one.locator for one in found] == [f"{path}@{start}" for start in starts]
    assert [text.split()[0] for text in texts(found)] == [f"<p>{number}" for number in range(30)]
    assert (len(units) > 1) == (unit_bytes < 1 << 20)


@pytest.mark.parametrize("unit_bytes", [300, 1 << 20])
def test_damage_costs_its_own_member(tmp_path: Path, unit_bytes: int) -> None:
    packed = numbered(20)
    broken = bytearray(packed[5])
    broken[len(broken) // 2 :] = bytes(len(broken) - len(broken) // 2)
    packed[5] = bytes(broken)
    packed[9] = b"other bytes"
    packed[12] += bytes(70_000)
    packed[15] = packed[15][:100]
    found = read_content(tmp_path / "a.warc.gz", b"".join(packed), unit_bytes=unit_bytes)
    read = [int(text.split()[0][3:]) for text in texts(found)]
    assert read == [number for number in range(20) if number not in (5, 9, 15)]
    assert len(faults(found)) == 3
    assert faults(found)[0].locator.endswith(f"@{sum(map(len, packed[:5]))}")
    assert faults(found)[1].reason == "holds other bytes behind its compressed data"


def test_a_file_that_is_one_member(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(answer(f"<p>{number}") for number in range(9)))
    found = read_content(tmp_path / "a.warc.gz", whole, unit_bytes=50)
    assert texts(found) == [f"<p>{number}" for number in range(9)]
    assert found[0].locator == f"{tmp_path}/a.warc.gz@0"
    assert found[1].locator.startswith(f"{tmp_path}/a.warc.gz@0+")


def test_zstd(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    content = b"".join(zstandard.compress(answer(HTML)) for _ in range(3))
    assert texts(read_content(tmp_path / "a.warc.zst", content)) == [HTML] * 3


@given(st.binary(max_size=400))
def test_any_bytes_are_an_answer_or_none(data: bytes) -> None:
    for block in (data, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + data):
        found = parse_answer(block)
        if found is not None:
            assert len(plain_body(found, 1000)[0]) <= max(1001, len(data))


@given(st.binary(max_size=300), st.integers(1, 50))
def test_chunks_put_together_are_the_body(body: bytes, size: int) -> None:
    sent = Answer(200, {"transfer-encoding": "chunked"}, chunked(body, size))
    assert plain_body(sent, 1000) == (body, "")


def test_the_same_records_as_fastwarc(tmp_path: Path) -> None:
    fastwarc = pytest.importorskip("fastwarc")
    content = b"".join(
        gzip.compress(one)
        for one in (
            record("warcinfo", b"a: b"),
            answer(HTML),
            answer("text", "Content-Type: text/plain"),
            answer(chunked(HTML.encode(), 11), "Transfer-Encoding: chunked"),
        )
    )
    path = tmp_path / "a.warc.gz"
    path.write_bytes(content)
    theirs = [
        (one.headers["WARC-Target-URI"], one.headers["WARC-Date"])
        for one in fastwarc.ArchiveIterator(
            io.BytesIO(content), record_types=fastwarc.WarcRecordType.response
        )
    ]
    ours = documents(read_source(path))
    assert [(one.url, one.date) for one in ours] == theirs
