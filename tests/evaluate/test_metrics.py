"""Figures of translation are sacrebleu's, and the others what they are defined to be."""

from __future__ import annotations

import math
import os
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER

from evaluate.sentences import corrupted, references
from puna.errors import InputError, MissingPackageError
from puna.evaluate import MEASURES, TextMetric, bleu_tokenizer, measure, summarise

NAMES = ("bleu", "chrf", "ter")
ORACLES = {"bleu": BLEU, "chrf": CHRF, "ter": TER}
HARD = st.text(st.sampled_from("ab ,.\n"), max_size=12)


def figure(name: str, outputs: list[str], wanted: list[str], **choices: Any) -> float:
    rows = TextMetric(name, **choices).rows(outputs, wanted)
    return float(measure(name).score(rows.sum(0, keepdims=True))[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_corpus_figures_are_those_of_sacrebleu(name: str, share: float) -> None:
    wanted = references(60)
    outputs = corrupted(wanted, share)
    expected = ORACLES[name]().corpus_score(outputs, [wanted]).score
    assert figure(name, outputs, wanted) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(HARD, HARD), min_size=1, max_size=5), st.sampled_from(NAMES))
def test_also_of_texts_that_are_short_empty_or_alike(
    pairs: list[tuple[str, str]], name: str
) -> None:
    outputs, wanted = [a for a, _ in pairs], [b for _, b in pairs]
    expected = ORACLES[name]().corpus_score(outputs, [wanted]).score
    assert figure(name, outputs, wanted) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_interval_and_signature_are_those_of_sacrebleu(name: str) -> None:
    wanted = references(80)
    outputs = corrupted(wanted, 0.4)
    oracle = ORACLES[name]()
    with mock.patch.dict(os.environ, {"SACREBLEU_SEED": "12345"}):
        expected = oracle.corpus_score(outputs, [wanted], n_bootstrap=200)
    metric = TextMetric(name)
    rows = metric.rows(outputs, wanted)
    signature = metric.signature(resamples=200, seed=12345)
    found = summarise(name, rows, resamples=200, seed=12345, signature=signature)
    assert signature == oracle.get_signature().format()
    assert (found.high - found.low) / 2 == pytest.approx(expected._ci, abs=1e-4)  # theirs: float32
    assert found.low < found.value < found.high
    assert (found.n, found.higher_is_better) == (80, name != "ter")


def test_chinese_is_cut_into_characters() -> None:
    wanted, outputs = ["我们保存所有文件。", "打开文件夹"], ["我们保存文件。", "打开一个文件夹"]
    for code in ("zh", "zh_CN", "zh-Hant-TW", "zho_Hans"):
        expected = BLEU(tokenize="zh").corpus_score(outputs, [wanted]).score
        assert figure("bleu", outputs, wanted, language=code) == pytest.approx(expected)
    edits = TER(normalized=True, asian_support=True).corpus_score(outputs, [wanted]).score
    assert figure("ter", outputs, wanted, language="zh") == pytest.approx(edits)
    assert edits < 50 < TER().corpus_score(outputs, [wanted]).score
    metric = TextMetric("bleu", language="zh_CN")
    metric.rows(outputs, wanted)
    assert "|tok:zh|" in (metric.signature(resamples=100, seed=1) or "")


def test_tokenizer_goes_by_the_language() -> None:
    found = [bleu_tokenizer(code) for code in ("ja_JP", "ko", "th", "de-AT", "EN", None)]
    assert found == ["ja-mecab", "ko-mecab", "char", "13a", "13a", "13a"]


def test_a_missing_package_is_named() -> None:
    with mock.patch.dict("sys.modules", {"sacrebleu.metrics": None}):
        with pytest.raises(MissingPackageError, match=r"'bleu' needs the package 'sacrebleu'"):
            TextMetric("bleu")
        assert TextMetric("exact_match").rows(["a"], ["a"]).tolist() == [[1.0, 1.0]]
    with (
        mock.patch.dict("sys.modules", {"MeCab": None, "mecab_ko": None}),
        pytest.raises(InputError, match=r"'ja-mecab' needs[\s\S]*sacrebleu\[ja\][\s\S]*char"),
    ):
        TextMetric("bleu", language="ja")
    assert TextMetric("bleu", language="ja", tokenizer="char").rows(["あ"], ["あ"]).shape == (1, 10)


def test_the_others_are_what_they_are_defined_to_be() -> None:
    def score(name: str, *rows: tuple[float, float]) -> float:
        return float(measure(name).score(np.array(rows, dtype=float).sum(0, keepdims=True))[0])

    assert figure("exact_match", ["a", "b", "C"], ["a", "b", "c"]) == pytest.approx(2 / 3)
    assert score("token_accuracy", (3, 4), (1, 4)) == 0.5
    assert score("perplexity", (math.log(8), 2), (math.log(2), 2)) == pytest.approx(2)
    assert score("bits_per_byte", (math.log(2) * 12, 4), (0, 2)) == pytest.approx(2)
    units = {known.name: known.unit for known in MEASURES}
    assert units["ter"] == "%" and units["exact_match"] == "share" and units["bleu"] == "points"


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(InputError, match=r"metric 'blue' is not known[\s\S]*known: bleu, chrf"):
        measure("blue")
    with pytest.raises(InputError, match="'perplexity' does not compare texts"):
        TextMetric("perplexity")
    with pytest.raises(InputError, match="2 outputs for 1 references"):
        TextMetric("bleu").rows(["a", "b"], ["a"])
