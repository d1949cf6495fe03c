"""Files in stores, through fsspec: in its memory, which has no disk behind it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.reading_sources import reasons, texts
from puna.corpus.read import ReadConfig, ReadUnit, Unread, plan_units, read_unit
from puna.corpus.schema import Found
from puna.errors import InputError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def store() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def put(store: Any, name: str, data: bytes) -> None:
    store.pipe_file(f"/{name}", data)


def read(config: ReadConfig, unit_bytes: int = 1 << 20) -> list[Found | Unread]:
    units = plan_units("s", config, unit_bytes)
    again = [ReadUnit.from_dict(json.loads(json.dumps(unit.to_dict()))) for unit in units]
    return [found for unit in again for found in read_unit(unit, config)]


def test_a_file_a_folder_and_a_glob(store: Any) -> None:
    put(store, "data/a.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
    put(store, "data/deep/b.jsonl.gz", gzip.compress(b'{"text": "three"}'))
    put(store, "data/.hidden/c.jsonl", b'{"text": "hidden"}')
    put(store, "data/README.txt", b"about")
    put(store, "data/picture.png", b"x")
    one = read(ReadConfig(files="memory://data/a.jsonl"))
    assert texts(one) == ["one", "two"]
    assert [found.locator for found in one] == [
        "memory:///data/a.jsonl@0",
        "memory:///data/a.jsonl@16",
    ]
    assert texts(read(ReadConfig(files="memory://data"))) == ["one", "two", "three"]
    assert texts(read(ReadConfig(files="memory://data/**/*.gz"))) == ["three"]
    assert texts(read(ReadConfig(files="memory://data/*.txt", format="text"))) == ["about"]


def test_ranges_of_lines_and_row_groups(store: Any) -> None:
    rows = [f"row {number}" for number in range(200)]
    lines = "\n".join(json.dumps({"text": row}) for row in rows)
    put(store, "lines.jsonl", lines.encode())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": rows}), sink, row_group_size=30)
    put(store, "rows.parquet", sink.getvalue().to_pybytes())
    for name in ("lines.jsonl", "rows.parquet"):
        config = ReadConfig(files=f"memory://{name}")
        assert len(plan_units("s", config, 500)) > 2
        assert texts(read(config, 500)) == rows


def test_what_changes_or_goes_away_meanwhile(store: Any) -> None:
    put(store, "a.jsonl", b'{"text": "one"}')
    config = ReadConfig(files="memory://a.jsonl")
    (unit,) = plan_units("s", config)
    put(store, "a.jsonl", b'{"text": "another"}')
    assert reasons(list(read_unit(unit, config))) == ["has changed since the work was planned"]
    store.rm("/a.jsonl")
    assert reasons(list(read_unit(unit, config))) == ["cannot be read"]
    with pytest.raises(InputError, match="does not exist"):
        plan_units("s", config)


def test_a_store_that_breaks_off(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFile

    put(store, "a.jsonl", b'{"text": "one"}\n' * 3)
    config = ReadConfig(files="memory://a.jsonl")
    (unit,) = plan_units("s", config)

    def broken(self: Any, size: int = -1) -> bytes:
        raise RuntimeError("the store is on fire")

    monkeypatch.setattr(MemoryFile, "read", broken, raising=False)
    (found,) = read_unit(unit, config)
    assert isinstance(found, Unread)
    assert (found.reason, "fire" in found.detail) == ("cannot be read", True)
