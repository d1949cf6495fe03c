"""tokenizer.json and the files beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from puna.errors import InputError
from puna.store.checkpoint import TokenizerFiles
from puna.tokens import open_tokenizer
from tokens.samples import CORPUS, ODD, PLACE, named, open_files, tiny_json


def changed(**changes: object) -> bytes:
    return json.dumps(json.loads(tiny_json()) | changes).encode()


def config(**keys: object) -> bytes:
    return json.dumps(keys).encode()


def test_equal_to_tokenizers():
    reference, tokenizer = Backend.from_buffer(tiny_json()), open_files(tokenizer_json=tiny_json())
    for text in [*ODD, *CORPUS[:6]]:
        parsed = reference.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, special=True) == parsed
        assert tokenizer.decode(parsed) == reference.decode(parsed)
        raw = reference.decode(parsed, skip_special_tokens=False)
        assert tokenizer.decode(parsed, skip_special=False) == raw
    assert tokenizer.vocab_size == reference.get_vocab_size()
    assert repr(tokenizer) == "Tokenizer(402 tokens, byte_level, from checkpoint/tokenizer.json)"


def test_batches_equal_single_texts():
    tokenizer = open_files(tokenizer_json=tiny_json())
    assert tokenizer.encode_batch(ODD) == [tokenizer.encode(text) for text in ODD]
    assert tokenizer.encode_batch([]) == []


def test_first_and_last_token():
    backend = Backend.from_buffer(tiny_json())
    backend.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A <|im_end|>",
        pair="$A $B",
        special_tokens=[("<|bos|>", 400), ("<|im_end|>", 401)],
    )
    data = backend.to_str().encode()
    tokenizer = open_files(tokenizer_json=data)
    plain = tokenizer.encode("hi", bos=False, eos=False)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (400, 401)
    assert tokenizer.encode("hi") == [400, *plain, 401] == backend.encode("hi").ids
    assert tokenizer.encode("", eos=False) == [400]
    refusing = config(add_bos_token=False, add_eos_token=False)
    tokenizer = open_files(tokenizer_json=data, tokenizer_config_json=refusing)
    assert tokenizer.encode("hi") == plain
    assert tokenizer.encode("hi", bos=True, eos=True) == [400, *plain, 401]


def test_no_token_to_begin_with():
    tokenizer = open_files(tokenizer_json=tiny_json())
    with pytest.raises(InputError, match="the vocabulary has no bos token"):
        tokenizer.encode("hi", bos=True)


def test_roles_from_side_files():
    tokenizer = open_files(
        tokenizer_json=tiny_json(),
        special_tokens_map_json=config(bos_token={"content": "<|bos|>"}, eos_token="<|bos|>"),
        tokenizer_config_json=config(eos_token="<|im_end|>", pad_token=None, add_bos_token=True),
    )
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (400, 401, None)
    assert tokenizer.add_bos and not tokenizer.add_eos
    empty = open_files(tokenizer_json=tiny_json(), tokenizer_config_json=config(bos_token=""))
    assert empty.bos_id is None
    assert tokenizer.special_tokens == {"<|bos|>": 400, "<|im_end|>": 401}


def test_stop_ids_come_from_everywhere():
    files = TokenizerFiles(files=named(tokenizer_json=tiny_json()))
    for value, expected in ((400, {400, 401}), ([1, 2], {1, 2, 401}), (None, {401})):
        ends = {"eos_token_id": value}
        tokenizer = open_tokenizer(files, where=PLACE, generation_config=ends)
        assert tokenizer.stop_ids == expected
    with pytest.raises(InputError, match=r"generation_config\.json: eos_token_id is 'x'"):
        open_tokenizer(files, where=PLACE, generation_config={"eos_token_id": "x"})
    with pytest.raises(InputError, match="the stop token has the id 999"):
        open_tokenizer(files, where=PLACE, generation_config={"eos_token_id": 999})


def test_names_and_bytes():
    tokenizer = open_files(tokenizer_json=tiny_json())
    index = tokenizer.token_to_id("Ġllama")
    assert index is not None and tokenizer.id_to_token(index) == "Ġllama"
    assert tokenizer.token_bytes(index) == b" llama"
    assert tokenizer.token_bytes(400) == b"<|bos|>"
    assert tokenizer.token_to_id("no such token") is None
    with pytest.raises(InputError, match="there is no token 402: the vocabulary has 402"):
        tokenizer.id_to_token(402)


def test_truncation_padding_and_dropout_of_the_file_are_not_kept():
    backend = Backend.from_buffer(tiny_json())
    backend.enable_truncation(3)
    backend.enable_padding(length=100)
    backend.model.dropout = 0.9
    tokenizer = open_files(tokenizer_json=backend.to_str().encode())
    expected = open_files(tokenizer_json=tiny_json()).encode(CORPUS[0])
    assert [tokenizer.encode(CORPUS[0]) for _ in range(5)] == [expected] * 5


def test_llama2_tokenizer_json_in_both_styles():
    """Published files of LLaMA-2 prepend the space in the normalizer, or by Metaspace."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcé"]
    vocabulary = {name: index for index, name in enumerate([*names, "ab", "▁ab"])}
    merges = [("a", "b"), ("▁", "ab")]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    for style in ("normalizer", "metaspace"):
        backend = Backend(model)
        if style == "normalizer":
            backend.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        else:
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
        backend.add_special_tokens(["<unk>", "<s>", "</s>"])
        tokenizer = open_files(tokenizer_json=backend.to_str().encode())
        for text in ["ab é", "  ab", "羊\n", "", "<s>ab", "ab</s>ab"]:
            parsed = backend.encode(text, add_special_tokens=False).ids
            assert tokenizer.encode(text, special=True) == parsed
            if style == "normalizer" or not text.startswith(" "):  # Metaspace adds no third space
                assert tokenizer.decode(tokenizer.encode(text)) == text
            assert not {1, 2} & set(tokenizer.encode(text))
        assert tokenizer.unk_id == 0
        written = tokenizer.to_gguf()
        assert written["tokenizer.ggml.model"] == "llama"
        assert written["tokenizer.ggml.add_space_prefix"] is True
        assert written["tokenizer.ggml.token_type"][:5] == [2, 3, 3, 6, 6]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no tokenizer: expected tokenizer.json, tokenizer.model or GGUF metadata"),
        ({"tokenizer_json": b"{"}, "tokenizer.json: is not JSON"),
        ({"tokenizer_json": b"\xff"}, "tokenizer.json: is not UTF-8|tokenizer.json: is not"),
        ({"tokenizer_json": b"{}"}, "tokenizer.json: is not a valid tokenizer"),
        ({"tokenizer_json": tiny_json()[:-50]}, "tokenizer.json: is not JSON"),
        ({"tokenizer_json": changed(decoder=None)}, "its decoder is none; expected a byte-level"),
        (
            {
                "tokenizer_json": changed(
                    decoder={"type": "WordPiece", "prefix": "#", "cleanup": True}
                )
            },
            "its decoder is WordPiece",
        ),
        ({"tokenizer_config_json": b"[]"}, "tokenizer_config.json: is not a JSON object"),
        ({"tokenizer_config_json": b"{,"}, "tokenizer_config.json: is not JSON"),
        (
            {"tokenizer_config_json": config(eos_token="</s>")},
            "tokenizer_config.json: eos_token is '</s>', which is not in the vocabulary",
        ),
        (
            {"special_tokens_map_json": config(pad_token={"content": "[PAD]"})},
            "special_tokens_map.json: pad_token is '.PAD.', which is not in the vocabulary",
        ),
        ({"tokenizer_config_json": config(eos_token=3)}, "eos_token is 3; expected a token"),
        ({"tokenizer_config_json": config(add_bos_token="yes")}, "add_bos_token is 'yes'"),
        ({"tokenizer_config_json": config(chat_template=5)}, "chat_template: expected a text, or"),
        ({"chat_template_jinja": b"\xff"}, "chat_template.jinja: is not UTF-8 at byte 0"),
    ],
)
def test_broken_files_are_named(files: dict[str, bytes], message: str):
    files = (
        files if "tokenizer_json" in files or not files else {"tokenizer_json": tiny_json()} | files
    )
    with pytest.raises(InputError, match=message):
        open_files(**files)


def _with_model(**changes: object) -> bytes:
    data = json.loads(tiny_json())
    data["model"] |= changes
    return json.dumps(data).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_with_model(merges=[["zz", "z"]]), "is not a valid tokenizer: .*zz"),
        (_with_model(vocab={"a": 0, "b": 0}, merges=[]), "two tokens have the same id"),
        (_with_model(vocab={"a": 0, "b": 10**9}, merges=[]), "but an id of 1000000000"),
    ],
)
def test_broken_vocabularies_are_named(data: bytes, message: str):
    with pytest.raises(InputError, match=message) as caught:
        open_files(tokenizer_json=data)
    assert str(PLACE / "tokenizer.json") in str(caught.value)


def test_text_that_is_not_text():
    tokenizer = open_files(tokenizer_json=tiny_json())
    with pytest.raises(InputError, match="a lone surrogate at character 1"):
        tokenizer.encode("a\ud800")
    with pytest.raises(InputError, match="expected a text to encode, found bytes"):
        tokenizer.encode(b"a")  # type: ignore[arg-type]


def test_importing_the_room_imports_no_torch():
    import subprocess
    import sys

    code = "import sys, puna.tokens; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
