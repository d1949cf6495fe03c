"""The step `pii`: what becomes of personal data."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.pii import KINDS, Kind, PiiConfig, Rules, change_personal, find_personal
from puna.corpus.pii.fakes import fake, is_reserved
from puna.corpus.schema import Found, content_hash, make_batch, stat, with_drops

phonenumbers = pytest.importorskip("phonenumbers")
pytest.importorskip("stdnum")

VALUES: dict[Kind, list[str]] = {
    "key": ["ghp_abcdefghijklmnopqrstuvwxyz0123456789", "-----BEGIN PRIVATE KEY-----\nabc=\n"],
    "email": ["john.doe@corp.co.uk", "jane [at] corp [dot] org"],
    "iban": ["GB82 WEST 1234 5698 7654 32", "de89370400440532013000"],
    "card": ["4532015112830366", "4532-0151-1283-0366"],
    "national_id": [
        "11010519491231002X",
        "536-90-4399",
        "X2482300W",
        "54362315K",
        "390.533.447-05",
        "RSSMRA85T10A562S",
        "131052-308T",
    ],
    "ip": ["8.8.8.8", "2a00:1450:4001:81b::200e"],
    "phone": ["+44 20 7946 1958", "(415) 927-1234", "13912345678"],
    "handle": ["@jane_doe"],
}


def run(config: PiiConfig, *texts: str) -> list[str]:
    batch = make_batch("s", [Found(str(n), text) for n, text in enumerate(texts)])
    done: list[str] = config.open()(batch).column("text").to_pylist()
    return done


def test_actions() -> None:
    text = "Write to john@corp.org or john@corp.org now."
    assert run(PiiConfig(action="mask"), text) == ["Write to [EMAIL] or [EMAIL] now."]
    assert run(PiiConfig(action="remove"), text) == ["Write to or now."]
    assert run(PiiConfig(action="keep"), text) == [text]
    (fake_text,) = run(PiiConfig(), text)
    match = re.fullmatch(r"Write to (\S+@example\.\w+) or (\S+) now\.", fake_text)
    assert match and match[1] == match[2]
    mixed = PiiConfig(action="mask", actions={"email": "remove"})
    assert run(mixed, "john@corp.org 8.8.8.8") == [" [IP]"]


def test_counts_hashes_and_rows_left_alone() -> None:
    texts = ["a@corp.org b@corp.org 8.8.8.8", "nothing", "c@corp.org"]
    batch = make_batch("s", [Found(str(n), text) for n, text in enumerate(texts)])
    done = PiiConfig(action="mask", kinds=("email", "ip")).open()(with_drops(batch, {2: "x.y"}))
    assert done.column("text").to_pylist() == ["[EMAIL] [EMAIL] [IP]", "nothing", "c@corp.org"]
    assert stat(done, "pii_email")[:2].tolist() == [2, 0]
    assert stat(done, "pii_ip")[:2].tolist() == [1, 0]
    assert np.isnan(stat(done, "pii_email")[2])
    hashes = [content_hash(text) for text in done.column("text").to_pylist()]
    assert done.column("content_hash").to_pylist() == hashes
    assert "pii_phone" not in [field.name for field in done.schema.field("stats").type]


def test_the_same_value_has_the_same_fake_in_a_document_only() -> None:
    text = "Call +1 (415) 927-1234 or +1 415 927 1234, or +1 415 927 1235."
    first, second = run(PiiConfig(), text, text)
    numbers = re.findall(r"\+1-\d{3}-555-01\d\d", first)
    assert len(numbers) == 3 and numbers[0] == numbers[1] != numbers[2]
    assert first != second  # documents cannot be linked by their fakes
    assert run(PiiConfig(), text, text) == [first, second]
    assert run(PiiConfig(seed=1), text)[0] != first


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k, vs in VALUES.items() for v in vs])
def test_values_are_found_and_their_fakes_are_not(kind: Kind, value: str) -> None:
    text = f"it is {value} ."
    assert [span.kind for span in find_personal(text, KINDS)] == [kind]
    for number in (0, 1, 2**64 - 1, 123456789012345678, 987654321987654321):
        instead = fake(kind, value, number)
        assert instead != value
        assert is_reserved(kind, instead)
        again = find_personal(f"call it, card or ssn: {instead} .", KINDS)
        assert again == [], instead


@given(
    st.sampled_from([(kind, value) for kind, values in VALUES.items() for value in values]),
    st.integers(min_value=0, max_value=2**64 - 1),
)
def test_fakes_are_never_personal(case: tuple[Kind, str], number: int) -> None:
    instead = fake(*case, number)
    assert find_personal(f"it is {instead} .", KINDS) == []
    if case[0] not in ("key", "national_id"):  # whose fakes have wrong check digits, or none
        found = find_personal(f"it is {instead} .", (case[0],), Rules(reserved=True))
        assert [span.kind for span in found] == [case[0]]


@given(st.lists(st.sampled_from([v for vs in VALUES.values() for v in vs]), max_size=6))
def test_a_second_pass_changes_nothing(values: list[str]) -> None:
    config = PiiConfig(kinds=KINDS)
    for text in (", so ".join(values), " ".join(values)):
        once = change_personal(text, find_personal(text, KINDS), config)
        assert find_personal(once, KINDS) == []


def test_of_an_address_with_a_password_the_host_stays() -> None:
    (text,) = run(PiiConfig(kinds=KINDS), "postgres://bob:hunter22@db.corp.org/x")
    assert re.fullmatch(r"postgres://user:EXAMPLE[A-Z2-7]{12}@db\.corp\.org/x", text)
    assert find_personal(text, KINDS) == []


def test_no_kinds_is_no_work() -> None:
    assert run(PiiConfig(kinds=()), "john@corp.org") == ["john@corp.org"]


def test_a_row_that_fails_is_put_aside_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: object) -> bool:
        raise RuntimeError("broken table")

    monkeypatch.setattr(phonenumbers, "is_valid_number", fail)
    batch = make_batch("s", [Found("1", "0171 234 56 78"), Found("2", "a@corp.org")])
    done = PiiConfig(action="mask").open()(batch)
    assert done.column("error").to_pylist() == ["pii: RuntimeError: broken table", None]
    assert done.column("text").to_pylist()[1] == "[EMAIL]"


def test_change_personal_without_spans_is_the_text() -> None:
    assert change_personal("a b", [], PiiConfig()) == "a b"


@pytest.mark.data
@pytest.mark.parametrize(
    ("entity", "kind", "recall"),
    [
        ("EMAIL_ADDRESS", "email", 1.0),
        ("IP_ADDRESS", "ip", 1.0),
        ("CREDIT_CARD", "card", 0.98),
        ("IBAN_CODE", "iban", 1.0),
        ("US_SSN", "national_id", 1.0),
        ("PHONE_NUMBER", "phone", 0.95),
    ],
)
def test_recall_on_annotated_sentences(
    shared_data: Path, entity: str, kind: Kind, recall: float
) -> None:
    with gzip.open(shared_data / "presidio-pii/synth_dataset_v2.json.gz", "rt") as file:
        rows = json.load(file)
    hits = total = 0
    for row in rows:
        wanted = [span for span in row["spans"] if span["entity_type"] == entity]
        if wanted:
            spans = find_personal(row["full_text"], (kind,))
            total += len(wanted)
            hits += sum(
                any(s.start < w["end_position"] and w["start_position"] < s.stop for s in spans)
                for w in wanted
            )
    assert hits / total >= recall
