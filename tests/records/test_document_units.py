"""Documents of plain text: lines, paragraphs, whole files; and the key that texts share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.records import Quarantine, normalised
from puna.records import documents as module
from puna.records.documents import Unit, plain_words, read_documents, text_key

TEXT = "One line.\nThe next one.\n\n\nAfter a gap,\r\nwith a return.\n   \nLast \n"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Any]:
    """The texts, the places and the quarantine of a file of some content."""

    def run(content: bytes | str, unit: Unit, name: str = "a.txt", **more: Any) -> Any:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        quarantine = Quarantine()
        rows = list(read_documents([path], quarantine=quarantine, unit=unit, **more))
        places = [Path(row.locator).name for row in rows]
        return [row.values["text"] for row in rows], places, quarantine

    return run


def test_the_units_of_plain_text(read: Callable[..., Any]) -> None:
    lines, places, _ = read(TEXT, "row")
    assert lines == [
        "One line.",
        "The next one.",
        "After a gap,",
        "with a return.",
        "Last ",
    ]
    assert places == ["a.txt:1", "a.txt:2", "a.txt:5", "a.txt:6", "a.txt:8"]
    texts, places, quarantine = read(TEXT, "paragraphs")
    assert texts == ["One line.\nThe next one.", "After a gap,\nwith a return.", "Last "]
    assert places == ["a.txt:1", "a.txt:5", "a.txt:8"]
    assert quarantine.total == 0
    texts, places, _ = read("\ufeff" + TEXT, "file")
    assert texts == [TEXT.replace("\r\n", "\n")]
    assert places == ["a.txt:1"]


@given(st.lists(st.lists(st.text("ab ", min_size=1).filter(str.strip), min_size=1), min_size=1))
def test_paragraphs_are_what_stands_between_blank_lines(
    tmp_path_factory: pytest.TempPathFactory, paragraphs: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("paragraphs") / "a.txt"
    path.write_text("\n\n".join("\n".join(lines) for lines in paragraphs))
    rows = read_documents([path], quarantine=Quarantine(), unit="paragraphs")
    assert [row.values["text"] for row in rows] == ["\n".join(lines) for lines in paragraphs]


def test_a_paragraph_that_is_not_utf8_costs_no_other(read: Callable[..., Any]) -> None:
    texts, _, quarantine = read(b"good\n\nbad \xff\nline\n\nnul \x00\n\nfine\n", "paragraphs")
    assert texts == ["good", "fine"]
    assert quarantine.counts == {
        "holds bytes that are not UTF-8": 1,
        "holds a NUL character": 1,
    }
    assert quarantine.samples[0][1].endswith("byte 5 of the paragraph")


def test_a_file_that_is_not_utf8_and_one_that_is_blank(read: Callable[..., Any]) -> None:
    texts, _, quarantine = read(b"abc\n\xff\n", "file")
    assert (texts, quarantine.counts) == ([], {"holds bytes that are not UTF-8": 1})
    texts, _, quarantine = read(" \n\n", "file")
    assert (texts, quarantine.counts) == ([], {"is empty": 1})
    with pytest.raises(InputError, match="is UTF-16, not UTF-8"):
        read("text".encode("utf-16"), "file")


def test_a_paragraph_without_end_does_not_fill_the_memory(
    read: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1 << 20)
    texts, _, quarantine = read("short\n\n" + "long line\n" * 120_000 + "\nend\n", "paragraphs")
    assert texts == ["short", "end"]
    assert quarantine.counts == {"a paragraph is longer than 1 MiB": 1}
    assert quarantine.samples[0][0].endswith("a.txt:3")


def test_only_plain_text_has_paragraphs_and_files(read: Callable[..., Any]) -> None:
    told = r"a\.jsonl: is jsonl, and documents of the unit 'file' are read of plain text only"
    with pytest.raises(InputError, match=told):
        read("{}", "file", "a.jsonl")
    with pytest.raises(InputError, match=r"is of an unknown format, .*\n  fix: .*format: txt"):
        read("x = 1\n", "paragraphs", "a.py")
    assert read("x = 1\n\ny = 2\n", "file", "a.py", format="txt")[0] == ["x = 1\n\ny = 2\n"]


def test_rows_are_those_of_any_format(read: Callable[..., Any]) -> None:
    texts, places, quarantine = read('{"text": "a"}\nno json\n{"text": "b"}\n', "row", "a.jsonl")
    assert (texts, places) == (["a", "b"], ["a.jsonl:1", "a.jsonl:3"])
    assert quarantine.total == 1


@given(st.text())
def test_plain_words_are_the_normalised_text(text: str) -> None:
    assert plain_words(text) == normalised(text)


def test_the_key_of_a_text_leaves_out_what_makes_no_difference() -> None:
    assert text_key("A  Text\n") == text_key("a text")
    assert text_key("ﬁne Ｗords") == text_key("fine words")
    assert text_key("a text") != text_key("a text.")
    assert len(text_key("")) == 16
