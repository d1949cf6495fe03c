"""Write a tokenizer: as the files that transformers reads, or as the metadata of a GGUF file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as Backend
from tokenizers import models, processors

from puna.errors import InputError
from puna.tokens.gguf_vocab import PREFIX, TEMPLATE
from puna.tokens.pretokenizers import name_of
from puna.tokens.sidecar import CHAT_TEMPLATE, CONFIG, SPECIAL_TOKENS
from puna.tokens.source import DEFAULT_TEMPLATE, Roles, Source
from puna.tokens.vocabulary import SPACE, TokenType, Vocabulary, byte_of, padding_name

if TYPE_CHECKING:
    from puna.tokens.tokenizer import Tokenizer


def framing(tokenizer: Tokenizer) -> processors.PostProcessor:
    """The post-processor that puts the first and the last token around a text."""
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    before = [tokenizer.id_to_token(bos)] if tokenizer.add_bos and bos is not None else []
    after = [tokenizer.id_to_token(eos)] if tokenizer.add_eos and eos is not None else []
    ids = {token: tokenizer.token_to_id(token) for token in (*before, *after)}
    return processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[
            *before,
            "$A",
            *after,
            *(f"{t}:1" for t in before),
            "$B:1",
            *(f"{t}:1" for t in after),
        ],
        special_tokens=list(ids.items()),
    )


def to_files(tokenizer: Tokenizer, backend: Backend, roles: Roles) -> dict[str, bytes]:
    """See `Tokenizer.to_files`."""
    tokens = _named_roles(tokenizer)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": tokenizer.add_bos,
        "add_eos_token": tokenizer.add_eos,
        "clean_up_tokenization_spaces": False,
        **tokens,
    }
    files = {"tokenizer.json": backend.to_str().encode("utf-8")}
    templates = dict(roles.templates)
    if set(templates) == {DEFAULT_TEMPLATE}:
        files[CHAT_TEMPLATE] = templates[DEFAULT_TEMPLATE].encode("utf-8")
    elif templates:
        named = [{"name": name, "template": text} for name, text in templates.items()]
        config["chat_template"] = named
    return {**files, CONFIG: _json(config), SPECIAL_TOKENS: _json(tokens)}


def to_gguf(tokenizer: Tokenizer, source: Source, roles: Roles, *, rows: int) -> dict[str, Any]:
    """See `Tokenizer.to_gguf`; `rows` are those of the model's embedding."""
    backend = source.backend
    if not isinstance(backend.model, models.BPE):
        raise InputError(
            f"GGUF cannot carry a {type(backend.model).__name__} vocabulary of a LLaMA; "
            "expected a BPE vocabulary",
            where=source.where,
        )
    _check_normalizer(backend, source)
    model = json.loads(backend.model.__getstate__())
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    vocabulary = source.vocabulary or _vocabulary(tokenizer, backend, merges)
    vocabulary = vocabulary.padded(rows)
    keys: dict[str, Any] = {"tokens": list(vocabulary.tokens)}
    if tokenizer.scheme == "sentencepiece":
        keys |= {"model": "llama", "pre": "default", "scores": _scores(vocabulary)}
        keys["add_space_prefix"] = _adds_space(backend)
        if _collapses_spaces(backend):
            keys["remove_extra_whitespaces"] = True
    else:
        pre = source.pre or name_of(backend.pre_tokenizer, ignore_merges=model["ignore_merges"])
        if pre is None:
            raise InputError(
                "llama.cpp has no name for this pre-tokenizer, so GGUF cannot carry it",
                where=source.where,
            )
        keys |= {"model": "gpt2", "pre": pre, "merges": merges, "add_space_prefix": False}
    keys["token_type"] = [int(kind) for kind in vocabulary.types]
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    ids |= {
        "unknown": tokenizer.unk_id,
        "padding": tokenizer.pad_id,
        "eot": _end_of_turn(tokenizer),
    }
    keys |= {f"{name}_token_id": index for name, index in ids.items() if index is not None}
    keys |= {"add_bos_token": tokenizer.add_bos, "add_eos_token": tokenizer.add_eos}
    metadata = {PREFIX + name: value for name, value in keys.items()}
    for name, text in roles.templates.items():
        metadata[TEMPLATE if name == DEFAULT_TEMPLATE else f"{TEMPLATE}.{name}"] = text
    named = [name for name in roles.templates if name != DEFAULT_TEMPLATE]
    return metadata | ({f"{TEMPLATE}s": named} if named else {})


