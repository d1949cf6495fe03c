"""Trained vocabularies against independent implementations: the same pieces, the same ids."""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import regex
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from puna.tokens import Tokenizer
from puna.tokens.bpe import VocabularyConfig, train_vocabulary
from puna.tokens.learning import MAX_WORD_CHARS
from puna.tokens.pretokenizers import QWEN2
from tokens.samples import CORPUS, real_lines
from tokens.vocabularies import BYTE, FALLBACK, NEAR, NEAR_TEXT, OTHERS, SIZES, SPACE, trained


def naive_training(texts: list[str], size: int, min_frequency: int) -> list[bytes]:
    """BPE as Sennrich et al. 2016 write it, counting all pairs anew for every merge.

    Of pairs equally frequent, the one whose pieces came first, as the library has it.
    """
    cuts = regex.compile(QWEN2)
    words = Counter(
        part
        for text in texts
        for word in cuts.findall(text)
        for part in regex.findall(rf"(?s).{{1,{MAX_WORD_CHARS}}}", word)
    )
    symbols = _gpt2_bytes()
    by_char = sorted(symbols, key=symbols.__getitem__)
    pieces = [bytes([byte]) for byte in by_char]
    split = {word: [pieces.index(bytes([b])) for b in word.encode()] for word in words}
    while len(pieces) < size:
        pairs: Counter[tuple[int, int]] = Counter()
        for word, ids in split.items():
            for pair in itertools.pairwise(ids):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < min_frequency:
            break
        pieces.append(pieces[best[0]] + pieces[best[1]])
        for word, ids in split.items():
            split[word] = list(_merged(ids, best, len(pieces) - 1))
    return pieces


def _merged(ids: list[int], pair: tuple[int, int], new: int) -> Iterator[int]:
    place = 0
    while place < len(ids):
        found = tuple(ids[place : place + 2]) == pair
        yield new if found else ids[place]
        place += 2 if found else 1


def _gpt2_bytes() -> dict[int, str]:
    table, fresh = {}, 256
    for byte in range(256):
        plain = 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255
        table[byte] = chr(byte if plain else fresh)
        fresh += not plain
    return table


def test_the_pieces_are_those_of_a_naive_training() -> None:
    tokenizer = trained(BYTE)
    learnt = [tokenizer.token_bytes(index) for index in range(tokenizer.vocab_size - 2)]
    assert learnt == naive_training(CORPUS, SIZES[BYTE] - 2, 2)


@given(text=st.text(alphabet=NEAR + OTHERS))
def test_tiktoken_finds_the_same_ids(text: str) -> None:
    tokenizer = trained(BYTE)
    assert tiktoken_of(tokenizer).encode_ordinary(text) == tokenizer.encode(text, bos=False)


@functools.cache
def tiktoken_of(tokenizer: Tokenizer) -> tiktoken.Encoding:
    ranks = {tokenizer.token_bytes(index): index for index in range(tokenizer.vocab_size - 2)}
    return tiktoken.Encoding("trained", pat_str=QWEN2, mergeable_ranks=ranks, special_tokens={})


def naive_sentencepiece(tokenizer: Tokenizer, text: str) -> list[int]:
    """SentencePiece's BPE over the whole text: the best-scored pair of neighbours merges.

    As in sentencepiece, bpe_model.cc: any two neighbours whose concatenation is a piece.
    """
    metadata = tokenizer.to_gguf()
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    scores: list[float] = metadata["tokenizer.ggml.scores"]
    ids = {token: i for i, token in enumerate(tokens) if kinds[i] == 1}
    parts = list((SPACE + text).replace(" ", SPACE)) if text else []
    while True:
        pairs = [
            (-scores[ids[left + right]], place)
            for place, (left, right) in enumerate(itertools.pairwise(parts))
            if left + right in ids
        ]
        if not pairs:
            break
        place = min(pairs)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    found: list[int] = []
    for part in parts:
        spelled = [tokens.index(f"<0x{byte:02X}>") for byte in part.encode()]
        found += [ids[part]] if part in ids else spelled
    return found


@pytest.mark.parametrize("split_digits", [True, False])
@given(text=NEAR_TEXT)
def test_cutting_words_changes_no_id(split_digits: bool, text: str) -> None:
    tokenizer = trained(FALLBACK, split_digits)
    expected = naive_sentencepiece(tokenizer, text)
    assert tokenizer.encode(text, bos=False) == expected
    assert uncut(tokenizer).encode(text, add_special_tokens=False).ids == expected


@functools.cache
def uncut(tokenizer: Tokenizer) -> Backend:
    """The vocabulary as LLaMA's own files have it: no pre-tokenizer."""
    state: dict[str, Any] = json.loads(tokenizer.to_files()["tokenizer.json"])
    assert state["normalizer"]["normalizers"][0] == {"type": "Prepend", "prepend": SPACE}
    assert state["pre_tokenizer"]["type"] == "Split"
    backend = Backend.from_str(json.dumps(state | {"pre_tokenizer": None}))
    backend.encode_special_tokens = True
    return backend


@pytest.mark.data
def test_cutting_words_changes_no_id_of_real_text(shared_data: Path) -> None:
    lines = real_lines(shared_data)
    tokenizer = train_vocabulary(lines, VocabularyConfig(FALLBACK, size=9000, max_bytes=2**20))
    whole = uncut(tokenizer).encode_batch(lines, add_special_tokens=False)
    assert [encoding.ids for encoding in whole] == tokenizer.encode_batch(lines, bos=False)
