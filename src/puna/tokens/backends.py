"""What must be known of, or done to, a `tokenizers` backend whatever it was built from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import models

from puna.errors import InputError
from puna.tokens.vocabulary import SPACE, Scheme

EDGE_SPACES, END_SPACES = r"\A +| +\z", r" +\z"
_SHIELD = "\ufdd0"  # a noncharacter: what begins with it is out of the reach of any text


def scheme_of(backend: Backend, *, where: Path | str) -> tuple[Scheme, int]:
    """How tokens stand for text, and how many spaces decoding removes at the beginning.

    Raises:
        InputError: The decoder is none of those that LLaMAs have.
    """
    decoder: dict[str, Any] = {"type": "none"}
    if backend.decoder:
        decoder = json.loads(backend.decoder.__getstate__())
    steps: list[dict[str, Any]]
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return "byte_level", 0
    if kinds == ["Metaspace"] and steps[0]["replacement"] == SPACE:
        return "sentencepiece", int(steps[0]["prepend_scheme"] != "never")
    if kinds[:1] == ["Replace"] and set(kinds[1:]) <= {"ByteFallback", "Fuse", "Strip"}:
        return "sentencepiece", int(steps[-1].get("start", 0))
    raise InputError(
        f"its decoder is {' + '.join(kinds)}; expected a byte-level or SentencePiece decoder, "
        "the two that LLaMAs have",
        where=where,
    )


def with_specials(backend: Backend, names: frozenset[str]) -> Backend:
    """A backend whose added tokens of these names are special; itself where they are already."""
    added = backend.get_added_tokens_decoder()
    wanted = {i for i, token in added.items() if token.content in names and not token.special}
    if not wanted:
        return backend
    state = json.loads(backend.to_str())  # the library can add tokens, but not change them
    for token in state["added_tokens"]:
        token["special"] = token["special"] or token["id"] in wanted
    return Backend.from_str(json.dumps(state))


def without_specials(backend: Backend, special_ids: frozenset[int]) -> Backend:
    """A backend that shares the model but takes special tokens in a text for plain text."""
    model, hidden = backend.model, frozenset[int]()
    if isinstance(model, models.Unigram):
        # A Unigram model may choose any of its pieces: those of special tokens are renamed.
        state = json.loads(model.__getstate__())
        pieces = [
            (_SHIELD + piece if index in special_ids else piece, score)
            for index, (piece, score) in enumerate(state["vocab"])
        ]
        model = models.Unigram(pieces, state["unk_id"], state["byte_fallback"])
        hidden = frozenset(range(len(pieces))) & special_ids
    plain = Backend(model)
    if backend.normalizer:
        plain.normalizer = backend.normalizer
    if backend.pre_tokenizer:
        plain.pre_tokenizer = backend.pre_tokenizer
    added = sorted(backend.get_added_tokens_decoder().items())
    plain.add_tokens([token for index, token in added if index not in hidden])
    plain.encode_special_tokens = True
    return plain


def continuing(plain: Backend) -> Backend:
    """A backend for text in the middle of other text: no space is put or removed before it."""
    front = {
        name: None if step is None else json.loads(step.__getstate__())
        for name, step in (("normalizer", plain.normalizer), ("pre_tokenizer", plain.pre_tokenizer))
    }
    changed = {name: _without_prefix(step) for name, step in front.items()}
    if changed == front:
        return plain
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    parts = Backend.from_str(json.dumps({"model": empty, "added_tokens": [], **changed}))
    inner = Backend(plain.model)
    if parts.normalizer:
        inner.normalizer = parts.normalizer
    if parts.pre_tokenizer:
        inner.pre_tokenizer = parts.pre_tokenizer
    inner.add_tokens([token for _, token in sorted(plain.get_added_tokens_decoder().items())])
    inner.encode_special_tokens = True
    return inner


def prefixes_once(backend: Backend) -> bool:
    """Whether only the beginning of the whole text gets a space, not text after a special token."""
    if backend.pre_tokenizer is None:
        return False
    state = json.loads(backend.pre_tokenizer.__getstate__())
    steps = state["pretokenizers"] if state["type"] == "Sequence" else [state]
    return any(step.get("prepend_scheme") == "first" for step in steps)


def _without_prefix(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normalizer or pre-tokenizer that leaves the beginning of a text as it is."""
    if step is None:
        return None
    for key in ("normalizers", "pretokenizers"):
        if key in step:
            inner = map(_without_prefix, step[key])
            return {**step, key: [item for item in inner if item is not None]}
    if step["type"] == "Prepend":
        return None
    if step["type"] == "Replace" and step["pattern"] == {"Regex": EDGE_SPACES}:
        return {**step, "pattern": {"Regex": END_SPACES}}
    neutral = {"prepend_scheme": "never", "add_prefix_space": False, "strip_left": False}
    return {key: neutral.get(key, value) for key, value in step.items()}
