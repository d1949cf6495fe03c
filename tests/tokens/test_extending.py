"""New pieces on an old vocabulary: written out as their origins they are the old encoding."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from puna.errors import InputError
from puna.store.checkpoint import TokenizerFiles
from puna.tokens import Tokenizer, open_tokenizer
from puna.tokens.bpe import VocabularyConfig, train_vocabulary
from puna.tokens.extending import Extension, extend_vocabulary
from puna.tokens.pretokenizers import LLAMA3
from puna.tokens.scripts import Kind, kind_of, words_pattern
from tokens.samples import (
    CORPUS,
    ODD,
    PLACE,
    gguf_metadata,
    open_files,
    open_gguf,
    real_lines,
    tiny_json,
    tiny_ranks,
    tiny_sentencepiece,
)

SPM = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
EXACT = {**SPM, "remove_extra_whitespaces": False}
ENGLISH = [text for text in CORPUS if text.isascii()]
CHINESE = [
    "羊驼住在高原上。羊驼吃草，牧人看着羊驼。",
    "高原上的牧人说：羊驼是好朋友！他们住在高原上。",
    "羊驼 吃草; 高原 (羊驼)",
    "你好，世界。你好，羊驼。2024年，2025年。",
] * 6
TEXTS = [*ODD, *CORPUS[:6], *CHINESE[:4], "羊驼羊驼羊驼", "没见过的字：龘靐齉"]
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)))
NEAR_TEXT = st.text(alphabet="羊驼住在高原上吃草牧人看着。，llama the▁ \n2024!()") | ANY_TEXT

OLD = {
    "byte": lambda: train_vocabulary(
        ENGLISH, VocabularyConfig(size=330, extra_special=("<|im_end|>",))
    ),
    "fallback": lambda: train_vocabulary(ENGLISH, VocabularyConfig("byte_fallback_bpe", size=350)),
    "json": lambda: open_files(
        tokenizer_json=tiny_json(LLAMA3),
        tokenizer_config_json=b'{"bos_token": "<|bos|>", "eos_token": "<|im_end|>"}',
    ),
    "ranks": lambda: open_files(tokenizer_model=tiny_ranks()),
    "spm": lambda: open_files(tokenizer_model=tiny_sentencepiece(**EXACT)),
    "symbols": lambda: open_files(
        tokenizer_model=tiny_sentencepiece(**EXACT, user_defined_symbols=("<sep>", "llama"))
    ),
}
EACH = pytest.mark.parametrize("name", OLD)


@functools.cache
def old(name: str) -> Tokenizer:
    return OLD[name]()


@functools.cache
def extended(name: str, pieces: int = 40) -> Extension:
    return extend_vocabulary(old(name), CHINESE, pieces, progress=lambda sentence: None)


def written_out(extension: Extension, ids: Sequence[int]) -> list[int]:
    """Every new id as its old ones."""
    start = extension.start
    parts = [extension.origins[i - start] if i >= start else (i,) for i in ids]
    return list(itertools.chain.from_iterable(parts))


def reopened(tokenizer: Tokenizer) -> Tokenizer:
    return open_tokenizer(TokenizerFiles(files=tokenizer.to_files()), where=PLACE)


# --- what stays ---------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("special", [False, True])
def test_written_out_it_is_the_old_encoding(name: str, special: bool) -> None:
    extension = extended(name)
    new = extension.tokenizer.encode_batch(TEXTS, special=special)
    before = old(name).encode_batch(TEXTS, special=special)
    assert [written_out(extension, ids) for ids in new] == before
    assert sum(map(len, new)) < sum(map(len, before))
    for text, ids, old_ids in zip(TEXTS, new, before, strict=True):
        assert extension.tokenizer.decode(ids) == old(name).decode(old_ids), text


@EACH
@given(text=NEAR_TEXT)
def test_any_text_written_out_is_the_old_encoding(name: str, text: str) -> None:
    extension = extended(name)
    ids = extension.tokenizer.encode(text)
    assert written_out(extension, ids) == old(name).encode(text)


@EACH
def test_old_ids_and_roles_stay(name: str) -> None:
    before, after = old(name), extended(name).tokenizer
    for index in range(before.vocab_size):
        assert after.id_to_token(index) == before.id_to_token(index)
        assert after.token_bytes(index) == before.token_bytes(index)
    for role in ("bos_id", "eos_id", "pad_id", "unk_id", "add_bos", "add_eos", "scheme"):
        assert getattr(after, role) == getattr(before, role), role
    assert after.special_tokens == before.special_tokens
    assert after.stop_ids == before.stop_ids
    assert after.chat_template == before.chat_template


@EACH
def test_untouched_texts_keep_their_ids(name: str) -> None:
    after = extended(name).tokenizer
    for text in ENGLISH:
        assert after.encode(text) == old(name).encode(text)


def test_the_old_tokenizer_is_not_changed() -> None:
    tokenizer = old("spm")
    before = tokenizer.to_files()
    extend_vocabulary(tokenizer, CHINESE, 20)
    assert tokenizer.to_files() == before


# --- what is new --------------------------------------------------------------------------------


@EACH
def test_origins_say_the_same_text(name: str) -> None:
    extension = extended(name)
    assert extension.start == old(name).vocab_size
    assert extension.tokenizer.vocab_size == extension.start + len(extension.origins)
    assert 20 <= len(extension.origins) <= 40
    for place, origin in enumerate(extension.origins):
        assert all(0 <= index < extension.start for index in origin) and len(origin) > 1
        spelled = b"".join(old(name).token_bytes(index) for index in origin)
        assert extension.tokenizer.token_bytes(extension.start + place) == spelled
    assert len(set(extension.origins)) == len(extension.origins)


@EACH
def test_new_pieces_are_used(name: str) -> None:
    extension = extended(name)
    used = set(itertools.chain.from_iterable(extension.tokenizer.encode_batch(CHINESE)))
    new = range(extension.start, extension.tokenizer.vocab_size)
    assert len(used.intersection(new)) > 5  # most are steps to longer ones


@EACH
def test_the_same_again(name: str) -> None:
    again = extend_vocabulary(old(name), iter(CHINESE), 40, progress=print)
    assert again.origins == extended(name).origins
    assert again.tokenizer.to_files() == extended(name).tokenizer.to_files()


@pytest.mark.parametrize("name", ["fallback", "spm", "symbols"])
def test_sentencepiece_pieces_keep_kinds_apart(name: str) -> None:
    extension = extended(name)
    ids = range(extension.start, extension.tokenizer.vocab_size)
    names = [extension.tokenizer.id_to_token(index) for index in ids]
    assert {"牧", "牧人"} <= set(names)
    for piece in names:
        kinds = {kind_of(char) for char in piece} - {Kind.SPACE}
        assert len(kinds) == 1, piece
        assert kinds != {Kind.DIGIT}, piece


def test_an_extension_of_an_extension() -> None:
    first = extended("byte")
    second = extend_vocabulary(first.tokenizer, ["mañana por la mañana"] * 9, 8, progress=print)
    for text in [*TEXTS, "la mañana"]:
        ids = second.tokenizer.encode(text)
        once = written_out(second, ids)
        assert once == first.tokenizer.encode(text)
        assert written_out(first, once) == old("byte").encode(text)


# --- files --------------------------------------------------------------------------------------


@EACH
def test_files_say_all_of_it(name: str, tmp_path: Path) -> None:
    tokenizer = extended(name).tokenizer
    again = reopened(tokenizer)
    for file, data in tokenizer.to_files().items():
        (tmp_path / file).write_bytes(data)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert again.vocab_size == tokenizer.vocab_size == len(theirs)
    for special in (False, True):
        ids = tokenizer.encode_batch(TEXTS, special=special)
        assert again.encode_batch(TEXTS, special=special) == ids
        found = [theirs.encode(text, split_special_tokens=not special) for text in TEXTS]
        assert found == ids
    assert again.special_tokens == tokenizer.special_tokens


@pytest.mark.parametrize("name", [name for name in OLD if name != "symbols"])
@pytest.mark.filterwarnings("ignore")
def test_gguf_says_all_of_it(name: str) -> None:
    tokenizer = extended(name).tokenizer
    again = open_gguf(tokenizer.to_gguf())
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)


def test_rows_that_no_token_used_become_new_pieces() -> None:
    files = TokenizerFiles(files=old("byte").to_files())
    padded = open_tokenizer(files, where=PLACE, vocab_size=384)
    few = extend_vocabulary(padded, CHINESE, 10)
    assert (few.start, few.tokenizer.vocab_size) == (330, 340)
    assert few.tokenizer.decode([383]) == ""
    many = extend_vocabulary(padded, CHINESE, 60, progress=print)
    assert many.tokenizer.vocab_size > 384
    with pytest.raises(InputError):
        many.tokenizer.decode([many.tokenizer.vocab_size])


@pytest.mark.data
def test_chinese_on_real_vocabularies(shared_data: Path, llama_base_gguf: Path) -> None:
    lines = [line for line in real_lines(shared_data) if len(line) > 20]
    folder = shared_data / "llama-tokenizers"
    llama2 = open_files(tokenizer_model=(folder / "llama2-tokenizer.model").read_bytes())
    for before in (llama2, open_gguf(gguf_metadata(llama_base_gguf))):
        chinese = [line for line in lines if any("一" <= char <= "龥" for char in line)]
        extension = extend_vocabulary(before, chinese, 1000)
        new, old_ids = extension.tokenizer.encode_batch(lines), before.encode_batch(lines)
        assert [written_out(extension, ids) for ids in new] == old_ids
        counts = [
            sum(map(len, tokenizer.encode_batch(chinese)))
            for tokenizer in (extension.tokenizer, before)
        ]
        assert counts[0] < 0.75 * counts[1]


# --- kinds of characters ------------------------------------------------------------------------


@given(text=ANY_TEXT)
def test_whether_two_characters_are_cut_apart_depends_on_the_two(text: str) -> None:
    def cuts(text: str) -> list[bool]:
        ends = list(itertools.accumulate(len(word) for word, _ in pre.pre_tokenize_str(text)))
        return [place in ends for place in range(1, len(text))]

    text = text.replace(" ", "▁")
    for split_digits in (True, False):
        pre = pre_tokenizers.Split(Regex(words_pattern(split_digits=split_digits)), "isolated")
        pairs = ["".join(pair) for pair in itertools.pairwise(text)]
        assert cuts(text) == [cuts(pair)[0] for pair in pairs]


@pytest.mark.parametrize(
    ("char", "kind"),
    [
        *[("▁", "SPACE"), ("é", "LETTER"), ("\u0301", "LETTER"), ("한", "LETTER")],
        *[("羊", "UNSPACED"), ("ー", "UNSPACED"), ("ไ", "UNSPACED"), ("𠀀", "UNSPACED")],
        *[("7", "DIGIT"), ("½", "DIGIT"), ("\n", "BLANK"), ("\u3000", "BLANK")],
        *[("。", "OTHER"), ("$", "OTHER"), ("🦙", "OTHER")],
    ],
)
def test_kinds(char: str, kind: str) -> None:
    assert kind_of(char).name == kind


# --- told and refused ---------------------------------------------------------------------------


def test_too_little_text_is_told() -> None:
    told: list[str] = []
    extension = extend_vocabulary(old("spm"), ["草原草原"], 50, progress=told.append)
    count = len(extension.origins)
    assert 1 <= count < 50
    assert told == [
        f"{count} new pieces, not the 50 asked for: no more of them occur 2 times in the text"
    ]
    with pytest.warns(UserWarning, match="not the 50 asked for"):
        extend_vocabulary(old("spm"), ["草原草原"], 50)
    with pytest.raises(InputError, match="the texts have no new piece that occurs 2 times"):
        extend_vocabulary(old("spm"), ["a"], 50)


def test_pieces_must_be_a_number() -> None:
    for pieces in (0, -1, 2.5):
        with pytest.raises(InputError, match="new pieces must be at least 1"):
            extend_vocabulary(old("spm"), CHINESE, pieces)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is no text"):
        extend_vocabulary(old("spm"), [], 5)


def changed_json(**changes: Any) -> Tokenizer:
    state = json.loads(tiny_json())
    state["model"] |= changes
    return open_files(tokenizer_json=json.dumps(state).encode())


def test_vocabularies_that_cannot_be_extended() -> None:
    unigram = open_files(tokenizer_model=tiny_sentencepiece(model_type="unigram"))
    with pytest.raises(InputError, match="a Unigram vocabulary cannot be extended"):
        extend_vocabulary(unigram, CHINESE, 5)
    lossy = open_files(
        tokenizer_model=tiny_sentencepiece(
            model_type="bpe",
            normalization_rule_name="identity",
        )
    )
    with pytest.raises(InputError, match="is not spelled as bytes, but lost"):
        extend_vocabulary(lossy, CHINESE, 5)
    with pytest.raises(InputError, match="marks the parts of words"):
        extend_vocabulary(changed_json(end_of_word_suffix="@"), CHINESE, 5)
    plain = open_files(tokenizer_json=tiny_json(specials=("END",)))
    with pytest.raises(InputError, match="would be read as the special token 'END'"):
        extend_vocabulary(plain, CHINESE, 5)
