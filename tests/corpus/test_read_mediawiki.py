from __future__ import annotations

import bz2
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.reading_sources import documents, faults, read_content, reasons, texts
from puna.corpus.read.wikitext import namespaces_of, plain_text

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="de">
<siteinfo><base>https://de.wikipedia.org/wiki/Hauptseite</base><namespaces>
<namespace key="0" /><namespace key="6">Datei</namespace><namespace key="14">Kategorie</namespace>
</namespaces></siteinfo>
"""


def page(title: str, text: str, number: int = 1, more: str = "<ns>0</ns>") -> str:
    return f"""<page><title>{title}</title>{more}<id>{number}</id><revision><id>99</id>
    <timestamp>2020-01-02T03:04:05Z</timestamp><text>{text}</text></revision></page>\n"""


def dump(*pages: str) -> str:
    return HEAD + "".join(pages) + "</mediawiki>"


def test_articles_with_address_date_and_language(tmp_path: Path) -> None:
    content = dump(page("Größe (Maß)", "'''Größe''' &lt;br&gt; [[Datei:x.png|mini|y]] ist", 7))
    for name, data in (("a.xml", content.encode()), ("a.xml.bz2", bz2.compress(content.encode()))):
        (found,) = documents(read_content(tmp_path / name, data))
        assert found.text == "Größe (Maß)\n\nGröße\nist"
        assert found.locator == f"{tmp_path}/{name}#7"
        assert found.url == "https://de.wikipedia.org/wiki/Gr%C3%B6%C3%9Fe_(Ma%C3%9F)"
        assert (found.date, found.language) == ("2020-01-02T03:04:05Z", "de")
        assert found.metadata == {"format": "mediawiki", "title": "Größe (Maß)"}


def test_pages_that_are_no_articles(tmp_path: Path) -> None:
    content = dump(
        page("A", "x", 1, "<ns>1</ns>"),
        page("B", "x", 2, '<ns>0</ns><redirect title="C" />'),
        page("C", " #WEITERLEITUNG [[D]]", 3),
        page("D", "{{only|templates}}", 4),
        page("E", "x" * 200, 5),
        page("F", "words", 6),
    )
    found = read_content(tmp_path / "a.xml", content, max_document_bytes=100)
    assert [(one.locator[-1], one.reason) for one in faults(found)] == [
        ("1", "is no article (another namespace)"),
        ("2", "is a redirect"),
        ("3", "is a redirect"),
        ("4", "is empty"),
        ("5", "is longer than 100 bytes"),
    ]
    assert texts(found) == ["F\n\nwords"]


def test_of_several_revisions_the_last(tmp_path: Path) -> None:
    two = page("A", "old").replace("</page>", "<revision><text>new</text></revision></page>")
    (found,) = documents(read_content(tmp_path / "a.xml", dump(two)))
    assert (found.text, found.metadata["revisions"]) == ("A\n\nnew", 2)


BILLION = """<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]>
<mediawiki><page><title>&lol2;</title></page></mediawiki>"""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BILLION, "holds a document type, which dumps never do"),
        ("<rss><page/></rss>", "is no MediaWiki dump"),
        ("<mediawiki>" + "<a>" * 100_000, "is nested more deeply than dumps ever are"),
        ("<mediawiki><page a='" + "x" * (2 << 20), "holds a tag longer than dumps ever have"),
        ("", "is empty"),
        ("no xml", "is not sound XML from here on"),
    ],
)
def test_what_is_no_dump_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    assert reasons(read_content(tmp_path / "a.xml", content, format="mediawiki")) == [reason]


def test_what_stands_before_damage_is_kept(tmp_path: Path) -> None:
    whole = dump(*(page(f"T{number}", f"text {number}", number) for number in range(500)))
    found = read_content(tmp_path / "a.xml", whole[: len(whole) // 2])
    assert 240 < len(documents(found)) < 260
    assert reasons(found) == ["is not sound XML from here on"]
    packed = bz2.compress(whole.encode(), 1)
    found = read_content(tmp_path / "a.xml.bz2", packed + packed[: len(packed) // 2])
    assert len(documents(found)) == 500
    assert len(reasons(found)) >= 1


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("a [[b]]s [[c|d]] [[e (f)|]] [[:g:h]] [[:Category:x]]", "a bs d e g:h Category:x"),
        ("a [[File:x.png|thumb|b [[c]] {{d}}]] e [[Category:f]] [[fr:g]]", "a e"),
        ("[[Bild:x.jpg|mini|y]]a [[wikt:b|c]]", "a c"),
        ("a {{box|c={{d}}|[[e]]}} {{lang|grc|ἄνα}} f", "a ἄνα f"),
        (
            "{{convert|5|km|mi}} {{convert|2|to|3|m}} {{frac|1|2}} {{circa|1900}}",
            "5 km 2 to 3 m 1/2 c. 1900",
        ),
        ("a{{spaced ndash}}b {{nowrap|c d}} {{!}}", "a – b c d"),
        ("a<ref>b</ref> <ref name=c /> d<!-- e --> f<REF>g</Ref>", "a d f"),
        ("a\n{| class=x\n| b {{c}}\n|-\n{|\n| d\n|}\n|}\ne", "a\n\ne"),
        ("'''a''' ''b'' '''''c''''' it's", "a b c it's"),
        ("[http://a.org b c] [https://d.org] http://e.org", "b c http://e.org"),
        ("<math>x^2 {{y}}</math> <code>a[[0]] = ''</code>", "$x^2 {{y}}$ a[[0]] = ''"),
        ("<nowiki>[[a]] &amp; ''b''</nowiki>", "[[a]] & ''b''"),
        (
            "<syntaxhighlight lang=c>\nint a[[1]];\n  {{b}}\n</syntaxhighlight>",
            "int a[[1]];\n  {{b}}",
        ),
        ("* a\n** b\n# c\n: d\n; e", "- a\n- b\n- c\nd\ne"),
        ("== a ==\n=== b ===\nc\n== d ==\n=== e ===\n{{f}}\n", "a\n\nb\n\nc"),
        ("a ({{b}}; {{c}}) d ({{e}}, f) g ( )", "a d (f) g"),
        ("-{zh-hans:软件;zh-hant:軟體}- -{学}-", "软件 学"),
        ("a &nbsp;&lt;b&gt; c<br/>d __NOTOC__", "a <b> c\nd"),
        ("{{{1|a}}}b", "b"),
        ("[[a|b {{c]] d}} e ]] f", "b c d e f"),
        ("İ<ref>a</ref>b", "İb"),
    ],
)
def test_wikitext(wikitext: str, expected: str) -> None:
    assert plain_text(wikitext) == expected


def test_names_of_files_and_categories_in_other_languages() -> None:
    namespaces = namespaces_of({6: "Файл", 14: "Категория", 0: ""})
    assert plain_text("а [[Файл:б|в]] [[Категория:г]]", namespaces) == "а"


MARKS = [
    "{{",
    "}}",
    "[[",
    "]]",
    "{|",
    "|}",
    "|",
    "\n",
    "=",
    "'''",
    "<ref>",
    "</ref>",
    "<!--",
    "-->",
]
MARKS += [
    "<math>",
    "</math>",
    "[http://a",
    "]",
    " ",
    "*",
    "(",
    ")",
    "\x02",
    "0\x03",
    "-{",
    "}-",
    "a",
]


@given(st.lists(st.sampled_from(MARKS) | st.text(max_size=5)).map("".join))
def test_any_wikitext_becomes_text(wikitext: str) -> None:
    text = plain_text(wikitext)
    assert "\x02" not in text
    assert text == text.strip()


@given(st.text(st.characters(categories=("L", "N")), min_size=1))
def test_plain_words_stay(text: str) -> None:
    assert plain_text(text) == text


REPEATED = "{{ [[ {{a| [[a| <ref> <!-- [http://a ''' (( = {{{ [[a]] {{lang|a| <math> -{ < & ]] }}"


@pytest.mark.parametrize("unit", [*REPEATED.split(), "{|\n", "\n==", "  ", "= ", "( ,", "__A"])
def test_time_grows_with_length_only(unit: str) -> None:
    def seconds(count: int) -> float:
        began = time.process_time()
        plain_text(unit * count)
        return time.process_time() - began

    assert seconds(40_000) < 1
