"""Rules over figures: each drops what it should, and all decide as datatrove's filters do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import datatrove_rules as datatrove
from corpus.rule_texts import batch_of, real_texts, texts
from puna.config import from_dict
from puna.corpus.fineweb import FineWeb
from puna.corpus.gopher import GopherQuality, GopherRepetition
from puna.corpus.schema import with_drops, with_stats
from puna.corpus.statistics import Statistics
from puna.corpus.step import identity
from puna.errors import InputError

Filter = GopherQuality | GopherRepetition | FineWeb

REFERENCES: tuple[tuple[Filter, Callable[[str], str | None]], ...] = (
    (GopherRepetition(per_language={}), datatrove.gopher_repetition),
    (GopherQuality(per_language={}), datatrove.gopher_quality),
    (FineWeb(per_language={}), datatrove.fineweb),
)
PROSE = (
    "The high grassland of the Andes lies above the valleys, and people have lived with their "
    "herds on it for thousands of years. In the dry season the animals find little grass, so that "
    "families move from one place to another. What they earn comes from wool, which is spun at "
    "home and sold to traders in town, or made into blankets that keep out the cold."
)


def drops(
    step: Filter, found: list[str], languages: list[str | None] | None = None
) -> list[object]:
    stated = Statistics().open()(batch_of(found, languages))
    return list(step.open()(stated).column("drop").to_pylist())


def assert_datatrove(found: list[str]) -> None:
    stated = Statistics(splitter="datatrove").open()(batch_of(found))
    for step, reference in REFERENCES:
        done = step.open()(stated).column("drop").to_pylist()
        for text, drop in zip(found, done, strict=True):
            reason = reference(text)
            assert drop == (reason and f"{step.step}.{reason}"), text[:200]


@settings(max_examples=150)
@given(st.lists(texts, min_size=1, max_size=6))
def test_decisions_are_datatroves(found: list[str]) -> None:
    # Most such texts are too short for prose: among prose the other rules have their turn.
    assert_datatrove(found + [f"{PROSE}\n{text}" for text in found])


@pytest.mark.data
def test_decisions_are_datatroves_on_real_text(shared_data: Path) -> None:
    found = real_texts(shared_data, 25)
    assert_datatrove(found)
    kept = [text for text in found if not any(reference(text) for _, reference in REFERENCES)]
    assert 0 < len(kept) < len(found)


@pytest.mark.parametrize(("threshold", "share"), [(0.3, 0.3), (0.1, 0.1), (0.67, 0.67)])
def test_what_lies_on_a_threshold_stays(threshold: float, share: float) -> None:
    figure = "duplicate_line_fraction"
    batch = with_stats(
        Statistics().open()(batch_of([PROSE] * 3)),
        {figure: np.array([share, np.nextafter(np.float32(share), 1), np.nan])},
    )
    step = GopherRepetition(max_duplicate_line_fraction=threshold)
    found = step.open()(batch).column("drop").to_pylist()
    assert found == [None, "gopher_repetition.duplicate_line_fraction", None]


@pytest.mark.parametrize(
    ("step", "text", "reason"),
    [
        (GopherQuality(), "Too short to be of use.", "few_words"),
        (GopherQuality(max_words=20), PROSE, "many_words"),
        (GopherQuality(), "a b to of I x y " * 10, "short_words"),
        (GopherQuality(), "unbelievably incomprehensible " * 30, "long_words"),
        (GopherQuality(), PROSE + " #tag" * 30, "hashes"),
        (GopherQuality(), PROSE + " and so on..." * 30, "ellipses"),
        (GopherQuality(), "- every item of the list and more\n" * 20, "bullets"),
        (GopherQuality(), "• every item of the list and more\n" * 20, "bullets"),
        (GopherQuality(), "the lines that go on and on with words…\n" * 8, "ellipsis_lines"),
        (GopherQuality(), "the 1999 2000 2001 and " * 20, "few_alphabetic"),
        (GopherQuality(), "Lorem ipsum dolor amet " * 20, "few_stop_words"),
        (GopherRepetition(), "", "empty"),
        (GopherRepetition(), "one\n\none\n\ntwo", "duplicate_paragraph_fraction"),
        (GopherRepetition(), "one\none\ntwo", "duplicate_line_fraction"),
        (GopherRepetition(), "grass land " * 30, "top_2_gram"),
        (GopherRepetition(), PROSE[:200] * 5, "duplicated_5_gram"),
        (FineWeb(), " \n ", "empty"),
        (FineWeb(), "Home\nAbout\nContact", "unpunctuated_lines"),
        (FineWeb(), "Yes.\nNo.\nPerhaps.", "short_lines"),
        (FineWeb(), f"{PROSE}\n{PROSE}", "repeated_lines"),
        (FineWeb(), "\n\n\n\n".join(["Forty characters are in this one line."] * 1), None),
        (GopherQuality(), PROSE, None),
        (GopherRepetition(), PROSE, None),
        (FineWeb(), PROSE, None),
    ],
)
def test_each_rule_drops_what_it_is_for(step: Filter, text: str, reason: str | None) -> None:
    assert drops(step, [text]) == [reason and f"{step.step}.{reason}"]


def test_chinese_is_measured_by_its_own_thresholds() -> None:
    text = (
        "安第斯山脉的高原位于山谷之上，人们在那里与牲畜一起生活了几千年。旱季的时候草很少，"
        "所以一家人要从一个地方搬到另一个地方。他们的收入来自羊毛，羊毛在家里纺成线，卖给城里的商人，"
        "或者织成可以抵御寒冷的毯子。"
    )
    assert drops(GopherQuality(), [text], ["zh"]) == [None]
    assert drops(GopherQuality(), [text], ["en"]) == ["gopher_quality.short_words"]
    assert drops(GopherRepetition(), [text], ["zh"]) == [None]
    assert drops(FineWeb(), [text], ["zh"]) == [None]


@pytest.mark.data
def test_chinese_laws_and_english_web_pages_are_mostly_kept(shared_data: Path) -> None:
    found = real_texts(shared_data, 40)
    pages, laws = found[:40], found[-40:]
    for texts_, language in ((pages, "en"), (laws, "zh")):
        reasons = drops(GopherQuality(), texts_, [language] * 40)
        assert sum(reason is None for reason in reasons) >= 28, reasons


def test_a_language_without_stop_words_is_not_measured_by_them() -> None:
    text = "Les hauts plateaux des Andes dominent les vallées où vivent depuis toujours " * 6
    step = GopherQuality()
    assert drops(step, [text], ["fr"]) == [None]
    assert drops(step, [text], ["en"]) == ["gopher_quality.few_stop_words"]


def test_rules_are_switched_off_by_null_and_rows_that_are_dropped_stay_so() -> None:
    step = from_dict(
        GopherQuality,
        {"step": "gopher_quality", "min_words": None, "per_language": {"de": {"max_words": 3}}},
    )
    assert drops(step, [PROSE[:120], PROSE], ["en", "de"]) == [None, "gopher_quality.many_words"]
    stated = with_drops(Statistics().open()(batch_of(["x"])), {0: "other.reason"})
    assert GopherQuality().open()(stated).column("drop").to_pylist() == ["other.reason"]


def test_misspelt_thresholds_are_refused() -> None:
    with pytest.raises(InputError, match="no threshold 'min_word'") as caught:
        GopherQuality(per_language={"de": {"min_word": 3}})
    assert caught.value.fix == "did you mean 'min_words'?"


def test_without_figures_the_missing_step_is_named() -> None:
    with pytest.raises(InputError, match="statistics"):
        FineWeb().open()(batch_of(["x"]))


def test_identities_tell_thresholds_apart() -> None:
    steps = [GopherQuality(), GopherQuality(min_words=49), GopherQuality(per_language={})]
    assert len({identity(step) for step in steps}) == 3
