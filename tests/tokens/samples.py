"""What the tests of this room share: odd texts, real lines, tiny vocabularies, readers."""

from __future__ import annotations

import base64
import functools
import gzip
import io
import json
import struct
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from puna.store.checkpoint import TokenizerFiles
from puna.tokens import Tokenizer, open_tokenizer
from puna.tokens.pretokenizers import LLAMA3

PLACE = Path("checkpoint")

ODD = [
    "",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n\r\n",
    " leading",
    "trailing ",
    "two  spaces   three",
    "\ttab\tand\u00a0no-break\u3000ideographic",
    "zero\u200bwidth\u200djoiner\ufeff",
    "e\u0301 o\u0308 combining",
    "Hello, world! I'LL don't WE'VE",
    "1234567890 12 3 ½ ²",
    "你好，世界。「引号」",
    "日本語のテキスト 한국어 العربية हिन्दी ไทย",
    "🦙 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 👍🏽",
    "def f(x):\n    return x ** 2  # comment\n",
    '{"key": [1, 2.5, null], "s": "a\\nb"}',
    "----========####    ----",
    "<s>[INST] hi [/INST]</s> <unk> <0x0A> <|im_end|><|eot_id|>",
    "▁already ▁▁ escaped",
    "a" * 70,
    " " * 33 + "x",
    "\x00\x01\x7f",
    "\U00010348\U0001f999\uffff",
]

CORPUS = [
    "Once upon a time there was a llama who lived on the high grassland.",
    "The quick brown fox jumps over the lazy dog, again and again and again.",
    "Le lama vit sur la puna; der Lama lebt auf der Hochebene.",
    "羊驼住在高原上。羊驼吃草。",
    "for i in range(10): print(i, 'llama')",
    "1 22 333 4444 55555",
] * 4


def open_files(**files: bytes) -> Tokenizer:
    """Open from files; in names, `_json`, `_model` and `_jinja` stand for the extensions."""
    return open_tokenizer(TokenizerFiles(files=named(**files)), where=PLACE)


def named(**files: bytes) -> dict[str, bytes]:
    names = {}
    for name, data in files.items():
        stem, _, extension = name.rpartition("_")
        names[f"{stem}.{extension}"] = data
    return names


def open_gguf(metadata: dict[str, Any], **options: Any) -> Tokenizer:
    return open_tokenizer(TokenizerFiles(gguf=metadata), where=Path("model.gguf"), **options)


def gguf_metadata(path: Path) -> dict[str, Any]:
    """The `tokenizer.*` keys of a GGUF file."""
    return dict(_read_gguf(path))


@functools.cache
def _read_gguf(path: Path) -> dict[str, Any]:
    """A reader of GGUF v3 metadata; that of the gguf package takes ten seconds for LLaMA-3."""
    data, position, found = path.read_bytes()[: 2**24], 24, {}
    (count,) = struct.unpack_from("<Q", data, 16)

    def take(code: str) -> Any:
        nonlocal position
        values = struct.unpack_from(f"<{code}", data, position)
        position += struct.calcsize(f"<{code}")
        return values[0] if len(values) == 1 else list(values)

    def value(kind: int) -> Any:
        nonlocal position
        if kind == 8:
            length = take("Q")
            position += length
            return str(data[position - length : position], "utf-8")
        if kind == 9:
            inner, size = take("I"), take("Q")
            if inner == 8:
                return [value(8) for _ in range(size)]
            items = take(f"{size}{CODES[inner]}")
            return items if isinstance(items, list) else [items]
        return take(CODES[kind])

    for _ in range(count):
        key, kind = value(8), take("I")
        found[key] = value(kind)
    return {key: item for key, item in found.items() if key.startswith("tokenizer.")}


CODES = dict(enumerate("BbHhIif?")) | dict(zip((10, 11, 12), "Qqd", strict=True))


