from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from corpus.reading_sources import places, read_source, reasons, texts
from puna.config import from_dict
from puna.corpus.read import ReadConfig, ReadUnit, plan_units
from puna.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    contents = {
        "b.html": "<p>b",
        "a.txt": "a",
        "deep/c.html.gz": "<p>c",
        "deep/d.jsonl": '{"text": "d"}',
        "deep/feed.xml": "<rss/>",
        "wiki.xml": "<mediawiki></mediawiki>",
        "picture.png": "x",
        "README.txt": "about",
        ".hidden/e.txt": "e",
        ".f.txt": "f",
    }
    for name, content in contents.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return tmp_path / "data"


def named(units: list[ReadUnit]) -> list[tuple[str, list[str]]]:
    return [(unit.format, [Path(p.path).name for p in unit.pieces]) for unit in units]


def test_small_files_of_one_format_are_one_unit(tree: Path) -> None:
    units = plan_units("s", ReadConfig(files=str(tree)))
    assert named(units) == [
        ("html", ["b.html", "c.html.gz"]),
        ("jsonl", ["d.jsonl"]),
        ("mediawiki", ["wiki.xml"]),
        ("text", ["a.txt"]),
    ]
    assert units == plan_units("s", ReadConfig(files=str(tree)))
    for unit in units:
        assert ReadUnit.from_dict(json.loads(json.dumps(unit.to_dict()))) == unit
    one_each = plan_units("s", ReadConfig(files=str(tree)), unit_bytes=20)
    assert [len(unit.pieces) for unit in one_each] == [1] * 5


def test_names_globs_and_formats(tree: Path) -> None:
    config = ReadConfig(
        files=[f"{tree}/deep/*.html*", f"{tree}/README.txt", f"{tree}/deep/c.html.gz"]
    )
    assert named(plan_units("s", config)) == [("html", ["c.html.gz"]), ("text", ["README.txt"])]
    only = ReadConfig(files=str(tree), format="html")
    assert [name for name, _ in named(plan_units("s", only))] == ["html"]
    assert named(plan_units("s", ReadConfig(files=f"{tree}/.f.txt")))[0] == ("text", [".f.txt"])


def test_json_is_rows_where_it_has_an_object_in_each_line(tmp_path: Path) -> None:
    contents = {
        "lines.json": '{"text": "a"}\n{"text": "b"}\n',
        "long.json": json.dumps({"text": "c" * 9000}) + "\n",
        "one.json": '{"text": "d"}',
        "pretty.json": json.dumps({"text": "e"}, indent=1),
        "open.json": "{\n",
        "array.json": '[{"text": "f"}]',
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    found = read_source(tmp_path)
    assert places(found) == ["lines.json@0", "lines.json@14", "long.json@0", "one.json@0"]
    with pytest.raises(InputError, match="neither its name nor how it begins"):
        read_source(tmp_path / "pretty.json")
    assert texts(read_source(tmp_path / "lines.json")) == ["a", "b"]


def test_files_whose_names_tell_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, format in (
        ("WARC/1.0\r\n", "warc"),
        ('<?xml version="1.0"?>\n<mediawiki xmlns="x">', "mediawiki"),
        ("\n<!doctype HTML>", "html"),
        ('{"text": "x"}', "jsonl"),
    ):
        path.write_bytes(gzip.compress(content.encode()))
        assert plan_units("s", ReadConfig(files=str(path)))[0].format == format
    path.write_text("words")
    with pytest.raises(InputError, match=r"neither its name nor how it begins.*\n.*format: text"):
        plan_units("s", ReadConfig(files=str(path)))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ("{tree}/none.txt", "does not exist"),
        ("{tree}/*.none", "holds or matches no file"),
        ("{tree}/**x", "is no glob"),
        ("nowhere://bucket/x.jsonl", "cannot be looked at: .*nowhere"),
        ("memory://none/x.jsonl", "does not exist"),
        ("hub:x", "not of the form owner/name"),
    ],
)
def test_names_that_lead_nowhere(tree: Path, files: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        plan_units("s", ReadConfig(files=files.format(tree=tree)))


def test_rows_in_utf16_are_refused(tree: Path) -> None:
    config = ReadConfig(files=f"{tree}/deep/d.jsonl", encoding="UTF_16")
    with pytest.raises(InputError, match=r"are not read in UTF_16\n.*iconv"):
        plan_units("s", config)
    assert plan_units("s", ReadConfig(files=f"{tree}/a.txt", encoding="utf-16"))


def test_no_names() -> None:
    with pytest.raises(InputError, match="no files are named"):
        plan_units("s", ReadConfig(files=[]))


def test_configurations_come_from_recipes() -> None:
    config = from_dict(ReadConfig, {"files": ["a", "b"], "format": "warc", "columns": {"url": "u"}})
    assert (config.names, config.format, config.columns.url) == (["a", "b"], "warc", "u")
    assert from_dict(ReadConfig, {"files": "a"}).names == ["a"]
    with pytest.raises(InputError, match="there is no encoding 'utf-9'"):
        ReadConfig(files="a", encoding="utf-9")
    with pytest.raises(InputError, match="there is no encoding 'hex'"):
        ReadConfig(files="a", encoding="hex")
    with pytest.raises(InputError, match="must be positive"):
        ReadConfig(files="a", max_document_bytes=0)


def test_names_that_are_no_utf8_and_links_that_lead_nowhere(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.txt")
    (tmp_path / name).write_text("words")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    (unit,) = plan_units("s", ReadConfig(files=str(tmp_path)))
    assert ReadUnit.from_dict(json.loads(json.dumps(unit.to_dict()))) == unit
    found = read_source(tmp_path)
    assert (texts(found), reasons(found)) == (["words"], ["cannot be read"])
    assert places(found) == ["gone.txt", "\\xff.txt"]


def test_a_large_file_is_cut_only_where_that_can_be(tmp_path: Path) -> None:
    line = json.dumps({"text": "x" * 90}) + "\n"
    (tmp_path / "a.jsonl").write_text(line * 100)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(os.urandom(9000)))
    units = plan_units("s", ReadConfig(files=str(tmp_path)), unit_bytes=3000)
    assert [(Path(u.pieces[0].path).name, u.pieces[0].start) for u in units] == [
        ("a.jsonl", 0),
        ("a.jsonl", 2575),
        ("a.jsonl", 5150),
        ("a.jsonl", 7725),
        ("b.jsonl.gz", 0),
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    found = read_source(tmp_path)
    assert (texts(found), reasons(found)) == (["words"], ["cannot be listed: Permission denied"])
