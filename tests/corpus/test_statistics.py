"""The figures of texts: the kernel is its twin on any Unicode; words are what they should be."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus.rule_texts import batch_of, real_texts, texts
from puna.corpus import figures
from puna.corpus.characters import ALONE, BREAK, SPACE, WORD, Splitter, character_table
from puna.corpus.figures import FIGURES
from puna.corpus.schema import BASE_SCHEMA, stat, with_drops
from puna.corpus.statistics import Statistics
from puna.corpus.step import identity
from puna.corpus.text_twin import count_sentences, split_words, text_figures
from puna.errors import InputError

SPLITTERS: tuple[Splitter, ...] = ("puna", "datatrove")
ENGLISH = Statistics().stop_words["en"]


def figures_of(batch: pa.RecordBatch, step: Statistics) -> list[dict[str, float]]:
    done = step.open()(batch)
    columns = {name: stat(done, name) for name in FIGURES}
    return [
        {name: float(values[row]) for name, values in columns.items()}
        for row in range(batch.num_rows)
    ]


def assert_same(found: dict[str, float], expected: dict[str, float], text: str) -> None:
    for name, value in expected.items():
        assert np.array_equal(found[name], np.float32(value), equal_nan=True), (name, text)


@pytest.mark.parametrize("splitter", SPLITTERS)
@settings(max_examples=100)
@given(st.lists(texts, min_size=1, max_size=8))
@example(["", "\n", "\n\n", " ", "\n \n", "a\n\nb\n\na", "\na\n"])
def test_the_kernel_is_its_twin(splitter: Splitter, found: list[str]) -> None:
    step = Statistics(splitter=splitter, short_line_characters=7)
    for text, row in zip(found, figures_of(batch_of(found), step), strict=True):
        assert_same(row, text_figures(text, splitter, ENGLISH, 7), text)


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_the_kernel_is_its_twin_on_all_scripts(splitter: Splitter) -> None:
    found = [
        "".join(f"a{chr(code)}1{chr(code)}{chr(code)}" for code in range(first, 0x20000, 97))
        for first in range(0, 97, 9)
    ]
    found = [text.encode("utf-8", "ignore").decode() for text in found]
    rows = figures_of(batch_of(found), Statistics(splitter=splitter))
    for number, (text, row) in enumerate(zip(found, rows, strict=True)):
        assert_same(row, text_figures(text, splitter, ENGLISH, 30), f"text {number}")


def test_the_kernel_is_its_twin_on_long_repetitive_text() -> None:
    """Beyond the stretches whose powers are tabled, and with all levels of pruning."""
    random = np.random.default_rng(0)
    words = ["the", "grass", "of", "a", "high", "plain", "x" * 1500, "。", "山"]
    found = [" ".join(random.choice(words, 3000)), "ab " * 5000, "山水" * 3000]
    for splitter in SPLITTERS:
        rows = figures_of(batch_of(found), Statistics(splitter=splitter))
        for text, row in zip(found, rows, strict=True):
            assert_same(row, text_figures(text, splitter, ENGLISH, 30), text[:50])


@pytest.mark.data
def test_the_kernel_is_its_twin_on_real_text(shared_data: Path) -> None:
    found = real_texts(shared_data, 4)
    rows = figures_of(batch_of(found), Statistics())
    for text, row in zip(found, rows, strict=True):
        assert_same(row, text_figures(text, "puna", ENGLISH, 30), text[:50])


def test_the_table_knows_the_expressions_of_datatrove_for_every_character() -> None:
    everything = "".join(map(chr, (c for c in range(0x110000) if not 0xD800 <= c < 0xE000)))
    kinds = character_table("datatrove").of(everything)
    for bit, pattern in ((WORD, r"\w"), (SPACE, r"\s"), (ALONE, r"[^\w\s]")):
        marked = "".join(c for c, kind in zip(everything, kinds, strict=True) if kind & bit)
        assert marked == "".join(re.findall(pattern, everything))
    breaks = [c for c, kind in zip(everything, kinds, strict=True) if kind & BREAK]
    assert breaks == [c for c in everything if len(f"a{c}a".splitlines()) == 2]


@given(texts)
def test_datatrove_words_are_those_of_the_expression(text: str) -> None:
    words = split_words(text, character_table("datatrove"))
    assert words == re.findall(r"\w+|[^\w\s]", text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't pay $1,000.50, he said.", "Don't pay $ 1,000.50 , he said ."),
        ("l’eau 'quoted' rock 'n' roll", "l’eau ' quoted ' rock ' n ' roll"),
        ("我爱北京，真的！", "我 爱 北 京 ， 真 的 ！"),
        ("用Python3写的程序", "用 Python3 写 的 程 序"),
        ("カタカナと平仮名", "カ タ カ ナ と 平 仮 名"),
        ("한국어 문장입니다.", "한국어 문장입니다 ."),
        ("「引用」——完", "「 引 用 」 —— 完"),
        ("a---b ... ====", "a --- b ... ===="),
        ("cafe\u0301 na\xadive", "cafe\u0301 na\xadive"),
        ("かか\u3099 葛\U000e0100城", "か か\u3099 葛\U000e0100 城"),
        ("हिन्दी में", "हिन्दी में"),
        ("snake_case ½ Ⅷ x²", "snake_case ½ Ⅷ x²"),
        ("zero\u200bwidth", "zero width"),
    ],
)
def test_puna_words(text: str, words: str) -> None:
    assert split_words(text, character_table("puna")) == words.split(" ")


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two? Three!", 3),
        ("No mark", 1),
        ("", 0),
        ("...", 0),
        ("Version 3.14 is out.", 1),
        ('He said: "No." Then he left.', 2),
        ("是的。不是！「好。」她说。", 4),
        ("क्या है। हाँ।", 2),
    ],
)
def test_sentences(line: str, count: int) -> None:
    assert count_sentences(line, character_table("puna")) == count
    assert figures_of(batch_of([line]), Statistics())[0]["sentences"] == count


def test_lines_and_symbols_are_told() -> None:
    text = "- one\n• two ...\nthree…\n\nUse cookies {here} #1.\nthree…"
    (found,) = figures_of(batch_of([text]), Statistics())
    assert found["bullet_line_fraction"] == np.float32(2 / 6)
    assert found["ellipsis_line_fraction"] == np.float32(3 / 6)
    assert found["lines"] == 5
    assert found["policy_lines"] == 1
    assert found["curly_brackets"] == 1
    assert found["repeated_line_fraction"] == np.float32(6 / (len(text) - 5))
    assert found["characters"] == len(text)


def test_han_characters_are_two_columns_wide() -> None:
    text = "山" * 16 + "\n" + "a" * 16
    (wide,) = figures_of(batch_of([text]), Statistics())
    (plain,) = figures_of(batch_of([text]), Statistics(splitter="datatrove"))
    assert (wide["short_line_fraction"], plain["short_line_fraction"]) == (0.5, 1)


def test_stop_words_are_those_of_the_language() -> None:
    found = ["the end of it", "这是我的。", "les mots", "the end of it"]
    batch = batch_of(found, ["en", "zh", "fr", None])
    counts = [row["stop_words"] for row in figures_of(batch, Statistics())]
    assert counts[:2] == [2, 2]
    assert np.isnan(counts[2])
    assert counts[3] == 2
    as_datatrove = figures_of(batch, Statistics(splitter="datatrove"))
    assert [row["stop_words"] for row in as_datatrove] == [2, 0, 0, 2]


def test_dropped_rows_are_left_alone_and_slices_are_read_where_they_lie() -> None:
    batch = with_drops(batch_of(["one", "two words", "three words here", "four"]), {2: "x.y"})
    words = [row["words"] for row in figures_of(batch.slice(1), Statistics())]
    assert words[0] == 2
    assert np.isnan(words[1])
    assert words[2] == 1


def test_no_rows_are_no_trouble() -> None:
    done = Statistics().open()(batch_of([]))
    assert done.num_rows == 0
    assert len(stat(done, "words")) == 0


def test_very_long_texts_are_cut_between_characters() -> None:
    (found,) = figures_of(batch_of(["aé山\U0001f468" * 10]), Statistics(max_bytes=14))
    assert found["characters"] == 6  # of 1, 2, 3, 4, 1 and 2 bytes; the next has 3
    assert found["unread_bytes"] == 100 - 13


@pytest.mark.parametrize(
    "bad", [b"ab\xff", b"\xe5\xb1", b"\x80", b"a\xc0\xaf", b"\xf5\x80\x80\x80"]
)
def test_bytes_that_are_not_utf8_go_to_quarantine_alone(bad: bytes) -> None:
    parts = [b"fine here", bad, b"fine"]
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    text = pa.Array.from_buffers(
        pa.large_string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(parts))]
    )
    batch = batch_of(["", "", ""])
    columns = [text if f.name == "text" else batch.column(f.name) for f in BASE_SCHEMA]
    done = Statistics().open()(pa.record_batch(columns, schema=BASE_SCHEMA))
    assert done.column("error").to_pylist() == [None, "statistics.not_utf8", None]
    assert stat(done, "words").tolist()[::2] == [2, 1]


def test_the_columns_are_where_the_kernel_writes_them() -> None:
    places = {name: at for name, at in vars(figures).items() if isinstance(at, int)}
    assert places["TOP_GRAMS"] == FIGURES.index("top_2_gram_character_fraction")
    assert places["DUPLICATED_GRAMS"] == FIGURES.index("duplicated_5_gram_character_fraction")
    assert places["CURLY_BRACKETS"] == len(FIGURES) - 1


def test_bad_settings_are_refused_and_the_identity_tells_them_apart() -> None:
    with pytest.raises(InputError, match="no stop words for 'xx'"):
        Statistics(default_language="xx")
    with pytest.raises(InputError, match="max_bytes"):
        Statistics(max_bytes=0)
    assert identity(Statistics()) != identity(Statistics(splitter="datatrove"))


def test_without_numba_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(InputError, match=r"puna\[corpus\]"):
        Statistics().open()
