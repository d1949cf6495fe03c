"""Runs of words in common: the same as comparing all runs of words one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.flows.tokenize_contamination import Contamination, read_contamination, words_of
from puna.flows.tokenize_recipe import DecontaminateConfig

words = st.lists(st.sampled_from(["llama", "Llama,", "sea", "the", "大", "羊驼", "7"]), max_size=30)


@given(st.lists(words, max_size=5), words, st.integers(1, 5))
def test_the_same_as_comparing_all_runs(
    judged: list[list[str]], document: list[str], count: int
) -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        told = words_of(text)
        return {tuple(told[i : i + count]) for i in range(len(told) - count + 1)}

    texts = [" ".join(one) for one in judged]
    told = Contamination(texts, count)
    known = {run for text in texts for run in runs(text)}
    assert told.runs == len(known)
    assert told.short == sum(len(words_of(text)) < count for text in texts)
    assert told.found_in(" ".join(document)) == bool(known & runs(" ".join(document)))


def test_what_makes_no_difference() -> None:
    assert words_of("The LLAMA's ﬁrst “trip”, in 2024!") == [
        *("the", "llama", "s", "first", "trip", "in", "2024")
    ]
    assert words_of("大羊驼, ok ラマ") == ["大", "羊", "驼", "ok", "ラ", "マ"]
    told = Contamination(["大羊驼是南美洲的一种动物。"], 6)
    assert told.found_in("据说大羊驼是南美的。")
    assert not told.found_in("大羊 是南美洲的")


def test_the_texts_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\nwhere is the sea,over there\n")
    (tmp_path / "b.jsonl").write_text('{"choices": ["one two three", {"x": ["four five six"]}]}\n')
    notes: list[str] = []
    config = DecontaminateConfig((str(tmp_path / "a.csv"), str(tmp_path / "b.jsonl")), 3)
    told = read_contamination(config, notes)
    for text in ("here: is the SEA!", "one, two, three", "four five six"):
        assert told.found_in(text)
    assert not told.found_in("over there, one two")
    assert notes == ["1 texts to be judged on have fewer than 3 words, and are not looked for"]
    with pytest.raises(InputError, match=r"and 1 more: decontaminate: no text in them has 99"):
        read_contamination(DecontaminateConfig(config.files, 99), [])
