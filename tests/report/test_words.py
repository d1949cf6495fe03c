"""Numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.report.words import (
    count,
    decimals_for,
    duration,
    energy,
    finite,
    mass,
    number,
    percent,
    plural,
    probability,
    visible,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0, "0"),
        (1234567, "1,234,567"),
        (-3.14159, "−3.142"),
        (0.00002, "2e−5"),
        (9.99e-5, "9.99e−5"),
        (9.9965e-5, "0.0001"),  # as a learning rate just below 1e-4
        (1e20, "1e20"),
        (float("nan"), "not a number"),
        (float("inf"), "infinite"),
        ("words", "words"),
        (2.0, "2"),
    ],
)
def test_numbers(value, expected):
    assert number(value) == expected


def test_a_sign_stands_where_it_is_asked_for():
    assert number(3.0, 1, signed=True) == "+3.0"
    assert number(-0.04, 1, signed=True) == "0.0"
    assert number(-0.06, 1, signed=True) == "−0.1"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.42, "0.42 s"),
        (12.34, "12.3 s"),
        (59.99, "1 min 00 s"),
        (252, "4 min 12 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (270_000, "3 d 3 h"),
        (None, "–"),
    ],
)
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def test_energies_and_masses_change_their_unit():
    assert [energy(j) for j in (850, 4464, 1.23e7)] == ["850 J", "1.24 Wh", "3.42 kWh"]
    assert [mass(g) for g in (0.012, 3.4, 1200, 5e6)] == ["12.0 mg", "3.40 g", "1.20 kg", "5.00 t"]
    assert energy(96.1, like=8950) == "0.03 Wh"
    assert energy(None, like=1) == "–"


def test_counts_shares_and_tests():
    assert [count(n) for n in (812, 976_896, 1_230_000, 134_515_008, 8.03e9)] == [
        "812", "976,896", "1.23 M", "135 M", "8.03 G",
    ]  # fmt: skip
    assert [percent(s) for s in (0.5, 0.0073, 0)] == ["50.0 %", "0.73 %", "0.0 %"]
    assert [probability(p) for p in (0.0, 0.021, 0.43, None)] == [
        "p < 0.001", "p = 0.021", "p = 0.43", "p not known",
    ]  # fmt: skip
    assert (plural(1, "step"), plural(2, "entry", "entries")) == ("1 step", "2 entries")


def test_digits_follow_the_uncertainty():
    assert [decimals_for(w) for w in (28.0, 2.8, 0.23, 0.004, None)] == [0, 1, 2, 4, 2]


@given(st.floats() | st.integers() | st.booleans() | st.none() | st.text())
def test_every_value_has_a_text(value):
    for shown in (number, percent, duration, energy, mass, count, probability):
        assert isinstance(shown(value), str)
    known = finite(value)
    assert known is None or isinstance(known, float)


@given(st.text(st.characters(codec=None)))
def test_visible_text_can_be_written_and_keeps_what_can_be_shown(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert visible(shown) == shown
    assert len(shown) <= len(text)
    kept = [c for c in text if c.isprintable()]
    assert [c for c in shown if c in kept][: len(kept)] == kept or "\ufffd" in shown
    assert visible("a\x00\r\nb\x1b") == "a␀\nb␛"
