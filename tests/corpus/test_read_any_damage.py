"""Whatever happens to a file: its reader neither fails nor waits, and sound documents stay so."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.reading_sources import documents, read_source
from corpus.test_read_mediawiki import dump, page
from corpus.test_read_warc import HTML, answer
from puna.corpus.schema import make_batch

needs_guess = pytest.mark.skipif(
    importlib.util.find_spec("resiliparse") is None, reason="resiliparse is not installed"
)
NAMES = (
    "a.jsonl a.jsonl.gz a.csv a.tsv a.parquet a.warc a.warc.gz a.html a.md.gz a.xml a.xml.bz2 a.py"
)
WORDS = [f"document {number} – words" for number in range(12)]


def jsonl() -> bytes:
    return "".join(
        json.dumps({"text": text, "n": [1, {"a": None}]}) + "\n" for text in WORDS
    ).encode()


def csv() -> bytes:
    return ("text,url\n" + "".join(f'"{text}",u\n' for text in WORDS)).encode()


def parquet(folder: Path) -> bytes:
    path = folder / "made.parquet"
    pq.write_table(pa.table({"text": WORDS}), path, row_group_size=4)
    return path.read_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return samples(tmp_path_factory.mktemp("sound"))


def samples(folder: Path) -> dict[str, bytes]:
    crawl = [answer(HTML), answer(gzip.compress(HTML.encode()), "Content-Encoding: gzip")]
    articles = dump(*(page(f"T{number}", "'''a''' [[b|c]]", number) for number in range(5)))
    return {
        "a.jsonl": jsonl(),
        "a.jsonl.gz": gzip.compress(jsonl()),
        "a.csv": csv(),
        "a.tsv": csv().replace(b",", b"\t"),
        "a.parquet": parquet(folder),
        "a.warc": b"".join(crawl),
        "a.warc.gz": b"".join(gzip.compress(one) for one in crawl),
        "a.html": HTML.encode(),
        "a.md.gz": gzip.compress("\n".join(WORDS).encode("utf-16")),
        "a.xml.bz2": bz2.compress(articles.encode()),
        "a.xml": articles.encode(),
        "a.py": b"print('words')\n" * 20,
    }


Damage = Callable[[bytes], bytes]


def damages() -> st.SearchStrategy[Damage]:
    share = st.floats(0, 1)

    def cut(at: float) -> Damage:
        return lambda data: data[: int(at * len(data))]

    def change(at: float, new: bytes, gone: int) -> Damage:
        def damage(data: bytes) -> bytes:
            place = int(at * len(data))
            return data[:place] + new + data[place + gone :]

        return damage

    return st.one_of(
        st.builds(cut, share),
        st.builds(change, share, st.binary(max_size=20), st.integers(0, 20)),
    )


@needs_guess
@pytest.mark.parametrize("name", NAMES.split())
@settings(max_examples=30)
@given(st.lists(damages(), min_size=1, max_size=3), st.sampled_from([64, 1 << 20]))
def test_damage_is_told_and_nothing_fails(
    tmp_path_factory: pytest.TempPathFactory,
    sound: dict[str, bytes],
    name: str,
    done: list[Damage],
    unit_bytes: int,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    data = sound[name]
    for damage in done:
        data = damage(data)
    (folder / name).write_bytes(data)
    format = "code" if name.endswith(".py") else "auto"
    found = read_source(folder / name, format=format, unit_bytes=unit_bytes)
    assert found or not data.strip() or name in ("a.csv", "a.tsv", "a.warc", "a.jsonl", "a.warc.gz")
    batch = make_batch("source", documents(found))
    locators = batch.column("locator").to_pylist()
    assert len(set(locators)) == len(locators)
    json.dumps([dict(one.metadata) for one in documents(found)])