def _vocabulary(tokenizer: Tokenizer, backend: Backend, merges: list[str]) -> Vocabulary:
    """Tokens, types and scores of a vocabulary that was read from tokenizer.json.

    SentencePiece's scores are not in that file; the rank of the merge that makes a token orders
    tokens as they did.
    """
    spm = tokenizer.scheme == "sentencepiece"
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    added = backend.get_added_tokens_decoder()
    names = {index: token for token, index in backend.get_vocab(with_added_tokens=True).items()}
    tokens, types = [], []
    for index in range(tokenizer.vocab_size):
        token = names.get(index)
        kind = TokenType.NORMAL
        if token is None:
            token, kind = padding_name(index), TokenType.UNUSED
        elif spm and index == tokenizer.unk_id:
            kind = TokenType.UNKNOWN
        elif index in added:
            kind = TokenType.CONTROL if added[index].special else TokenType.USER_DEFINED
        elif spm and byte_of(token) is not None:
            kind = TokenType.BYTE
        tokens.append(token)
        types.append(kind)
    last = float(len(merges))
    scores = [
        -float(ranks.get(token, last)) if kind == TokenType.NORMAL else 0.0
        for token, kind in zip(tokens, types, strict=True)
    ]
    return Vocabulary(tokens, types, scores if spm else None)


def _scores(vocabulary: Vocabulary) -> list[float]:
    assert vocabulary.scores is not None, "a SentencePiece vocabulary has scores"
    return [float(score) for score in vocabulary.scores]


def _adds_space(backend: Backend) -> bool:
    """Whether "a" is read as " a", by trying it out."""
    first = backend.encode("a", add_special_tokens=False).tokens[:1]
    return bool(first) and first[0].startswith(SPACE)


def _collapses_spaces(backend: Backend) -> bool:
    """Whether a run of spaces is read as one, by trying it out."""
    return backend.normalizer is not None and (
        2 * SPACE not in backend.normalizer.normalize_str("a  a").replace(" ", SPACE)
    )


def _check_normalizer(backend: Backend, source: Source) -> None:
    """Refuse a normalization of characters; GGUF has a place for that of spaces only.

    Raises:
        InputError: There is such a normalization; it is named.
    """
    if backend.normalizer is None:
        return
    state = json.loads(backend.normalizer.__getstate__())
    steps = state["normalizers"] if state["type"] == "Sequence" else [state]
    others = [step["type"] for step in steps if step["type"] not in ("Prepend", "Replace")]
    if others:
        raise InputError(
            f"normalizes text by {' and '.join(others)}, which GGUF cannot carry for a LLaMA",
            where=source.where,
        )


def _end_of_turn(tokenizer: Tokenizer) -> int | None:
    """The token that ends a turn, where it is not the one that ends a text."""
    names = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>")
    ids = (tokenizer.special_tokens.get(name) for name in names)
    found = next((index for index in ids if index is not None), None)
    return None if found == tokenizer.eos_id else found


def _named_roles(tokenizer: Tokenizer) -> dict[str, str]:
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id}
    ids |= {"unk": tokenizer.unk_id, "pad": tokenizer.pad_id}
    return {
        f"{role}_token": tokenizer.id_to_token(index)
        for role, index in ids.items()
        if index is not None
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
