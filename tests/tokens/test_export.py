"""What is written reads back the same, here, in transformers and in the gguf package."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import gguf
import pytest
from transformers import AutoTokenizer

from puna.errors import InputError
from puna.store.checkpoint import TokenizerFiles
from puna.tokens import BUILTIN_TEMPLATES, Tokenizer, open_tokenizer
from tokens.samples import (
    CORPUS,
    ODD,
    PLACE,
    gguf_metadata,
    open_files,
    open_gguf,
    tiny_json,
    tiny_ranks,
    tiny_sentencepiece,
)

CHAT = [{"role": "user", "content": "Hi llama"}, {"role": "assistant", "content": "Hello."}]
SPM = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
EXACT = {**SPM, "remove_extra_whitespaces": False}
TEXTS = [*ODD, *CORPUS[:6]]

SOURCES = {
    "json": lambda: open_files(
        tokenizer_json=tiny_json(),
        tokenizer_config_json=b'{"bos_token": "<|bos|>", "eos_token": "<|im_end|>"}',
        chat_template_jinja=BUILTIN_TEMPLATES["chatml"].encode(),
    ),
    "adding": lambda: open_files(
        tokenizer_json=tiny_json(),
        tokenizer_config_json=b'{"bos_token": "<|bos|>", "eos_token": "<|im_end|>",'
        b'"pad_token": "<|im_end|>", "add_bos_token": true, "add_eos_token": true}',
    ),
    "ranks": lambda: open_files(
        tokenizer_model=tiny_ranks(), chat_template_jinja=BUILTIN_TEMPLATES["llama3"].encode()
    ),
    "spm": lambda: open_files(
        tokenizer_model=tiny_sentencepiece(**EXACT),
        chat_template_jinja=BUILTIN_TEMPLATES["llama2"].encode(),
    ),
    "spm-no-prefix": lambda: open_files(
        tokenizer_model=tiny_sentencepiece(**EXACT, add_dummy_prefix=False)
    ),
    "spm-strip": lambda: open_files(tokenizer_model=tiny_sentencepiece(**SPM)),
    "unigram": lambda: open_files(tokenizer_model=tiny_sentencepiece(model_type="unigram")),
    "symbols": lambda: open_files(
        tokenizer_model=tiny_sentencepiece(**EXACT, user_defined_symbols=("<sep>", "llama"))
    ),
}


def assert_same(one: Tokenizer, other: Tokenizer, texts: list[str] = TEXTS) -> None:
    for special in (False, True):
        assert one.encode_batch(texts, special=special) == other.encode_batch(
            texts, special=special
        )
    for name in ("vocab_size", "bos_id", "eos_id", "pad_id", "unk_id", "add_bos", "add_eos"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.stop_ids == other.stop_ids
    assert one.special_tokens == other.special_tokens
    assert one.chat_template == other.chat_template
    for ids in one.encode_batch(texts):
        assert one.decode(ids) == other.decode(ids)
    if one.chat_template:
        assert one.encode_chat(CHAT) == other.encode_chat(CHAT)


def reopened(tokenizer: Tokenizer) -> Tokenizer:
    return open_tokenizer(TokenizerFiles(files=tokenizer.to_files()), where=PLACE)


def assert_same_in_transformers(tokenizer: Tokenizer, folder: Path) -> None:
    for name, data in tokenizer.to_files().items():
        (folder / name).write_bytes(data)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    other = AutoTokenizer.from_pretrained(folder)
    assert len(other) == tokenizer.vocab_size
    for text in TEXTS:
        assert other.encode(text) == tokenizer.encode(text, special=True)
        ids = tokenizer.encode(text)
        assert other.encode(text, split_special_tokens=True) == ids or tokenizer.unk_id in ids
        assert other.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    for role in ("bos", "eos", "pad", "unk"):
        assert getattr(other, f"{role}_token_id") == getattr(tokenizer, f"{role}_id")
    if tokenizer.chat_template:
        rendered = other.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
        assert rendered == tokenizer.render(CHAT)
        ids = other.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
        assert ids == tokenizer.encode_chat(CHAT)


@pytest.mark.parametrize("name", SOURCES)
def test_files_read_back(name: str):
    tokenizer = SOURCES[name]()
    assert_same(tokenizer, reopened(tokenizer))
    assert tokenizer.to_files() == reopened(tokenizer).to_files()


@pytest.mark.parametrize("name", SOURCES)
def test_files_load_in_transformers(name: str, tmp_path: Path):
    assert_same_in_transformers(SOURCES[name](), tmp_path)


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("unigram", "spm-strip")])
def test_gguf_reads_back(name: str):
    tokenizer = SOURCES[name]()
    texts = [text for text in TEXTS if name != "symbols" or "llama" not in text]
    assert_same(tokenizer, open_gguf(tokenizer.to_gguf()), texts)
    by_files = reopened(tokenizer)
    assert_same(by_files, open_gguf(by_files.to_gguf()), texts)


def test_gguf_keeps_what_a_stripping_model_does():
    tokenizer = SOURCES["spm-strip"]()
    assert tokenizer.to_gguf()["tokenizer.ggml.remove_extra_whitespaces"] is True
    assert_same(tokenizer, open_gguf(tokenizer.to_gguf()))


def test_gguf_metadata_is_plain_and_complete():
    written = SOURCES["spm"]().to_gguf()
    short = {key.removeprefix("tokenizer.ggml."): value for key, value in written.items()}
    count = len(short["tokens"])
    assert (short["model"], short["pre"]) == ("llama", "default")
    assert len(short["scores"]) == len(short["token_type"]) == count
    assert short["token_type"][:5] == [2, 3, 3, 6, 6]
    assert (short["bos_token_id"], short["eos_token_id"], short["unknown_token_id"]) == (1, 2, 0)
    assert short["add_bos_token"] is True and short["add_eos_token"] is False
    assert written["tokenizer.chat_template"] == BUILTIN_TEMPLATES["llama2"]
    for value in written.values():
        items = value if isinstance(value, list) else [value]
        assert {type(item) for item in items} <= {str, int, float, bool}
    written = SOURCES["ranks"]().to_gguf()
    assert written["tokenizer.ggml.pre"] == "llama-bpe"
    eot = SOURCES["ranks"]().special_tokens["<|eot_id|>"]
    assert written["tokenizer.ggml.eot_token_id"] == eot
    assert all(merge.count(" ") == 1 for merge in written["tokenizer.ggml.merges"])


def test_the_gguf_package_writes_and_reads_it(tmp_path: Path):
    tokenizer = SOURCES["spm"]()
    path = tmp_path / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in tokenizer.to_gguf().items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            kinds = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
            kinds[type(value)](key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert_same(tokenizer, open_gguf(gguf_metadata(path)))
    fields = gguf.GGUFReader(path).fields
    read = {key: field.contents() for key, field in fields.items() if "tokenizer" in key}
    assert read == gguf_metadata(path)


def test_what_gguf_cannot_say_is_refused():
    with pytest.raises(InputError, match="GGUF cannot carry a Unigram vocabulary"):
        SOURCES["unigram"]().to_gguf()
    unnamed = open_files(tokenizer_json=tiny_json(split=r"\p{L}+"))
    with pytest.raises(InputError, match=r"llama\.cpp has no name for this pre-tokenizer"):
        unnamed.to_gguf()


def test_a_normalization_of_characters_is_refused():
    model = tiny_sentencepiece(model_type="bpe")
    with pytest.raises(InputError, match="normalizes text by NFC and Precompiled, which GGUF"):
        open_files(tokenizer_model=model).to_gguf()


def test_holes_are_filled():
    data = json.loads(tiny_json())
    top = max(data["model"]["vocab"].values())
    data["model"]["vocab"]["zz"] = top + 3
    data["added_tokens"] = []
    tokenizer = open_files(tokenizer_json=json.dumps(data).encode())
    written = tokenizer.to_gguf()
    assert written["tokenizer.ggml.tokens"][top + 1 : top + 4] == [
        f"[PAD{top + 1}]",
        f"[PAD{top + 2}]",
        "zz",
    ]
    assert written["tokenizer.ggml.token_type"][top : top + 4] == [1, 5, 5, 1]


def test_real_vocabularies_round_trip(shared_data: Path, llama_base_gguf: Path, tmp_path: Path):
    folder = shared_data / "llama-tokenizers"
    template = BUILTIN_TEMPLATES["llama2"].encode()
    llama2 = open_files(
        tokenizer_model=(folder / "llama2-tokenizer.model").read_bytes(),
        chat_template_jinja=template,
    )
    smollm = open_gguf(gguf_metadata(llama_base_gguf))
    for name, tokenizer in {"llama2": llama2, "smollm": smollm}.items():
        assert_same(tokenizer, reopened(tokenizer))
        assert_same(tokenizer, open_gguf(tokenizer.to_gguf()))
        assert_same(tokenizer, open_gguf(reopened(tokenizer).to_gguf()))
        (tmp_path / name).mkdir()
        assert_same_in_transformers(tokenizer, tmp_path / name)


def test_llama3_round_trips(shared_data: Path):
    packed = shared_data / "llama-tokenizers" / "llama3-tokenizer.model.gz"
    tokenizer = open_files(tokenizer_model=gzip.decompress(packed.read_bytes()))
    assert_same(tokenizer, reopened(tokenizer))
    assert_same(tokenizer, open_gguf(tokenizer.to_gguf()))
