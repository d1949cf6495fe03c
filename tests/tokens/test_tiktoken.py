"""tiktoken ranks (LLaMA-3): equal to the library, and broken files."""

from __future__ import annotations

import base64
import functools
import gzip
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import InputError
from puna.tokens import Tokenizer
from puna.tokens.tiktoken import read_tiktoken, special_names
from tokens.samples import CORPUS, ODD, open_files, real_lines, tiny_ranks

# meta-llama/llama-models, models/llama3/tokenizer.py
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@functools.cache
def reference(data: bytes) -> tiktoken.Encoding:
    rows = (line.split() for line in data.splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in rows}
    specials = {name: len(ranks) + index for index, name in enumerate(special_names())}
    return tiktoken.Encoding(
        "llama3", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=specials
    )


@functools.cache
def tiny() -> Tokenizer:
    return open_files(tokenizer_model=tiny_ranks())


def test_equal_to_the_library_on_a_trained_vocabulary():
    encoding, tokenizer = reference(tiny_ranks()), open_files(tokenizer_model=tiny_ranks())
    texts = [*ODD, *CORPUS[:6]]
    assert tokenizer.encode_batch(texts, bos=False) == encoding.encode_ordinary_batch(texts)
    assert tokenizer.vocab_size == encoding.n_vocab
    for text in texts:
        ids = tokenizer.encode(text, bos=False)
        assert tokenizer.decode(ids) == encoding.decode(ids) == text


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40) | st.text(alphabet=" \n'sabLAM羊1234", max_size=60))
def test_equal_to_the_library_on_any_text(text):
    ids = tiny().encode(text, bos=False)
    assert ids == reference(tiny_ranks()).encode_ordinary(text)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 380), max_size=20))
def test_decoding_any_ids_equals_the_library(ids):
    assert tiny().decode(ids) == reference(tiny_ranks()).decode(ids)


def test_special_tokens():
    tokenizer, encoding = open_files(tokenizer_model=tiny_ranks()), reference(tiny_ranks())
    text = "<|begin_of_text|>hi<|eot_id|><|reserved_special_token_245|>"
    with_specials = encoding.encode(text, allowed_special="all")
    assert tokenizer.encode(text, special=True, bos=False) == with_specials
    assert tokenizer.encode(text, bos=False) == encoding.encode_ordinary(text)
    assert tokenizer.decode(with_specials) == "hi"
    assert tokenizer.decode(with_specials, skip_special=False) == text
    names = tokenizer.special_tokens
    assert len(names) == 256 and list(names) == special_names()
    assert tokenizer.bos_id == names["<|begin_of_text|>"] and tokenizer.add_bos
    assert tokenizer.stop_ids == {names[f"<|{n}|>"] for n in ("end_of_text", "eot_id", "eom_id")}


def test_llama3_in_ten_languages(shared_data: Path):
    packed = shared_data / "llama-tokenizers" / "llama3-tokenizer.model.gz"
    data = gzip.decompress(packed.read_bytes())
    encoding, tokenizer = reference(data), open_files(tokenizer_model=data)
    lines = [*real_lines(shared_data), *ODD]
    ids = tokenizer.encode_batch(lines, bos=False)
    assert ids == encoding.encode_ordinary_batch(lines, num_threads=2)
    assert [tokenizer.decode(row) for row in ids] == lines
    assert tokenizer.special_tokens["<|eot_id|>"] == 128009
    assert tokenizer.vocab_size == 128256


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"IQ== 0\nI?== 1\n", "line 2 is not a token in base64 and its rank: b'I\\?== 1'"),
        (b"IQ== 0\nIg==\n", "line 2 is not a token in base64 and its rank"),
        (b"IQ== 0\nIg== x\n", "line 2 is not a token in base64"),
        (b"IQ== 0\nIg== 2\n", "line 2: expected a token with rank 1, found b'Ig== 2'"),
        (b"IQ== 0\n", "the byte 0x22 has no rank"),
        (tiny_ranks() + b"IQ== %d" % tiny_ranks().count(b"\n"), "the token '!' occurs 2 times"),
        (b"", "the byte 0x21 has no rank"),
    ],
)
def test_a_broken_file_is_named(data: bytes, message: str):
    with pytest.raises(InputError, match=message) as caught:
        open_files(tokenizer_model=data)
    assert "tokenizer.model" in str(caught.value)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=100) | st.text(alphabet="IQ=g 0123\n", max_size=60).map(str.encode))
def test_any_bytes_raise_nothing_but_input_errors(data: bytes):
    with pytest.raises(InputError):
        read_tiktoken(data, where="tokenizer.model")