def golden(folder: Path, name: str, tmp_path: Path) -> tuple[dict[str, Any], list, list]:
    """A ggml vocabulary and its golden vectors: metadata, texts, ids."""
    packed = folder / "llama-tokenizers" / f"{name}.gguf.gz"
    plain = tmp_path / f"{name}.gguf"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    inputs = packed.with_suffix(".inp").read_bytes().decode("utf-8")
    outputs = packed.with_suffix(".out").read_text(encoding="utf-8")
    texts = inputs.split("\n__ggml_vocab_test__\n")
    ids = [[int(word) for word in line.split()] for line in outputs.split("\n")]
    return gguf_metadata(plain), texts[: len(ids)], ids[: len(texts)]


@functools.cache
def real_lines(folder: Path) -> list[str]:
    """Some seven thousand lines in ten languages, with emoji and code."""
    lines: list[str] = []
    for name, per_document, documents in (
        ("wiki-multilingual/articles.jsonl.gz", 8, 700),
        ("zh-laws/laws.jsonl.gz", 10, 80),
        ("pydocs-en-zh/pydocs.jsonl.gz", 2, 400),
        ("emoji/emoji.jsonl.gz", 2, 300),
    ):
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            for document, _ in zip(file, range(documents), strict=False):
                for value in json.loads(document).values():
                    if isinstance(value, str):
                        lines += value.split("\n")[:per_document]
    with gzip.open(folder / "tatoeba-en-zh" / "cmn.txt.gz", "rt", encoding="utf-8") as file:
        lines += [line.rstrip("\n") for line, _ in zip(file, range(800), strict=False)]
    code = Path(__file__).read_text(encoding="utf-8")
    return [*lines, *code.split("\n"), code]


@functools.cache
def tiny_sentencepiece(**options: Any) -> bytes:
    """A SentencePiece model trained here and now."""
    writer = io.BytesIO()
    settings = {"vocab_size": 380 if options.get("byte_fallback") else 120}
    for name, value in options.items():
        settings[name] = list(value) if isinstance(value, tuple) else value
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=writer,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    return writer.getvalue()


def reference_spm(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@functools.cache
def tiny_json(split: str = LLAMA3, specials: tuple[str, ...] = ("<|bos|>", "<|im_end|>")) -> bytes:
    """A byte-level BPE in tokenizer.json, trained here and now."""
    backend = Backend(models.BPE(ignore_merges=True))
    from tokenizers import Regex

    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_special_tokens(list(specials))
    return backend.to_str().encode()


@functools.cache
def tiny_ranks() -> bytes:
    """The same vocabulary as tiktoken ranks."""
    model = json.loads(tiny_json())["model"]
    decoder = {char: byte for byte, char in _alphabet().items()}
    by_rank = sorted(model["vocab"], key=model["vocab"].__getitem__)
    lines = (
        base64.b64encode(bytes(decoder[char] for char in token)) + b" %d" % rank
        for rank, token in enumerate(by_rank)
    )
    return b"\n".join(lines) + b"\n"


def _alphabet() -> dict[int, str]:
    """GPT-2's bytes_to_unicode, written out independently."""
    table, fresh = {}, 256
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(fresh)
            fresh += 1
    return table


def read_llama2c(path: Path, vocab_size: int = 512) -> dict[str, Any]:
    """The tokenizer export of llama2.c as GGUF metadata of the model 'llama'.

    int32 length of the longest token, then per token float32 score, int32 length, bytes.
    """
    data = path.read_bytes()
    tokens, scores, types = [], [], []
    position = 4
    for index in range(vocab_size):
        score, length = struct.unpack_from("<fi", data, position)
        position += 8
        token = data[position : position + length].decode("utf-8")
        position += length
        byte = len(token) == 6 and token.startswith("<0x")
        tokens.append({0: "<unk>", 1: "<s>", 2: "</s>"}.get(index, token.replace(" ", "▁")))
        scores.append(score)
        types.append({0: 2, 1: 3, 2: 3}.get(index, 6 if byte else 1))
    assert position == len(data)
    keys = {"model": "llama", "tokens": tokens, "scores": scores, "token_type": types}
    return {f"tokenizer.ggml.{name}": value for name, value in keys.items()}
