"""Words, signatures and sketches: native code against its twin, and both against plain counting."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from puna.corpus.dedup import NearConfig, signature_twin, signatures
from puna.corpus.dedup.signing import band_keys, kernels, permutations, sign_texts
from puna.corpus.dedup.words import folded, text_buffers, word_table
from puna.corpus.schema import Found, make_batch
from puna.errors import InputError

SMALL = NearConfig(ngram=3, bands=3, rows=5, sketch=16)
UNICODE = st.characters(exclude_categories=("Cs",))
# What is hard: expansions, marks, unseen characters, scripts without spaces, all UTF-8 lengths.
HARD = st.sampled_from(
    "aA bé\u0301ßİıſ½㍿ﷺﬁ漢字かなガ゙ไทย\u200b\u00ad\ufe0f'’_-\n\t　Ａ1²𝔸😀\U0010ffff\x00"
)
TEXTS = st.lists(st.one_of(st.text(UNICODE), st.text(HARD, max_size=60)), max_size=5)


def batch_of(texts: Sequence[str]) -> pa.RecordBatch:
    return make_batch("s", [Found(str(number), text) for number, text in enumerate(texts)])


def shingles(text: str, ngram: int) -> list[int]:
    return signature_twin.shingles_of([w.hash for w in signature_twin.words_of(text)], ngram)


def check_twin(batch: pa.RecordBatch, config: NearConfig) -> None:
    signed = sign_texts(*text_buffers(batch), config)
    drawn = permutations(config.bands * config.rows, config.seed)
    factors = list(zip(*drawn.tolist(), strict=True))
    for row, text in enumerate(batch.column("text").to_pylist()):
        made = shingles(text, config.ngram)
        assert signed.signatures[row].tolist() == signature_twin.signature_of(made, factors)
        own = signed.sketches[signed.starts[row] : signed.starts[row + 1]].tolist()
        assert own == signature_twin.sketch_of(made, config.sketch)


@given(TEXTS)
@example(["½" * 30, "a", "", "\u0301", "ﷺ" * 9])
def test_native_code_equals_its_twin_on_any_text(texts: list[str]) -> None:
    check_twin(batch_of(texts), SMALL)


@pytest.mark.parametrize(
    "text",
    [
        " ".join(map(str, range(9_000))),  # over the ends of blocks
        "½" * 5_000,  # words that are open at the end of a block, and grow from few bytes
        "㍿" * 3_000,
        "x" * 20_000 + " y",
        "la " * 9_000,
        "漢字" * 4_096,
    ],
)
def test_long_texts_equal_the_twin(text: str) -> None:
    check_twin(batch_of([text, "end"]), SMALL)


def test_a_slice_of_a_batch_is_read_where_it_lies() -> None:
    batch = batch_of([f"word{i} and some more words" for i in range(9)])
    part = batch.slice(4, 3)
    assert (signatures(part, SMALL) == signatures(batch, SMALL)[4:7]).all()


def test_bytes_that_are_no_utf8_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, 20_000).astype(np.uint8)
    data[-1] = 0xF0  # a character that is cut off
    offsets = np.array([0, 1, 2, 9_999, 20_000], np.int64)
    data.flags.writeable = offsets.flags.writeable = False  # as Arrow's: another one would compile
    assert sign_texts(offsets, data, SMALL).signatures.shape == (4, 15)


@given(st.lists(st.text(UNICODE, max_size=8), max_size=8))
def test_what_makes_no_difference_makes_none(words: list[str]) -> None:
    def hashes(text: str) -> list[int]:
        return [word.hash for word in signature_twin.words_of(text)]

    text = " ".join(words)
    assert hashes("  \n".join(words)) == hashes(text)
    assert hashes("-, ".join(words)) == hashes(text)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Straße", "STRASSE"),
        ("café", "cafe\u0301"),
        ("café", "CAFE"),
        ("ＡＢＣ　１２", "abc 12"),
        ("ﬁne", "fine"),
        ("soft\u00adhyphen", "softhyphen"),
        ("don’t", "don't"),
        ("漢字，かな。", "漢字かな"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ],
)
def test_spellings_of_the_same(left: str, right: str) -> None:
    words = [[word.hash for word in signature_twin.words_of(one)] for one in (left, right)]
    assert words[0] == words[1]


def test_words_and_where_they_stand() -> None:
    def cut(text: str) -> list[str]:
        return [text[word.start : word.stop] for word in signature_twin.words_of(text)]

    assert cut("Hello, World_2 x-y!") == ["Hello", "World", "2", "x", "y"]
    assert cut("我们like漢字。") == ["我", "们", "like", "漢", "字"]
    assert cut("… 😀 --") == []
    assert folded("é") == "e"
    assert folded("が") == "が"  # a voiced sound is another letter


def test_the_table_agrees_with_the_rule_on_every_character() -> None:
    codes = [*range(0x3000), *range(0xF900, 0x11000), *range(0x2F7F0, 0x2FA30), 0x10FFFF]
    texts = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    batch = batch_of(texts)
    offsets, data = text_buffers(batch)
    found = np.empty(len(texts), np.uint64)
    seeds = np.full(len(texts), 7, np.uint64)
    kernels().hash_sequences(data, offsets, tuple(word_table()), seeds, found)
    for text, value in zip(texts, found.tolist(), strict=True):
        words = [word.hash for word in signature_twin.words_of(text)]
        assert value == signature_twin.sequence_of(words, 7), hex(ord(text))


def test_agreement_of_signatures_estimates_the_similarity() -> None:
    rng = random.Random(3)
    words = [str(rng.random()) for _ in range(900)]
    errors = []
    for shared in (100, 300, 500, 700, 850):
        left, right = words[:shared] + words[850:], words[:850]
        config = NearConfig(bands=64, rows=8)
        found = signatures(batch_of([" ".join(left), " ".join(right)]), config)
        a, b = (set(shingles(" ".join(one), 5)) for one in (left, right))
        true = len(a & b) / len(a | b)
        error = (found[0] == found[1]).mean() - true
        errors.append(error / math.sqrt(max(true * (1 - true), 0.01) / 512))
    assert max(map(abs, errors)) < 4


@given(st.sets(st.integers(0, 60), max_size=50), st.sets(st.integers(0, 60), max_size=50))
def test_similarity_of_sketches_equals_the_twin(left: set[int], right: set[int]) -> None:
    kernels()
    from puna.corpus.dedup import edge_kernels

    for most in (8, 100):
        parts = [sorted(one)[:most] for one in (left, right)]
        values = np.array([*parts[0], *parts[1]], np.uint32)
        starts = np.array([0, len(parts[0]), len(values)], np.int64)
        found = np.empty(1, np.float32)
        edge_kernels.similarities(values, starts, np.array([[0], [1]]), most, found)
        assert found[0] == np.float32(signature_twin.similarity_of(*parts, most))
        if most == 100 and left | right:  # whole sketches are exact
            assert found[0] == np.float32(len(left & right) / len(left | right))


def test_a_sketch_estimates_within_its_error() -> None:
    rng = random.Random(5)
    pool = [rng.getrandbits(64) for _ in range(30_000)]
    left, right = pool[:25_000], pool[5_000:]
    sketches = [signature_twin.sketch_of(one, 1024) for one in (left, right)]
    true = 20_000 / 30_000
    error = math.sqrt(true * (1 - true) / 1024)
    assert abs(signature_twin.similarity_of(*sketches, 1024) - true) < 4 * error


def test_band_keys_agree_where_bands_do() -> None:
    found = np.arange(24, dtype=np.uint32).reshape(1, 24).repeat(2, axis=0)
    found[1, 9] += 1
    keys = band_keys(found, 3)
    assert (keys[0] == keys[1]).tolist() == [True, False, True]
    assert len(set(band_keys(np.zeros((1, 24), np.uint32), 3)[0].tolist())) == 3


def test_another_seed_gives_other_permutations() -> None:
    batch = batch_of(["some words that are hashed here"])
    other = NearConfig(seed=2)
    assert (signatures(batch) != signatures(batch, other)).mean() > 0.9
    assert (permutations(112, 1)[0] % 2 == 1).all()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"ngram": 0}, "ngram: expected at least 1, found 0"),
        ({"threshold": 1.5}, "threshold: expected 0 to 1"),
        ({"sketch": 3}, "sketch: expected at least 16"),
        ({"keep": "best"}, "needs the name of a figure"),
        ({"score": "words"}, "nothing else takes one"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(bad: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        NearConfig(**bad)  # type: ignore[arg-type]


@pytest.mark.data
def test_real_text_of_nine_languages_equals_the_twin(shared_data: Path) -> None:
    with gzip.open(shared_data / "wiki-multilingual" / "articles.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    texts = [str(row.get("text") or row)[:3_000] for row in rows[:: max(len(rows) // 40, 1)]]
    check_twin(batch_of(texts), NearConfig(bands=2, rows=4, sketch=64))
