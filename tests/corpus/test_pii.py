"""Personal data in texts: what is found by kind, and what is not."""

from __future__ import annotations

import time

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.corpus.pii import DETECTORS, KINDS, Kind, Rules, find_personal
from puna.corpus.pii.keys import entropy_bits
from puna.corpus.pii.numbers import iban_holds, luhn_holds, network_knows

phonenumbers = pytest.importorskip("phonenumbers")
stdnum = pytest.importorskip("stdnum")

SNIPPETS = [
    "john.doe@corp.co.uk",
    "jane [at] corp [dot] org",
    "8.8.8.8",
    "2a00:1450:4001:81b::200e",
    "+44 20 7946 1958",
    "call 555-2368",
    "(415) 927-1234",
    "4532015112830366",
    "GB82 WEST 1234 5698 7654 32",
    "11010519491231002X",
    "536-90-4399",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "@jane_doe",
    "-----BEGIN PRIVATE KEY-----",
    "电话：13912345678",
]
texts = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(SNIPPETS)), max_size=8).map("".join)


def found(text: str, kinds: tuple[Kind, ...] = KINDS, rules: Rules | None = None) -> list[tuple]:
    return [(span.kind, text[span.start : span.stop]) for span in find_personal(text, kinds, rules)]


def values(text: str, kind: Kind, rules: Rules | None = None) -> list[str]:
    return [value for _, value in found(text, (kind,), rules)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mail me at john.doe+x@mail.corp.co.uk.", ["john.doe+x@mail.corp.co.uk"]),
        ("'x@y.org', <a@b.cn>; mailto:q@r.io", ["x@y.org", "a@b.cn", "q@r.io"]),
        ("请发邮件到li@qq.com谢谢", ["li@qq.com"]),
        ("jane [at] corp [dot] org", ["jane [at] corp [dot] org"]),
        ("icon@2x.png left-pad@1.3.0.tgz git@github.com:o/r", []),
        ("me@example.com you@host.test a@localhost", []),
        ("@ @x x@ x@y a@@b.org", []),
    ],
)
def test_emails(text: str, wanted: list[str]) -> None:
    assert values(text, "email") == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "from 8.8.8.8, then [2a00:1450:4001:81b::200e]:80",
            ["8.8.8.8", "2a00:1450:4001:81b::200e"],
        ),
        ("192.168.0.1 10.1.2.3 127.0.0.1 fe80::1 ::1", []),
        ("version 5.6.7.8, v1.2.3.4, >= 3.4.5.6, section 9.8.7.6", []),
        ("192.0.2.1 2001:db8::1:1 300.1.1.1 1.2.3 1.2.3.4.5", []),
        ("std::vector a::b 2004:: 12:30:45 00:1b:44:11:3a:b7", []),
    ],
)
def test_ip_addresses(text: str, wanted: list[str]) -> None:
    assert values(text, "ip") == wanted


def test_private_and_reserved_addresses_on_demand() -> None:
    text = "192.168.0.1 192.0.2.1 fe80::1"
    rules = Rules(private_addresses=True, reserved=True)
    assert values(text, "ip", rules) == ["192.168.0.1", "192.0.2.1", "fe80::1"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("reach +49 30 901820 or 001-518-640-0854", ["+49 30 901820", "001-518-640-0854"]),
        ("(415) 927-1234 x55, 930.167.3943", ["(415) 927-1234 x55", "930.167.3943"]),
        ("手机13912345678，电话：010-62345678。", ["13912345678", "010-62345678"]),
        ("Please call 467 3395 or text 99 668472", ["467 3395", "99 668472"]),
        ("28-64-66-98 office", ["28-64-66-98"]),
        ("call on 2004-05-06 10:30; mobile since 2001-2003; tel 3.1415926", []),
        ("in 1,234,567 cases; 12 345 678 people; 100 200 300", []),
        ("ISBN 978-3-16-148410-0, order 12345678, 536-90-4399, 8.8.8.8", []),
        ("1 2 3 4 5 6 7 8 9 10 11 12", []),
        ("202-555-0147 and +1-303-555-0100", []),
    ],
)
def test_phones(text: str, wanted: list[str]) -> None:
    assert values(text, "phone") == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("4532015112830366 and 4532-0151-1283-0366", ["4532015112830366", "4532-0151-1283-0366"]),
        ("amex 3714 496353 98432 is off by one", []),
        ("3782 822463 10006 371449635398430", []),
        ("my card 180016070420458", ["180016070420458"]),
        ("number 180016070420458", []),
        ("4111 1111 1111 1111 is for tests", []),
        ("0000000000000000 1234567812345670", []),
    ],
)
def test_cards(text: str, wanted: list[str]) -> None:
    assert values(text, "card") == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("GB82 WEST 1234 5698 7654 32 to other banks", ["GB82 WEST 1234 5698 7654 32"]),
        ("iban gb82west12345698765432.", ["gb82west12345698765432"]),
        ("DE89370400440532013001 GB82WEST1234569876543 XX82WEST12345698765432", []),
    ],
)
def test_ibans(text: str, wanted: list[str]) -> None:
    assert values(text, "iban") == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("身份证号11010519491231002X。", ["11010519491231002X"]),
        ("110105194912310021 has a wrong check digit", []),
        ("SSN: 536-90-4399; 000-12-3456 666-12-3456 900-12-3456", ["536-90-4399"]),
        ("536904399 alone", []),
        ("social security number 536904399", ["536904399"]),
        ("NIE X2482300W, DNI 54362315K, 54362315Z", ["X2482300W", "54362315K"]),
        ("CPF 390.533.447-05 390.533.447-06", ["390.533.447-05"]),
        ("RSSMRA85T10A562S", ["RSSMRA85T10A562S"]),
        ("131052-308T", ["131052-308T"]),
    ],
)
def test_national_ids(text: str, wanted: list[str]) -> None:
    assert values(text, "national_id") == wanted


