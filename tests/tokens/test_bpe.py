"""Training vocabularies: any text comes back, from files too; bounds and errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from transformers import PreTrainedTokenizerFast

from puna.errors import InputError
from puna.tokens import Tokenizer
from puna.tokens.bpe import VocabularyConfig, train_vocabulary
from puna.tokens.learning import MAX_WORD_CHARS
from puna.tokens.vocabulary import byte_of
from tokens.samples import CORPUS, ODD, open_gguf, real_lines
from tokens.vocabularies import BYTE, FALLBACK, KINDS, NEAR_TEXT, SIZES, SPACE, reopened, trained


def pieces_of(tokenizer: Tokenizer) -> list[str]:
    """The texts of the ordinary pieces, without bytes that are no text."""
    found = []
    for index in range(tokenizer.vocab_size):
        name = tokenizer.id_to_token(index)
        if index not in tokenizer.special_tokens.values() and byte_of(name) is None:
            found.append(tokenizer.token_bytes(index).decode("utf-8", "ignore"))
    return found


# --- what every trained vocabulary does ---------------------------------------------------------


@KINDS
@pytest.mark.parametrize("text", [*ODD, *CORPUS[:6]])
def test_odd_texts_come_back(kind: str, text: str) -> None:
    tokenizer = trained(kind)
    if kind == FALLBACK:
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace(SPACE, " ")
    else:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@KINDS
@given(text=NEAR_TEXT)
def test_any_text_comes_back(kind: str, text: str) -> None:
    tokenizer = trained(kind)
    expected = text.replace(SPACE, " ") if kind == FALLBACK else text
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_id
    assert tokenizer.decode(ids) == expected
    assert not set(ids[1:]) & set(tokenizer.special_tokens.values())


@KINDS
def test_every_byte_has_a_token(kind: str) -> None:
    tokenizer = trained(kind)
    bytes_ = {tokenizer.token_bytes(index) for index in range(tokenizer.vocab_size)}
    assert bytes_ >= {bytes([byte]) for byte in range(256)}


@KINDS
def test_the_roles(kind: str) -> None:
    tokenizer = trained(kind)
    specials = {"<s>": tokenizer.bos_id, "</s>": tokenizer.eos_id}
    if kind == FALLBACK:
        assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
        specials["<unk>"] = 0
        assert tokenizer.token_to_id("<0x00>") == 3 and tokenizer.scheme == "sentencepiece"
    else:
        assert tokenizer.unk_id is None and tokenizer.scheme == "byte_level"
        assert (tokenizer.bos_id, tokenizer.eos_id) == (SIZES[BYTE] - 2, SIZES[BYTE] - 1)
    assert tokenizer.special_tokens == specials
    assert tokenizer.add_bos and not tokenizer.add_eos
    assert tokenizer.stop_ids == {tokenizer.eos_id}
    assert tokenizer.vocab_size == SIZES[kind]
    assert tokenizer.encode("a", eos=True)[-1] == tokenizer.eos_id


@KINDS
@pytest.mark.parametrize("split_digits", [True, False])
def test_files_say_all_of_it_here_and_in_transformers(
    kind: str, split_digits: bool, tmp_path: Path
) -> None:
    tokenizer = trained(kind, split_digits)
    again = reopened(tokenizer)
    assert again.to_files() == tokenizer.to_files()
    for name, data in tokenizer.to_files().items():
        (tmp_path / name).write_bytes(data)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert len(theirs) == again.vocab_size == tokenizer.vocab_size
    for text in [*ODD, *CORPUS[:6]]:
        ids = tokenizer.encode(text)
        assert again.encode(text) == ids
        assert theirs.encode(text, split_special_tokens=True) == ids
        assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    for role in ("bos", "eos", "unk"):
        expected = getattr(tokenizer, f"{role}_id")
        assert getattr(again, f"{role}_id") == getattr(theirs, f"{role}_token_id") == expected


@KINDS
@pytest.mark.parametrize("split_digits", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_gguf_says_all_of_it(kind: str, split_digits: bool) -> None:
    tokenizer = trained(kind, split_digits)
    for origin in (tokenizer, reopened(tokenizer)):
        again = open_gguf(origin.to_gguf())
        for text in [*ODD, *CORPUS[:6]]:
            assert again.encode(text) == tokenizer.encode(text)


@KINDS
def test_the_same_texts_give_the_same_vocabulary(kind: str) -> None:
    again = trained.__wrapped__(kind)
    assert again.to_files() == trained(kind).to_files()
    lazily = train_vocabulary(iter(CORPUS), VocabularyConfig(kind, size=SIZES[kind]))
    assert lazily.to_files() == again.to_files()


@KINDS
def test_digits(kind: str) -> None:
    texts = ["call 555123 or 555124", "in 19991 and 19992"] * 5
    split, joined = (
        train_vocabulary(texts, VocabularyConfig(kind, size=400, split_digits=flag), progress=print)
        for flag in (True, False)
    )

    def longest(tokenizer: Tokenizer) -> int:
        return max(sum(char.isdigit() for char in piece) for piece in pieces_of(tokenizer))

    assert longest(split) == 1
    assert longest(joined) == (3 if kind == BYTE else 6)
    numbers = [i for i in split.encode("x 2024", bos=False) if split.token_bytes(i).isdigit()]
    assert len(numbers) == 4


@KINDS
def test_what_has_no_spaces_yields_no_phrases(kind: str) -> None:
    sentence = "羊驼住在高原上羊驼吃草牧人看着羊驼天上有云地上有草风从山上吹来人们在河边洗衣"
    thai = "สัตว์ที่อาศัยอยู่บนที่ราบสูง"
    texts = [sentence * 500, thai * 500, "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo" * 500]
    tokenizer = train_vocabulary(texts, VocabularyConfig(kind, size=1000), progress=print)
    assert max(map(len, pieces_of(tokenizer))) <= MAX_WORD_CHARS
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(sentence, bos=False)) < len(sentence) / 2


@KINDS
@pytest.mark.data
def test_real_text_in_ten_languages(kind: str, shared_data: Path) -> None:
    lines = real_lines(shared_data)
    config = VocabularyConfig(kind, size=9000, max_bytes=2**20)
    tokenizer = train_vocabulary(lines, config)
    assert tokenizer.vocab_size == 9000
    again = reopened(tokenizer)
    for line, ids in zip(lines, tokenizer.encode_batch(lines), strict=True):
        expected = line.replace(SPACE, " ") if kind == FALLBACK else line
        assert tokenizer.decode(ids) == expected
    assert again.encode_batch(lines) == tokenizer.encode_batch(lines)


# --- sizes, bounds, errors ----------------------------------------------------------------------


@KINDS
def test_a_small_text_says_how_far_it_went(kind: str) -> None:
    config = VocabularyConfig(kind, size=5000)
    told: list[str] = []
    tokenizer = train_vocabulary(CORPUS[:6], config, progress=told.append)
    assert 256 < tokenizer.vocab_size < 5000
    assert told == [
        "learning a vocabulary of 5000 from 290 B of text",
        f"the vocabulary has {tokenizer.vocab_size} tokens, not the 5000 asked for: no more "
        "pairs occur 2 times in the text",
    ]
    with pytest.warns(UserWarning, match="not the 5000 asked for"):
        train_vocabulary(CORPUS[:6], config)


def test_no_word_when_the_size_is_reached() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train_vocabulary(CORPUS, VocabularyConfig(size=300)).vocab_size == 300


def test_the_smallest_vocabularies() -> None:
    assert train_vocabulary(["aaaa"], VocabularyConfig(size=258)).vocab_size == 258
    with pytest.raises(InputError, match="257 is too small: 256 bytes and 2 special tokens take 2"):
        VocabularyConfig(size=257)
    with pytest.raises(InputError, match="ask for a size of at least 260"):
        VocabularyConfig(size=259, extra_special=("<pad>", "<sep>"))
    with pytest.raises(InputError, match="3 special tokens take 259"):
        VocabularyConfig(FALLBACK, size=258)
    few = VocabularyConfig(FALLBACK, size=261)
    with pytest.raises(InputError, match=r"3 characters make up 99\.95% of the text, and take 262"):
        train_vocabulary(["aabb aabb"], few)
    enough = VocabularyConfig(FALLBACK, size=262)
    assert train_vocabulary(["aabb aabb"], enough).vocab_size == 262


def test_rare_characters_are_written_as_bytes() -> None:
    texts = ["llama " * 1000 + "é" + "驼" * 3]
    config = VocabularyConfig(FALLBACK, size=300, min_frequency=1, character_coverage=0.999)
    tokenizer = train_vocabulary(texts, config, progress=print)
    assert tokenizer.token_to_id("é") is None
    assert tokenizer.token_to_id("l") is not None
    assert tokenizer.decode(tokenizer.encode("é驼")) == "é驼"
    every = VocabularyConfig(FALLBACK, size=300, min_frequency=1, character_coverage=1.0)
    assert train_vocabulary(texts, every, progress=print).token_to_id("é") is not None


@KINDS
def test_no_more_is_read_than_asked(kind: str) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "the llama eats the grass. 羊驼吃草。\n" * 50

    config = VocabularyConfig(kind, size=330, max_bytes=10_000)
    assert train_vocabulary(endless(), config, progress=print).vocab_size > 256
    assert read == 5  # 50 lines of 42 bytes each: 2100
    cut = VocabularyConfig(BYTE, size=300, max_bytes=28)  # amid the first Chinese character
    train_vocabulary(endless(), cut, progress=print)


def test_long_texts_are_read_in_parts() -> None:
    lines = [f"line {number} of the llama\n" for number in range(20_000)]
    config = VocabularyConfig(size=400)
    whole = train_vocabulary(["".join(lines)], config)
    assert whole.to_files() == train_vocabulary(lines, config).to_files()


def test_special_tokens_of_ones_own() -> None:
    config = VocabularyConfig(
        size=300, bos="<|begin|>", eos="<|end|>", extra_special=("<|user|>", "<|pad|>")
    )
    tokenizer = train_vocabulary(CORPUS, config)
    assert tokenizer.special_tokens == {
        "<|begin|>": 296, "<|end|>": 297, "<|user|>": 298, "<|pad|>": 299
    }  # fmt: skip
    assert 298 not in tokenizer.encode("<|user|>")
    assert tokenizer.encode("<|user|>", special=True, bos=False) == [298]
    for kind, name in ((BYTE, "llama"), (FALLBACK, "llama")):
        config = VocabularyConfig(kind, size=420, extra_special=(name,))
        with pytest.raises(InputError, match="'llama' is spelled like a piece of the text"):
            train_vocabulary(["llama\nllama\nllama\n(llama)"] * 9, config, progress=print)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "wordpiece"}, "kind is 'wordpiece'; expected byte_bpe or byte_fallback_bpe"),
        ({"size": 0}, "size must be a whole number of at least 1, not 0"),
        ({"size": 1e4}, "size must be a whole number"),
        ({"min_frequency": 0}, "min_frequency must be a whole number of at least 1"),
        ({"max_bytes": -1}, "max_bytes must be a whole number"),
        ({"character_coverage": 0.0}, "character_coverage is a share above 0 and up to 1"),
        ({"character_coverage": float("nan")}, "character_coverage is a share"),
        ({"bos": ""}, "'' cannot be a special token"),
        ({"eos": " </s>"}, "' </s>' cannot be a special token"),
        ({"extra_special": ("<0x0A>",)}, "'<0x0A>' cannot be a special token"),
        ({"eos": "<s>"}, "the special token '<s>' is named more than once"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VocabularyConfig(**options)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there is no text to learn a vocabulary from"),
        (["", ""], "there is no text to learn a vocabulary from"),
        (["fine", "bad \ud800"], "text 2 is not valid Unicode: a lone surrogate at character 4"),
        (["fine", 7], "text 2: expected a text, found int"),
    ],
)
@KINDS
def test_texts_that_are_none_are_refused(kind: str, texts: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_vocabulary(texts, VocabularyConfig(kind, size=300))
