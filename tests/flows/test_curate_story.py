"""The story of a document: everything that is known of it, safe for a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.flows.curate_story import EXCERPT, LISTED, story_lines
from puna.flows.curate_words import (
    figure_words,
    language_words,
    personal_words,
    reason_words,
)


def row() -> dict[str, Any]:
    return {
        "id": bytes(range(16)),
        "root_id": bytes(range(16)),
        "content_hash": b"\xab" * 16,
        "text": "The alpaca is small.\nIt lives on the puna.",
        "source": "web",
        "locator": "crawl.warc.gz@1200",
        "url": "https://example.com/alpaca",
        "date": "2024-05-01",
        "license": "CC-BY-4.0",
        "language": "en",
        "stats": {
            "raw_bytes": 2048.0,
            "words": 9.0,
            "language_score": 0.9712,
            "unknown": None,
            "pii_email": 0,
        },
        "drop": None,
        "error": None,
        "metadata": '{"title": "Alpacas", "http_charset": "utf-8"}',
        "steps": [
            {"step": "extract", "characters_before": 300, "characters_after": 43},
            {"step": "statistics"},
            {"step": "pii", "figures": {"email": 1}, "note": "masked"},
        ],
        "cluster": {"size": 3, "kept": bytes(range(16)), "similarity": 0.8125, "members": [b"\1"]},
        "before": "Home | About\nThe alpaca is small.\nIt lives on the puna.\nShare this!",
    }


def test_a_document_tells_its_whole_story() -> None:
    said = "\n".join(story_lines(row()))
    for expected in (
        "document      000102030405060708090a0b0c0d0e0f",
        "source        web",
        "locator       crawl.warc.gz@1200",
        "url           https://example.com/alpaca",
        "licence       CC-BY-4.0",
        "language      en, English",
        "fate          kept",
        "raw bytes       2 KiB",
        "language score  0.9712",
        "  0: e-mail address, count",
        " 1  extraction of the main text: cut out 257 characters, 43 are left",
        " 2  statistics: nothing to change",
        " 3  personal data: email 1; masked",
        "cluster       3 near-duplicates, this one was kept, similarity 0.812",
        "metadata      title: Alpacas",
        "text before (67 characters)",
        "text after (42 characters)",
        "  - Home | About",
        "  - Share this!",
    ):
        assert expected in said
    assert "unknown" not in said, "a figure that is not known"
    assert "made from" not in said, "a document of its own"


def test_a_drop_is_told_in_words() -> None:
    said = story_lines(row() | {"drop": "gopher_quality.few_words"})
    assert "fate          dropped: Gopher quality: few words (gopher_quality.few_words)" in said
    said = story_lines(row() | {"error": "clean: bad", "drop": "c4.policy"})
    assert "fate          in quarantine: clean: bad" in said
    assert "made from     ff" in "\n".join(story_lines(row() | {"root_id": b"\xff" * 16}))


def test_what_a_text_holds_cannot_steer_a_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07 a\rb \x9b31m"
    lines = story_lines(row() | {"text": hostile, "before": hostile * 2, "locator": hostile})
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for line in lines for c in line)
    assert "␛[2J" in "\n".join(lines)


def test_long_texts_are_cut_and_long_changes_counted() -> None:
    before = "\n".join(f"line {n} of the old text" for n in range(5000))
    lines = story_lines({"text": "new " * 9000, "before": before})
    assert "lines that changed (5,000 before, 1 after)" in lines
    assert f"  and {5001 - LISTED:,} more" in lines
    assert len("\n".join(lines)) < 4 * EXCERPT + 3000


@pytest.mark.parametrize("part", row())
@pytest.mark.parametrize("value", [None, {}, [], float("nan"), "text", 7, [[]], {"a": {}}])
def test_whatever_is_missing_the_story_stands(part: str, value: Any) -> None:
    assert story_lines(row() | {part: value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*row(), "size", "kept", "members"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(list(row())), JSON, max_size=6))
def test_nothing_that_a_row_holds_breaks_the_story(changes: dict[str, Any]) -> None:
    lines = story_lines(row() | changes)
    assert all(isinstance(line, str) and "\n" not in line for line in lines)


@pytest.mark.parametrize("metadata", ["{", "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900, "7"])
def test_metadata_that_cannot_be_read_is_said_to_be(metadata: str) -> None:
    assert story_lines({"metadata": metadata, "text": "a"})


def test_codes_in_words() -> None:
    assert reason_words("language.other").endswith("none of those asked for")
    assert reason_words("my_step.odd_rule") == "my step: odd rule"
    assert reason_words("contaminated.gsm8k_test").endswith("words with gsm8k_test")
    assert reason_words("clean: ValueError: a. b") == "clean: ValueError: a. b"
    assert figure_words("pii_email") == "e-mail address, count"
    assert figure_words("mean_word_length") == "mean word length"
    assert reason_words("exact_duplicate").startswith("exact duplicate of")
    assert language_words("zh") == "zh, Chinese"
    assert language_words("xx") == "xx"
    assert language_words(None) == language_words("None") == "not known"
    assert personal_words("pii_email") == "e-mail address"
