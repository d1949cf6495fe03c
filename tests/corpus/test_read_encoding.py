from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.read.encoding import decode, python_name

GERMAN = "Die Straße ist überall für Mädchen. "
RUSSIAN = "Все счастливые семьи похожи друг на друга. "
CHINESE = "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？"


def page(charset: str, words: str) -> str:
    return f'<html><head><meta charset="{charset}"></head><body>{words}</body></html>'


def test_a_mark_decides() -> None:
    found = decode(codecs.BOM_UTF8 + GERMAN.encode(), declared="cp1251")
    assert (found.text, found.encoding, found.found_by) == (GERMAN, "utf-8", "mark")
    for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        found = decode(("\ufeff" + CHINESE).encode(name))
        assert (found.text, found.encoding, found.found_by) == (CHINESE, name, "mark")


@pytest.mark.parametrize(
    ("declared", "codec", "words"),
    [
        ("iso-8859-1", "cp1252", GERMAN + "“quoted”"),
        ("windows-1251", "cp1251", RUSSIAN),
        ("koi8-r", "koi8-r", RUSSIAN),
        ("GB2312", "gb18030", CHINESE + "㐀"),
        ("big5", "big5hkscs", "學而時習之，不亦說乎"),
        ("Shift_JIS", "cp932", "吾輩は猫である①"),
        ("euc-kr", "cp949", "대한민국의 주권은"),
    ],
)
def test_what_is_declared_is_taken_as_browsers_do(declared: str, codec: str, words: str) -> None:
    by_http = decode(words.encode(codec), declared=declared)
    assert (by_http.text, by_http.encoding, by_http.found_by) == (words, codec, "http")
    own = page(declared, words)
    by_meta = decode(own.encode(codec))
    assert (by_meta.text, by_meta.encoding, by_meta.found_by) == (own, codec, "meta")


def test_a_declaration_that_does_not_fit_is_passed_over() -> None:
    found = decode(page("utf-8", RUSSIAN).encode("cp1251"), declared="windows-1251")
    assert (found.encoding, found.found_by) == ("cp1251", "http")
    found = decode(GERMAN.encode(), declared="no-such-encoding")
    assert (found.text, found.found_by) == (GERMAN, "utf-8")
    found = decode(CHINESE.encode(), declared="iso-8859-1")
    assert (found.text, found.encoding, found.found_by) == (CHINESE, "utf-8", "utf-8")
    found = decode(b"plain", declared="iso-8859-1")
    assert (found.text, found.found_by) == ("plain", "http")


def test_a_few_bad_bytes_do_not_make_utf8_another_encoding() -> None:
    data = (CHINESE * 10).encode() + b"\xff" + CHINESE.encode()
    found = decode(data)
    assert found.text == CHINESE * 10 + "\ufffd" + CHINESE
    assert found.metadata() == {"encoding": "utf-8", "encoding_by": "utf-8", "replaced": 1}
    cut = decode(b"a long text that ends in " + "ü".encode()[:1])
    assert (cut.encoding, cut.replaced) == ("utf-8", 1)


def test_what_nothing_tells_is_guessed() -> None:
    pytest.importorskip("resiliparse")
    for words, codec in ((RUSSIAN * 5, "cp1251"), (CHINESE * 5, "gb18030"), (GERMAN, "cp1252")):
        found = decode(words.encode(codec))
        assert (found.text, found.found_by) == (words, "guess")


def test_what_the_user_says_decides() -> None:
    found = decode(page("utf-8", GERMAN).encode("cp1252"), encoding="cp1252")
    assert (found.found_by, found.replaced) == ("config", 0)
    assert GERMAN in found.text
    assert decode("ü".encode("cp1252"), encoding="ascii").replaced == 1


@pytest.mark.parametrize("name", ["rot13", "hex", "idna", "", "\0", "base64", "unicode_escape"])
def test_codecs_that_are_no_encodings_of_text(name: str) -> None:
    assert python_name(name) is None


def test_names_that_only_browsers_know() -> None:
    assert python_name('"x-sjis"') == "cp932"
    assert python_name("utf-16") == python_name("utf-7") == "utf-8"
    assert python_name("latin1") == "cp1252"


@given(st.text())
def test_utf8_comes_back_as_it_was(text: str) -> None:
    found = decode(text.encode())
    assert found.text == text.removeprefix("\ufeff")


@given(st.binary(max_size=300), st.text(max_size=20))
def test_any_bytes_become_text(data: bytes, declared: str) -> None:
    pytest.importorskip("resiliparse")
    assert isinstance(decode(data, declared=declared).text, str)
