"""Side files of other layouts, padded vocabularies, and markers that files call plain text."""

from __future__ import annotations

import json

import pytest

from puna.errors import InputError
from puna.store.checkpoint import TokenizerFiles
from puna.tokens import BUILTIN_TEMPLATES, Tokenizer, open_tokenizer
from tokens.samples import (
    PLACE,
    named,
    open_files,
    open_gguf,
    tiny_json,
    tiny_ranks,
    tiny_sentencepiece,
)

SPM = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
MODEL = tiny_sentencepiece(**SPM, remove_extra_whitespaces=False)
SIZE = open_files(tokenizer_model=MODEL).vocab_size


def with_added(table: dict[str, object], **files: bytes) -> Tokenizer:
    data = json.dumps(table).encode()
    return open_files(tokenizer_model=MODEL, added_tokens_json=data, **files)


def test_added_tokens_json_beside_a_sentencepiece_model():
    """As Alpaca, Vicuna and OpenChat are laid out."""
    special = {"pad_token": "[PAD]", "additional_special_tokens": ["<x>"]}
    tokenizer = with_added(
        {"<unk>": 0, "[PAD]": SIZE, "<|end_of_turn|>": SIZE + 1, "<x>": SIZE + 2, "word": SIZE + 3},
        special_tokens_map_json=json.dumps(special).encode(),
    )
    assert tokenizer.vocab_size == SIZE + 4
    assert tokenizer.pad_id == SIZE
    assert SIZE + 1 in tokenizer.stop_ids
    names = ("[PAD]", "<|end_of_turn|>", "<x>")
    assert [tokenizer.special_tokens[name] for name in names] == [SIZE, SIZE + 1, SIZE + 2]
    assert "word" not in tokenizer.special_tokens
    assert tokenizer.encode("a<x>b", special=True).count(SIZE + 2) == 1
    assert SIZE + 2 not in tokenizer.encode("a<x>b")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"[PAD]": SIZE + 1}, "expected no gap after"),
        ({"[PAD]": 5}, "the added token '[PAD]' has the id 5, which is that of"),
        ({"[PAD]": "5"}, "added_tokens.json: '[PAD]' has the id '5'; expected a whole number"),
        ({"[PAD]": -1}, "added_tokens.json: '[PAD]' has the id -1; expected a whole number"),
        ({"[PAD]": True}, "added_tokens.json: '[PAD]' has the id True; expected a whole number"),
        ([1], "added_tokens.json: is not a JSON object"),
    ],
)
def test_added_tokens_json_that_does_not_fit(table, message):
    with pytest.raises(InputError) as caught:
        with_added(table)
    assert message in str(caught.value) and "added_tokens.json" in str(caught.value)


def test_two_files_that_disagree_on_an_id():
    config = {"added_tokens_decoder": {str(SIZE): {"content": "a-token"}}}
    with pytest.raises(InputError, match="is that of 'b-token' here and of 'a-token' elsewhere"):
        with_added({"b-token": SIZE}, tokenizer_config_json=json.dumps(config).encode())


def test_chat_template_json():
    old = b'{"chat_template": "old"}'
    files = {"tokenizer_json": tiny_json(), "chat_template_json": old}
    assert open_files(**files).chat_template == "old"
    config = b'{"chat_template": "config"}'
    assert open_files(**files, tokenizer_config_json=config).chat_template == "config"
    assert open_files(**files, chat_template_jinja=b"file").chat_template == "file"
    with pytest.raises(InputError, match=r"chat_template\.json: chat_template: expected a text"):
        open_files(tokenizer_json=tiny_json(), chat_template_json=b'{"chat_template": 1}')


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_json": tiny_json()},
        {"tokenizer_model": tiny_ranks()},
        {"tokenizer_model": MODEL},
    ],
    ids=["json", "ranks", "spm"],
)
def test_a_padded_vocabulary_goes_through_gguf(files):
    source = TokenizerFiles(files=named(**files))
    size = open_tokenizer(source, where=PLACE).vocab_size
    rows = size + 3
    padded = open_tokenizer(source, where=PLACE, vocab_size=rows)
    written = padded.to_gguf()
    assert written["tokenizer.ggml.tokens"][size:] == [f"[PAD{i}]" for i in range(size, rows)]
    assert written["tokenizer.ggml.token_type"][size:] == [5] * 3
    assert len(written["tokenizer.ggml.token_type"]) == rows
    if "tokenizer.ggml.scores" in written:
        assert len(written["tokenizer.ggml.scores"]) == rows
    for options in ({}, {"vocab_size": rows}):
        read = open_gguf(written, **options)
        assert read.vocab_size == padded.vocab_size == size
        assert read.special_tokens == padded.special_tokens
        assert read.decode([rows - 1, size]) == padded.decode([rows - 1, size]) == ""
        text = f"a [PAD{size}] llama"
        assert read.encode(text) == padded.encode(text)
        assert read.to_gguf() == written
        with pytest.raises(InputError, match="there is no token"):
            read.decode([rows])


def test_padding_with_a_role_stays_a_token():
    written = open_tokenizer(
        TokenizerFiles(files=named(tokenizer_json=tiny_json())), where=PLACE, vocab_size=405
    ).to_gguf()
    written["tokenizer.ggml.padding_token_id"] = 403
    assert open_gguf(written).vocab_size == 404


MARKERS = ("<|bos|>", "<|im_start|>", "<|im_end|>", "<|mine|>", "<tool_call>")


def plainly_marked(template: str) -> Tokenizer:
    """A tokenizer whose file calls every added token plain text."""
    state = json.loads(tiny_json(specials=MARKERS))
    for token in state["added_tokens"]:
        token["special"] = False
    return open_files(
        tokenizer_json=json.dumps(state).encode(),
        tokenizer_config_json=b'{"bos_token": "<|bos|>"}',
        chat_template_jinja=template.encode(),
    )


def test_markers_are_special_whatever_the_file_says():
    tokenizer = plainly_marked(BUILTIN_TEMPLATES["chatml"] + "{# <|mine|> #}")
    ids = [tokenizer.token_to_id(name) for name in MARKERS]
    assert tokenizer.special_tokens == dict(zip(MARKERS[:4], ids[:4], strict=True))
    text = "a".join(MARKERS)
    found = set(tokenizer.encode(text, bos=False)) & set(ids)
    assert found == {ids[4]}, "what a model calls a tool by is text, as the file says"
    assert set(tokenizer.encode(text, special=True, bos=False)) >= set(ids)
    assert tokenizer.token_to_id("<|im_end|>") in tokenizer.stop_ids
    chat = tokenizer.encode_chat([{"role": "user", "content": "".join(MARKERS)}])
    assert [index for index in chat if index in ids[:4]] == [ids[1], ids[2], ids[1]]
    again = open_gguf(tokenizer.to_gguf())
    assert again.special_tokens == tokenizer.special_tokens
    assert again.encode(text) == tokenizer.encode(text)


def test_user_defined_pieces_that_are_markers():
    model = tiny_sentencepiece(**SPM, user_defined_symbols=("<|im_end|>", "<|mine|>", "<sep>"))
    tokenizer = open_files(tokenizer_model=model, chat_template_jinja=b"<|mine|>")
    ids = {name: tokenizer.token_to_id(name) for name in ("<|im_end|>", "<|mine|>", "<sep>")}
    found = set(tokenizer.encode("a<|im_end|>b<|mine|>c<sep>"))
    assert found & set(ids.values()) == {ids["<sep>"]}
    assert ids["<|im_end|>"] in tokenizer.stop_ids
