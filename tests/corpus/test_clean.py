"""Cleaning: what is repaired, what stays, and that cleaning twice is cleaning once."""

from __future__ import annotations

import time
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.corpus.clean import CleanConfig, for_re2, open_cleaner
from puna.corpus.schema import Found, content_hash, make_batch, with_drops
from puna.errors import InputError

pytest.importorskip("ftfy")
from ftfy.badness import is_bad

NASTY = "aB é\u0301 \u00a0\u200b\u200c\u200d\u200e\u05d0\ufeff\x00\x07\x85\r\n\t\u3000ÃÂ¢â€™œЂ中ก👩"
MOJIBAKE = "aZ1 \x80\x93\xa0¤¡¢£°²³µº»¿ÀÂÃÄÎÐØÙßàâîñœŒŠšŸž—‘’“”…€™√∂≈‚вЂГўВРСβΒΓΞΟāїő┐├❤"
CLEANER = open_cleaner(CleanConfig())
APPLY = CleanConfig().open()
texts = st.one_of(st.text(), st.text(alphabet=NASTY, max_size=60))


def clean(text: str, config: CleanConfig | None = None) -> str:
    return open_cleaner(config or CleanConfig()).clean(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("schÃ¶n und fÃ¼r", "schön und für"),
        ("itâ€™s â€œfineâ€\x9d", "it’s “fine”"),
        ("a \t\n\n\n\n\n\nb\n", "a\n\n\nb"),
        ("a\r\nb\rc\u2028d\x0ce", "a\nb\nc\nd\ne"),
        ("a\x00b\u200bc\ufeffd\u00ade\u2060", "abcde"),
        ("e\u0301", "é"),
        ("10\u00a0000\u202f€", "10 000 €"),
        ("\n\n  indented\n\tmore  \n", "  indented\n\tmore"),
        ("\u202eevil\u202c", "evil"),
        ("a\u200db\u200c", "ab"),
        ("tag\U000e0041\U000e0042s", "tags"),
    ],
)
def test_what_nobody_sees_goes(text: str, wanted: str) -> None:
    assert clean(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    if x:\n\treturn x ** 2\n\n\nclass A: ...",
        "x² + y² ≤ ∑ ﬁ ① ½ ℌ ａｂｃ，。",  # NFKC would change these
        "“curly” ‘quotes’ — and … &amp; <b>",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308",
        "क्\u200dष",
        "می\u200cخواهم",
        "สวัสดี\u200bครับ",
        "\u05d0\u200e(1)\u200f",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "\u3000\u3000中文段落，“引号”。",
        "Ça déjà vu; naïve café; Größe; łódź; ¿Qué?",
        "Привет, мир! Γειά σου. 你好",
    ],
)
def test_code_mathematics_and_scripts_stay(text: str) -> None:
    assert clean(text) == text


def test_choices() -> None:
    assert clean("a\n\n\nb", CleanConfig(max_blank_lines=0)) == "a\nb"
    assert clean("a\u00a0b", CleanConfig(plain_spaces=False)) == "a\u00a0b"
    assert clean("e\u0301", CleanConfig(compose=False)) == "e\u0301"
    assert clean("schÃ¶n", CleanConfig(repair=False)) == "schÃ¶n"
    with pytest.raises(InputError, match="max_blank_lines is -1"):
        CleanConfig(max_blank_lines=-1)


@given(texts)
def test_twice_is_once(text: str) -> None:
    once = CLEANER.clean(text)
    assert CLEANER.clean(once) == once
    assert unicodedata.is_normalized("NFC", once)


@settings(max_examples=40)
@given(st.lists(texts, max_size=4))
def test_the_step_is_the_function_on_every_row(rows: list[str]) -> None:
    batch = make_batch("s", [Found(str(n), text) for n, text in enumerate(rows)])
    done = APPLY(batch)
    wanted = [CLEANER.clean(text) for text in rows]
    assert done.column("text").to_pylist() == wanted
    assert done.column("content_hash").to_pylist() == [content_hash(text) for text in wanted]
    assert done.column("drop").to_pylist() == [None if t else "clean.empty" for t in wanted]
    assert done.column("id").equals(batch.column("id"))
    assert APPLY(done).equals(done)


@settings(max_examples=50)
@given(st.lists(texts, max_size=4))
def test_rows_that_no_expression_finds_need_nothing(rows: list[str]) -> None:
    doubtful, _ = CLEANER.doubtful(pa.array(rows, type=pa.large_string()))
    for text, may_change in zip(rows, doubtful, strict=True):
        if not may_change:
            assert CLEANER.clean(text) == text


@given(st.lists(st.one_of(texts, st.text(alphabet=MOJIBAKE)), max_size=4))
def test_the_expression_for_re2_finds_what_ftfy_does(rows: list[str]) -> None:
    _, bad = CLEANER.doubtful(pa.array(rows, type=pa.large_string()))
    assert bad.tolist() == [is_bad(text) for text in rows]


def test_an_expression_that_re2_does_not_take() -> None:
    assert for_re2("(?<=a)b") == r"[^\x00-\x7f]"


def test_dropped_rows_stay_as_they_are() -> None:
    batch = with_drops(make_batch("s", [Found("1", "a  \n"), Found("2", "b  \n")]), {0: "x.y"})
    done = CleanConfig().open()(batch)
    assert done.column("text").to_pylist() == ["a  \n", "b"]
    assert done.column("drop").to_pylist() == ["x.y", None]


def test_a_row_that_fails_is_put_aside_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import ftfy

    def fail(text: str) -> str:
        raise RecursionError("too deep")

    monkeypatch.setattr(ftfy, "fix_encoding", fail)
    batch = make_batch("s", [Found("1", "schÃ¶n"), Found("2", "b ")])
    done = CleanConfig().open()(batch)
    assert done.column("error").to_pylist() == ["clean: RecursionError: too deep", None]
    assert done.column("text").to_pylist() == ["schÃ¶n", "b"]


@pytest.mark.parametrize("piece", [" ", "\n", "\u200d", "\t x", "é", "Ã", "\u00a0"])
def test_long_runs_take_linear_time(piece: str) -> None:
    began = time.process_time()
    clean("a" + piece * 100_000 + "x")
    assert time.process_time() - began < 5
