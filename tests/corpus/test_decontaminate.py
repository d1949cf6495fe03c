"""Decontamination: what quotes an evaluation is found, whatever its spelling, dropped or cut."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.decontaminate import (
    DecontaminateConfig,
    cut_ngrams,
    evaluation_digest,
    ngram_hashes,
    read_evaluation,
)
from puna.corpus.dedup.signature_twin import shingles_of, words_of
from puna.corpus.schema import Found, content_hash, make_batch, stat, with_drops
from puna.corpus.step import identity
from puna.errors import InputError

QUESTION = "Which of the seven bridges of the old town did nobody cross twice on one day?"


def batch_of(texts: Sequence[str]) -> pa.RecordBatch:
    return make_batch("s", [Found(str(number), text) for number, text in enumerate(texts)])


def evaluation_in(place: Path, rows: Sequence[object], name: str = "quiz.jsonl") -> str:
    path = place / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_quotation_is_found_whatever_its_spelling(tmp_path: Path) -> None:
    files = [evaluation_in(tmp_path, [{"q": {"all": ["", QUESTION]}, "answer": "none"}])]
    shouted = QUESTION.upper().replace(" ", " - ")
    part = " ".join(QUESTION.split()[:12])
    texts = [f"He asked: {QUESTION} So.", "none", shouted, part + " else", "x " * 9_000 + QUESTION]
    batch = with_drops(batch_of([*texts, QUESTION]), {5: "c4.curly"})
    result = DecontaminateConfig(files=files).open()(batch)
    hit = "contaminated.quiz"
    assert result.column("drop").to_pylist() == [hit, None, hit, None, hit, "c4.curly"]
    metadata = result.column("metadata").to_pylist()
    assert json.loads(metadata[0]) == {"contaminated_by": ["quiz"]}
    assert metadata[1] is metadata[5] is None
    count = len(QUESTION.split()) - 12
    assert stat(result, "contaminated_ngrams").tolist() == [count, 0, count, 0, count, 0]


def test_a_quotation_is_cut_out(tmp_path: Path) -> None:
    files = [evaluation_in(tmp_path, [{"q": QUESTION}])]
    step = DecontaminateConfig(files=files, action="cut").open()
    texts = [f"Before. {QUESTION} After.", f"{QUESTION} {QUESTION}", "Nothing of it."]
    result = step(batch_of(texts))
    found = result.column("text").to_pylist()
    assert found == ["Before. ? After.", "? ?", "Nothing of it."]
    assert result.column("content_hash").to_pylist() == [content_hash(text) for text in found]
    assert result.column("drop").null_count == 3
    alone = step(batch_of([QUESTION.rstrip("?")]))
    assert alone.column("drop").to_pylist() == ["contaminated.quiz"]


def test_chinese_characters_are_words(tmp_path: Path) -> None:
    files = [evaluation_in(tmp_path, [{"q": "下列哪一座桥在一天之内没有人走过两次？"}])]
    texts = ["他问：下列哪一座桥，在一天之内没有人走过两次？", "下列哪一座桥很美"]
    reasons = DecontaminateConfig(files=files).open()(batch_of(texts)).column("drop").to_pylist()
    assert reasons == ["contaminated.quiz", None]


def test_files_are_told_apart_and_short_texts_counted(tmp_path: Path) -> None:
    other = QUESTION.replace("bridges", "rivers")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    files = [
        evaluation_in(tmp_path / "a", [{"q": QUESTION, "a": "short"}], "test.jsonl"),
        evaluation_in(tmp_path / "b", [{"q": other}], "test.jsonl"),
    ]
    (tmp_path / "poem.txt").write_text("one two three four five six\nseven eight nine ten\neleven "
                                       "twelve thirteen fourteen\n\nend\n")  # fmt: skip
    config = DecontaminateConfig(files=[*files, str(tmp_path / "poem.txt")])
    evaluation = read_evaluation(config)
    assert evaluation.files == ("a/test", "b/test", "poem")
    assert dict(evaluation.texts) == {"a/test": 1, "b/test": 1, "poem": 1}
    assert dict(evaluation.too_short) == {"a/test": 1, "poem": 1}
    numbers = "two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    texts = [QUESTION, f"{other} {other} {QUESTION}", numbers]
    result = config.open()(batch_of(texts))
    reasons = [f"contaminated.{name}" for name in ("a/test", "b/test", "poem")]
    assert result.column("drop").to_pylist() == reasons
    assert json.loads(result.column("metadata")[1].as_py())["contaminated_by"] == [
        "a/test", "b/test",
    ]  # fmt: skip


@given(
    st.lists(st.sampled_from("abc"), min_size=3, max_size=9).map(" ".join),
    st.lists(st.lists(st.sampled_from(["a", "b", "C", "c", "-", "字"])).map(" ".join), max_size=5),
)
def test_hits_are_those_of_plain_sets(
    tmp_path_factory: pytest.TempPathFactory, item: str, texts: list[str]
) -> None:
    def ngrams(text: str) -> set[int]:
        hashes = [word.hash for word in words_of(text)]
        return set(shingles_of(hashes, 3)) if len(hashes) >= 3 else set()

    place = tmp_path_factory.mktemp("evaluation")
    config = DecontaminateConfig(files=[evaluation_in(place, [{"q": item}])], ngram=3)
    result = config.open()(batch_of(texts))
    expected = [bool(ngrams(item) & ngrams(text)) for text in texts]
    assert [reason is not None for reason in result.column("drop").to_pylist()] == expected


@given(st.text(), st.integers(1, 4))
def test_native_ngrams_equal_the_twin_and_cut_what_is_known(text: str, ngram: int) -> None:
    hashes = [word.hash for word in words_of(text)]
    expected = shingles_of(hashes, ngram) if len(hashes) >= ngram else []
    assert ngram_hashes(text, ngram).tolist() == expected
    assert cut_ngrams(text, lambda _: False, ngram) == text
    left = cut_ngrams(text, lambda _: True, ngram)
    assert not words_of(left) if len(hashes) >= ngram else left == text


def test_many_hits_need_more_room(tmp_path: Path) -> None:
    files = [evaluation_in(tmp_path, [{"q": "la la la"}])]
    result = DecontaminateConfig(files=files, ngram=3).open()(batch_of(["la " * 70_000]))
    assert stat(result, "contaminated_ngrams").tolist() == [69_998]


def test_metadata_that_are_no_object_are_an_error_of_that_row(tmp_path: Path) -> None:
    files = [evaluation_in(tmp_path, [{"q": QUESTION}])]
    batch = batch_of([QUESTION, "fine"])
    place = batch.schema.get_field_index("metadata")
    batch = batch.set_column(place, "metadata", pa.array(["[1", None], pa.string()))
    errors = DecontaminateConfig(files=files).open()(batch).column("error").to_pylist()
    assert errors[0].startswith("its metadata are no JSON object")
    assert errors[1] is None


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no evaluation data are named"):
        DecontaminateConfig(files=[])
    with pytest.raises(InputError, match="does not exist"):
        DecontaminateConfig(files=[str(tmp_path / "none.jsonl")]).open()
    short = evaluation_in(tmp_path, [{"q": "too short"}])
    with pytest.raises(InputError, match="no text has 13 words"):
        DecontaminateConfig(files=[short]).open()
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"q": QUESTION}) + "\n{no json\n")
    with pytest.raises(InputError, match=r"bad\.jsonl:2.*\n?.*1 rows cannot be read"):
        DecontaminateConfig(files=[str(bad)]).open()


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    config = DecontaminateConfig(files=[evaluation_in(tmp_path, [{"q": QUESTION}])])
    before = evaluation_digest(config), identity(config)
    assert evaluation_digest(config) == before[0]
    evaluation_in(tmp_path, [{"q": QUESTION + " No."}])
    assert evaluation_digest(config) != before[0]
    assert identity(config) == before[1]


@pytest.mark.data
def test_real_questions_hidden_in_real_text(tmp_path: Path, shared_data: Path) -> None:
    config = DecontaminateConfig(files=[str(shared_data / "gsm8k")])
    evaluation = read_evaluation(config)
    assert sum(evaluation.texts.values()) > 10_000
    with gzip.open(shared_data / "sotu" / "sotu.jsonl.gz", "rt") as file:
        texts = [json.loads(line)["text"][:4_000] for line in file][:60]
    items = sorted((shared_data / "gsm8k").glob("*.jsonl.gz"))
    with gzip.open(items[0], "rt") as file:
        questions = [json.loads(line)["question"] for line in file][:30]
    rng = random.Random(0)
    planted = []
    for text, question in zip(texts, questions, strict=False):
        at = text.find(" ", rng.randrange(2_000))
        planted.append(f"{text[:at]} {question.upper()} {text[at:]}")
    batch = batch_of([*planted, *texts[30:]])
    reasons = config.open()(batch).column("drop").to_pylist()
    assert [reason is not None for reason in reasons] == [True] * 30 + [False] * 30
