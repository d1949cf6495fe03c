"""Tokens per word and per byte by language."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.tokens.fertility import UNSTATED, Fertility, FertilityCounter, count_words

TEXTS = st.text(alphabet=st.characters(exclude_categories=("Cs",)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" \n\t", 0),
        ("one two\nthree", 3),
        ("l'été à la puna", 4),
        ("हिन्दी में", 2),
        ("你好，世界。", 4),
        ("用 Python 写的 llama", 5),
        ("「引号」", 2),
        ("カタカナー", 5),
        ("ไทย", 3),
        ("𠀀𠀁", 2),
        ("한국어 문장", 2),
        ("你好 world！", 3),
    ],
)
def test_words(text: str, words: int) -> None:
    assert count_words(text) == words


@given(TEXTS)
def test_words_are_those_of_a_plain_walk(text: str) -> None:
    def unspaced(char: str) -> bool:
        code = ord(char)
        return any(
            low <= code <= high
            for low, high in (
                (0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF),
                (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F),
                (0x3100, 0x312F), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
                (0x20000, 0x3FFFF),
            )
        )  # fmt: skip

    if any(map(unspaced, text)):
        return
    assert count_words(text) == len(text.split())


def test_counts_by_language() -> None:
    counter = FertilityCounter()
    counter.add("en", "the llama eats", 6)
    counter.add("en", "again", 2)
    counter.add("zh", "羊驼", 4)
    counter.add(None, "été", 3)
    assert counter.counts == (
        Fertility("en", 2, 19, 4, 8),
        Fertility("zh", 1, 6, 2, 4),
        Fertility(UNSTATED, 1, 5, 1, 3),
    )
    assert counter.counts[0].per_word == 2.0
    assert counter.counts[1].per_byte == pytest.approx(4 / 6)
    assert counter.total == Fertility("all", 4, 30, 7, 15)
    assert Fertility("en", 1, 0, 0, 0).per_word == Fertility("en", 1, 0, 0, 0).per_byte == 0.0


def test_lines() -> None:
    counter = FertilityCounter()
    counter.add("en", "the llama eats", 6)
    assert counter.lines() == [
        "language  documents  text  tokens  tokens/word  tokens/byte",
        "en                1  14 B       6         2.00        0.429",
    ]
    counter.add("zh", "羊驼", 4)
    assert [line.split()[0] for line in counter.lines()] == ["language", "en", "zh", "all"]
    assert len({len(line) for line in counter.lines()}) == 1
    assert len(FertilityCounter().lines()) == 1


@given(st.lists(st.tuples(st.sampled_from(["en", "zh", None]), TEXTS, st.integers(0, 9))))
def test_in_parts_through_json_as_at_once(documents: list[tuple[str | None, str, int]]) -> None:
    whole, first, second = FertilityCounter(), FertilityCounter(), FertilityCounter()
    for place, document in enumerate(documents):
        whole.add(*document)
        (first if place % 2 else second).add(*document)
    first = FertilityCounter.from_dict(json.loads(json.dumps(first.to_dict())))
    first.merge(second)
    assert first.counts == whole.counts
    assert first.to_dict() == whole.to_dict()
    assert first.lines() == whole.lines()


def test_what_is_stored_is_checked() -> None:
    counter = FertilityCounter()
    counter.add("en", "a", 1)
    stored = counter.to_dict()
    assert stored == {
        "en": {"documents": 1, "bytes": 1, "words": 1, "tokens": 1}
        | {"tokens_per_word": 1.0, "tokens_per_byte": 1.0}
    }
    del stored["en"]["words"]
    with pytest.raises(InputError, match="the fertility of 'en' lacks 'words'"):
        FertilityCounter.from_dict(stored)
    with pytest.raises(InputError, match="tokens must be a whole number from 0, not -1"):
        FertilityCounter.from_dict({"en": {"documents": 1, "bytes": 1, "words": 1, "tokens": -1}})
