"""Tokenizers as GGUF metadata carries them: `gpt2` (byte-level BPE) and `llama` (SentencePiece).

Source: the GGUF specification (ggml/docs/gguf.md) and llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from puna.errors import InputError
from puna.tokens.bytelevel import build_byte_level
from puna.tokens.pretokenizers import PRE, nearest
from puna.tokens.source import DEFAULT_TEMPLATE, Roles, Source
from puna.tokens.spm import SpmRules, build_spm
from puna.tokens.vocabulary import END_OF_TURN, Merge, TokenType, Vocabulary

PREFIX = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
_ROLE_KEYS = {"bos_id": "bos", "eos_id": "eos", "pad_id": "padding", "unk_id": "unknown"}
_END_KEYS = ("eot", "eom")


def read_gguf(metadata: Mapping[str, Any], *, where: Path | str) -> Source:
    """Read the `tokenizer.*` keys of a GGUF file.

    Raises:
        InputError: A key is missing or has the wrong type, the model or pre-tokenizer is unknown,
            a token occurs twice, an id is out of range, or the merges do not fit the tokens.
    """
    keys = _Keys(metadata, where)
    model = keys.text("model")
    if model not in ("gpt2", "llama"):
        raise InputError(
            f"{PREFIX}model is {model!r}; expected 'gpt2' or 'llama'",
            where=where,
            fix="a LLaMA has one of these two; is this another kind of model?",
        )
    vocabulary = keys.vocabulary()
    spm = model == "llama"
    ids = {role: keys.token_id(name, vocabulary) for role, name in _ROLE_KEYS.items()}
    if spm:
        for role, default in (("bos_id", 1), ("eos_id", 2), ("unk_id", 0)):
            if ids[role] is None and default < len(vocabulary.tokens):
                ids[role] = default
    ends = {keys.token_id(name, vocabulary) for name in _END_KEYS} - {None}
    rows = len(vocabulary.tokens)
    used = [index for index in (*ids.values(), *ends) if index is not None]
    vocabulary = vocabulary.unpadded(max(used, default=-1) + 1)
    vocabulary = _with_controls(vocabulary, {ids["bos_id"], ids["eos_id"], *ends} - {None}, spm)
    roles = Roles(
        bos_id=ids["bos_id"],
        eos_id=ids["eos_id"],
        pad_id=ids["pad_id"],
        unk_id=ids["unk_id"],
        end_ids=frozenset(index for index in ends if index is not None),
        templates=_templates(metadata, where),
    )
    build = _read_llama if spm else _read_gpt2
    source = build(keys, vocabulary, roles)
    return replace(source, padding=rows - len(vocabulary.tokens))


def _read_llama(keys: _Keys, vocabulary: Vocabulary, roles: Roles) -> Source:
    if vocabulary.scores is None:
        raise InputError(f"{PREFIX}scores is missing; a 'llama' model needs it", where=keys.where)
    assert roles.unk_id is not None
    rules = SpmRules(
        kind="bpe",
        unk_id=roles.unk_id,
        byte_fallback=bool(vocabulary.ids(TokenType.BYTE)),
        add_dummy_prefix=keys.flag("add_space_prefix", True),
        remove_extra_whitespaces=keys.flag("remove_extra_whitespaces", False),
        symbols_are_added=True,
    )
    backend = build_spm(vocabulary, rules, where=keys.where)
    return Source(backend, keys.where, keys.adding(roles, add_bos=True), vocabulary)


def _read_gpt2(keys: _Keys, vocabulary: Vocabulary, roles: Roles) -> Source:
    pre = keys.pre()
    merges = keys.merges()
    try:
        backend = build_byte_level(vocabulary, merges, pre=pre)
    except InputError as error:
        raise InputError(f"{PREFIX}merges: {error.what}", where=keys.where) from error
    roles = keys.adding(roles, add_bos=PRE[pre].add_bos)
    return Source(backend, keys.where, roles, vocabulary, pre)


def _with_controls(vocabulary: Vocabulary, ids: set[int | None], spm: bool) -> Vocabulary:
    """Mark as control tokens those that act as such, whatever the file calls them.

    llama.cpp does the same for the ends of turns: files exist that have them as plain text, and a
    user could then end the turn by writing the token.
    """
    controls = {index for index in ids if index is not None}
    controls |= {index for index, token in enumerate(vocabulary.tokens) if token in END_OF_TURN}
    kept = {TokenType.CONTROL, TokenType.UNKNOWN} if spm else {TokenType.CONTROL}
    types = list(vocabulary.types)
    for index in controls:
        if types[index] not in kept:
            types[index] = TokenType.CONTROL
    return Vocabulary(vocabulary.tokens, types, vocabulary.scores)


def _templates(metadata: Mapping[str, Any], where: Path | str) -> dict[str, str]:
    """`tokenizer.chat_template`, and named ones as `tokenizer.chat_template.NAME`."""
    templates = {}
    for key, value in metadata.items():
        if key != TEMPLATE and not key.startswith(TEMPLATE + "."):
            continue
        if not isinstance(value, str):
            raise InputError(f"{key} is not a string", where=where)
        templates[key.removeprefix(TEMPLATE).removeprefix(".") or DEFAULT_TEMPLATE] = value
    return templates


class _Keys:
    """The `tokenizer.ggml.*` keys, each with its type checked and named in errors."""

    def __init__(self, metadata: Mapping[str, Any], where: Path | str):
        self.metadata, self.where = metadata, where

    def text(self, name: str) -> str:
        value = self._get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "a boolean", value)
        return value

    def adding(self, roles: Roles, *, add_bos: bool) -> Roles:
        """The roles with what the file says on adding the first and last token."""
        bos = self.flag("add_bos_token", add_bos and roles.bos_id is not None)
        eos = self.flag("add_eos_token", False)
        return Roles(add_bos=bos, add_eos=eos).over(roles)

    def token_id(self, name: str, vocabulary: Vocabulary) -> int | None:
        value = self._get(f"{name}_token_id", None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(f"{name}_token_id", "a whole number", value)
        if not 0 <= value < len(vocabulary.tokens):
            raise InputError(
                f"{PREFIX}{name}_token_id is {value}; the vocabulary has "
                f"{len(vocabulary.tokens)} tokens",
                where=self.where,
            )
        return value

    def pre(self) -> str:
        """The name of the pre-tokenizer; llama.cpp's default where the file has none."""
        if f"{PREFIX}pre" not in self.metadata:
            warnings.warn(
                f"{self.where}: {PREFIX}pre is missing; reading it as 'default', as llama.cpp "
                "does, may cut words otherwise than the model was trained on",
                stacklevel=2,
            )
            return "default"
        name = self.text("pre")
        if name not in PRE:
            raise InputError(
                f"{PREFIX}pre is {name!r}, a pre-tokenizer that is not known here",
                where=self.where,
                fix=f"the nearest known name is {nearest(name)!r}; ids would be wrong with "
                "another, so convert the model from its tokenizer.json",
            )
        return name

    def vocabulary(self) -> Vocabulary:
        """Tokens, types and scores; an empty token gets the name that llama.cpp gives it."""
        tokens = self._list("tokens", str)
        if "" in tokens:
            tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
        types = [1] * len(tokens)
        if f"{PREFIX}token_type" in self.metadata:
            types = self._list("token_type", int)
        scores = self._list("scores", float) if f"{PREFIX}scores" in self.metadata else None
        return Vocabulary(tokens, types, scores).checked(f"{self.where}: {PREFIX}tokens")

    def merges(self) -> list[Merge]:
        merges: list[Merge] = []
        for index, merge in enumerate(self._list("merges", str)):
            cut = merge.find(" ", 1)
            if cut < 0:
                raise InputError(
                    f"{PREFIX}merges[{index}] is {merge!r}; expected two tokens and a space "
                    "between them",
                    where=self.where,
                )
            merges.append((merge[:cut], merge[cut + 1 :]))
        return merges

    def _list(self, name: str, kind: type) -> list[Any]:
        value = self._get(name)
        values = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(values, list | tuple) or not set(map(type, values)) <= {kind}:
            raise self._wrong(name, f"a list of {kind.__name__}", values)
        return list(values)

    def _get(self, name: str, *default: Any) -> Any:
        key = PREFIX + name
        if key not in self.metadata and not default:
            raise InputError(f"{key} is missing", where=self.where)
        return self.metadata.get(key, *default)

    def _wrong(self, name: str, expected: str, found: Any) -> InputError:
        return InputError(
            f"{PREFIX}{name}: expected {expected}, found {type(found).__name__}", where=self.where
        )