SECRET = "a8F3kd93KDk2lsPq93kdZ0"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("AKIAIOSFODNN7ABCDEFG", ["AKIAIOSFODNN7ABCDEFG"]),
        ("AKIAIOSFODNN7EXAMPLE", []),
        (f"API_KEY = '{SECRET}'", [SECRET]),
        (f'{{"password": "{SECRET}"}}', [SECRET]),
        ("token: aaaaaaaaaaaaaaaaaaaaaaa1", []),
        ("secret = get_secret_from_environment", []),
        ("postgres://bob:hunter22@db.corp.org/x", ["bob:hunter22"]),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM", ["eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM"]),
        ("ghp_short xoxb-1 sk-learn", []),
    ],
)
def test_keys(text: str, wanted: list[str]) -> None:
    assert values(text, "key") == wanted


@pytest.mark.parametrize("end", ["\n-----END RSA PRIVATE KEY-----", ""])
def test_key_blocks(end: str) -> None:
    block = f"-----BEGIN RSA PRIVATE KEY-----\n{'MIIEpAIBAAKCAQEA' * 4}\nabc=={end}"
    assert values(f"key:\n{block}\n\nWhat follows.", "key") == [block]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("thanks @jane_doe and @user@mastodon.social!", ["@jane_doe", "@user@mastodon.social"]),
        ("https://twitter.com/jack x.com/@jill", ["jack", "jill"]),
        ("转发 @张三丰: 好", ["@张三丰"]),
        ("@property\ndef f(self): ...\n@app.route('/')\n/** @param x */", []),
        ("john@corp.org", []),
    ],
)
def test_handles(text: str, wanted: list[str]) -> None:
    assert values(text, "handle") == wanted


def test_numbers_that_stand_together_are_told_apart() -> None:
    iban, phone = "GB82 WEST 1234 5698 7654 32", "(415) 927-1234"
    assert found(f"{iban} {phone}") == [("iban", iban), ("phone", phone)]


def test_the_order_of_the_detectors_is_that_of_the_kinds() -> None:
    assert tuple(detector.kind for detector in DETECTORS) == KINDS


def test_where_kinds_overlap_the_surer_has_it() -> None:
    assert found("card 4532-0151-1283-0366") == [("card", "4532-0151-1283-0366")]
    assert found("postgres://bob:pw123@db.corp.org") == [("key", "bob:pw123")]
    assert found("call 536-90-4399") == [("national_id", "536-90-4399")]


@given(st.text(alphabet="0123456789", min_size=1, max_size=25))
def test_luhn_is_that_of_stdnum(digits: str) -> None:
    from stdnum import luhn

    assert luhn_holds(digits) == luhn.is_valid(digits)


@settings(max_examples=20)
@given(
    st.sampled_from(["GB", "DE", "FR", "NO", "MT"]),
    st.text(alphabet="0123456789ABCZ", min_size=11, max_size=30),
)
def test_iban_is_that_of_stdnum(country: str, rest: str) -> None:
    from stdnum import iban

    for check in (rest[:2], *(f"{n:02}" for n in range(2, 99))):
        value = country + check + rest[2:]
        if check.isdigit() and iban.is_valid(value, check_country=False):
            assert iban_holds(value)


def test_networks() -> None:
    assert network_knows("4532015112830366") and network_knows("378282246310005")
    assert network_knows("180016070420458") is False
    assert network_knows("1234567812345670") is None


def test_entropy() -> None:
    assert entropy_bits("aaaa") == 0
    assert entropy_bits("abcd") == 2


@given(texts)
def test_spans_are_in_order_and_apart(text: str) -> None:
    place = 0
    for span in find_personal(text, KINDS):
        assert place <= span.start < span.stop <= len(text)
        place = span.stop


@given(texts)
def test_no_finder_finds_what_its_filter_does_not(text: str) -> None:
    rules = Rules(private_addresses=True, reserved=True)
    for detector in DETECTORS:
        if list(detector.find(text, rules)):
            passed = pc.match_substring_regex(pa.array([text]), pattern=detector.prefilter)
            assert passed[0].as_py(), detector.kind


HOSTILE = (
    "-----BEGIN PRIVATE KEY-----|a|a.|1|1 |1-|1.|:|a:|@|a@|A1 |eyJ|+1 (|(|=|://a:|token=|call "
    "|[at] |12 34 |@a.|sk-"
)


@pytest.mark.parametrize("piece", HOSTILE.split("|"))
def test_hostile_text_takes_linear_time(piece: str) -> None:
    began = time.process_time()
    find_personal(piece * (100_000 // len(piece)), KINDS)
    assert time.process_time() - began < 5
