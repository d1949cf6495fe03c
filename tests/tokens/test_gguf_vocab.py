"""Tokenizers in GGUF metadata: golden vectors, the real model, and broken metadata."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from puna.errors import InputError
from puna.tokens.pretokenizers import GPT2, LLAMA3, PRE, QWEN2
from tokens.samples import (
    CORPUS,
    ODD,
    gguf_metadata,
    golden,
    open_files,
    open_gguf,
    read_llama2c,
    real_lines,
    reference_spm,
    tiny_json,
    tiny_sentencepiece,
)

IDENTITY = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}


def tiny_gguf(**changes: object) -> dict[str, object]:
    """A byte-level vocabulary as metadata, with keys changed; None removes one."""
    metadata = open_files(tokenizer_json=tiny_json()).to_gguf()
    for name, value in changes.items():
        metadata[f"tokenizer.ggml.{name}"] = value
    return {key: value for key, value in metadata.items() if value is not None}


def tiny_spm_gguf(**changes: object) -> dict[str, object]:
    metadata = open_files(tokenizer_model=tiny_sentencepiece(**IDENTITY)).to_gguf()
    for name, value in changes.items():
        metadata[f"tokenizer.ggml.{name}"] = value
    return {key: value for key, value in metadata.items() if value is not None}


@pytest.mark.parametrize("name", ["ggml-vocab-llama-spm", "ggml-vocab-llama-bpe"])
def test_golden_vectors_of_llama_cpp(shared_data: Path, tmp_path: Path, name: str):
    metadata, texts, ids = golden(shared_data, name, tmp_path)
    tokenizer = open_gguf(metadata)
    assert len(texts) > 40
    assert tokenizer.encode_batch(texts, bos=False) == ids
    assert [tokenizer.decode(row) for row in ids] == texts


def test_a_sentencepiece_gguf_equals_the_library(shared_data: Path, tmp_path: Path):
    metadata, _, _ = golden(shared_data, "ggml-vocab-llama-spm", tmp_path)
    model = (shared_data / "llama-tokenizers" / "llama2-tokenizer.model").read_bytes()
    lines = [*real_lines(shared_data)[::3], *ODD]
    assert open_gguf(metadata).encode_batch(lines, bos=False) == reference_spm(model).encode(lines)


def test_llama_base(llama_base_gguf: Path):
    metadata = gguf_metadata(llama_base_gguf)
    started = time.perf_counter()
    tokenizer = open_gguf(metadata, vocab_size=49152)
    seconds = time.perf_counter() - started
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (49152, 1, 2)
    assert (tokenizer.unk_id, tokenizer.pad_id, tokenizer.add_bos) == (0, 2, False)
    assert tokenizer.stop_ids == {0, 2}
    assert tokenizer.encode("Hello<|im_end|>")[0] == 19556
    assert 2 not in tokenizer.encode("Hello<|im_end|>")
    written = tokenizer.to_gguf()
    assert {key: written[key] for key in metadata} == metadata
    assert seconds < 1.5, f"opening took {seconds:.2f} s; measured alone it takes 0.12 s"


def test_llama_base_equals_tokenizers(llama_base_gguf: Path, shared_data: Path):
    """The tokenizer.json of SmolLM2, written down from its published parts."""
    metadata = gguf_metadata(llama_base_gguf)
    names = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    model = tokenizers.models.BPE({name: index for index, name in enumerate(names)}, merges)
    reference = tokenizers.Tokenizer(model)
    reference.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    reference.decoder = tokenizers.decoders.ByteLevel()
    lines = [*real_lines(shared_data), *ODD]
    tokenizer = open_gguf(metadata)
    ids = tokenizer.encode_batch(lines)
    assert ids == [encoding.ids for encoding in reference.encode_batch(lines)]
    assert [tokenizer.decode(row) for row in ids] == lines


def test_llama2c_vocabulary(shared_data: Path):
    tokenizer = open_gguf(read_llama2c(shared_data / "stories260k" / "tok512.bin"))
    ids = tokenizer.encode("Once upon a time")
    assert ids == [1, 403, 407, 261, 378]
    assert tokenizer.decode(ids) == "Once upon a time"


def test_small_vocabularies_round_trip():
    for metadata in (tiny_gguf(), tiny_spm_gguf()):
        tokenizer = open_gguf(metadata)
        for text in [*ODD, *CORPUS[:6]]:
            if "▁" not in text:
                assert tokenizer.decode(tokenizer.encode(text)) == text


def test_arrays_may_be_numpy():
    metadata = tiny_spm_gguf()
    plain = open_gguf(metadata)
    for name, kind in (("scores", np.float32), ("token_type", np.int32)):
        metadata[f"tokenizer.ggml.{name}"] = np.array(metadata[f"tokenizer.ggml.{name}"], kind)
    assert open_gguf(metadata).encode("Once upon") == plain.encode("Once upon")


def test_prefix_space_and_bos_follow_the_file():
    tokenizer = open_gguf(tiny_spm_gguf(add_space_prefix=False, add_bos_token=False))
    model = tiny_sentencepiece(**IDENTITY, add_dummy_prefix=False)
    assert not tokenizer.add_bos
    assert tokenizer.decode(tokenizer.encode("llama")) == "llama"
    assert tokenizer.encode("llama")[0] != open_gguf(tiny_spm_gguf()).encode("llama", bos=False)[0]
    assert open_files(tokenizer_model=model).decode(tokenizer.encode(" x")) == " x"
    by_default = {"bos_token_id": None, "add_bos_token": None, "eos_token_id": None}
    tokenizer = open_gguf(tiny_spm_gguf(**by_default))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (1, 2, True)


def test_ends_of_turn_are_special_whatever_the_file_calls_them():
    metadata = tiny_gguf(pre="llama-bpe")
    index = metadata["tokenizer.ggml.tokens"].index("<|im_end|>")
    for kind in (1, 4):
        metadata["tokenizer.ggml.token_type"][index] = kind
        tokenizer = open_gguf(metadata)
        assert index not in tokenizer.encode("a<|im_end|>")
        assert index in tokenizer.encode("a<|im_end|>", special=True)
        assert tokenizer.stop_ids == {index}


@pytest.mark.parametrize("name", PRE)
def test_every_pre_tokenizer_keeps_the_text(name: str):
    tokenizer = open_gguf(tiny_gguf(pre=name))
    for text in [*ODD, *CORPUS[:6]]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert open_gguf(tokenizer.to_gguf()).encode("It's 12345 llamas!") == tokenizer.encode(
        "It's 12345 llamas!"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("llama-bpe", ["It", "'S", " ", "123", "45", " L", "-x", "\n\n"]),
        ("qwen2", ["It", "'S", " ", "1", "2", "3", "4", "5", " L", "-x", "\n\n"]),
        ("gpt-2", ["It", "'", "S", " 12345", " L", "-", "x", "\n\n"]),
        ("smollm", ["It", "'", "S", " ", "1", "2", "3", "4", "5", " L", "-", "x", "\n\n"]),
        ("default", ["It", "'", "S", " ", "123", "45", " L", "-", "x", "\n\n"]),
        ("deepseek-v3", ["It", "'S", " ", "123", "45", " L", "-x", "\n\n"]),
        ("bloom", ["It'S", " 12345", " L-x", "\n\n"]),
    ],
)
def test_words_of_pre_tokenizers(name: str, words: list[str]):
    pairs = PRE[name].build().pre_tokenize_str("It'S 12345 L-x\n\n")
    assert [word.replace("Ġ", " ").replace("Ċ", "\n") for word, _ in pairs] == words


def test_named_patterns_are_those_of_the_published_files():
    assert LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}") == QWEN2
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(GPT2), "isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in ODD:
        cuts = [span for _, span in split.pre_tokenize_str(text)]
        assert cuts == [span for _, span in byte_level.pre_tokenize_str(text)]


def test_a_missing_pre_tokenizer_is_warned_of():
    with pytest.warns(UserWarning, match="tokenizer.ggml.pre is missing; reading it as 'default'"):
        tokenizer = open_gguf(tiny_gguf(pre=None))
    assert tokenizer.to_gguf()["tokenizer.ggml.pre"] == "default"


def test_unused_and_empty_tokens():
    metadata = tiny_spm_gguf()
    metadata["tokenizer.ggml.tokens"] += ["[PAD1]", ""]
    metadata["tokenizer.ggml.token_type"] += [5, 5]
    metadata["tokenizer.ggml.scores"] += [0.0, 0.0]
    tokenizer = open_gguf(metadata)
    assert tokenizer.id_to_token(tokenizer.vocab_size - 1).startswith("[EMPTY_")
    assert tokenizer.encode("[PAD1]") == open_gguf(tiny_spm_gguf()).encode("[PAD1]")
    assert tokenizer.to_gguf()["tokenizer.ggml.token_type"][-2:] == [5, 5]


TOKENS = [*map(chr, range(33, 40)), "ab"]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (tiny_gguf(model="bert"), "tokenizer.ggml.model is 'bert'; expected 'gpt2' or 'llama'"),
        (tiny_gguf(model=None), "tokenizer.ggml.model is missing"),
        (tiny_gguf(model=3), "tokenizer.ggml.model: expected a string, found int"),
        (tiny_gguf(pre="llama-bqe"), "pre is 'llama-bqe', a pre-tokenizer that is not known"),
        (tiny_gguf(tokens=None), "tokenizer.ggml.tokens is missing"),
        (tiny_gguf(tokens=[]), "the vocabulary is empty"),
        (tiny_gguf(tokens=["a", 1]), "tokenizer.ggml.tokens: expected a list of str"),
        (tiny_gguf(tokens=["a", "b", "a"], token_type=None), "'a' occurs 2 times, at ids .0, 2."),
        (tiny_gguf(token_type=[1, 1]), "expected 402 types, one per token, found 2"),
        (tiny_gguf(bos_token_id=402), "bos_token_id is 402; the vocabulary has 402 tokens"),
        (tiny_gguf(eos_token_id=-1), "eos_token_id is -1"),
        (tiny_gguf(eot_token_id="x"), "eot_token_id: expected a whole number, found str"),
        (tiny_gguf(merges=None), "tokenizer.ggml.merges is missing"),
        (tiny_gguf(merges=["t h", "th"]), r"merges\[1\] is 'th'; expected two tokens"),
        (tiny_gguf(merges=["zz z"]), "merges: the merges do not fit the tokens.*zz"),
        (tiny_gguf(merges="t h"), "merges: expected a list of str, found str"),
        (tiny_gguf(add_bos_token=1), "add_bos_token: expected a boolean, found int"),
        (tiny_spm_gguf(scores=None), "tokenizer.ggml.scores is missing"),
        (tiny_spm_gguf(scores=[1.0]), "expected [0-9]+ scores, one per token, found 1"),
        (tiny_spm_gguf() | {"tokenizer.chat_template": 1}, "tokenizer.chat_template is not a str"),
    ],
)
def test_broken_metadata_is_named(metadata: dict[str, object], message: str):
    with pytest.raises(InputError, match=message) as caught:
        open_gguf(metadata)
    assert "model.gguf" in str(caught.value)


def test_the_nearest_known_pre_tokenizer_is_named():
    with pytest.raises(InputError, match="the nearest known name is 'llama-bpe'"):
        open_gguf(tiny_gguf(pre="llama-bqe"))


def test_sizes_are_checked_against_the_model():
    with pytest.raises(InputError, match="has 402 tokens; the model's embedding has 400 rows"):
        open_gguf(tiny_gguf(), vocab_size=400)
    padded = open_gguf(tiny_gguf(), vocab_size=512)
    assert (padded.vocab_size, padded.decode([70, 511])) == (402, padded.decode([70]))
    with pytest.raises(InputError, match="there is no token 512: the vocabulary has 402"):
        padded.decode([512])
    with pytest.raises(InputError, match="there is no token -1"):
        padded.decode([-1])
