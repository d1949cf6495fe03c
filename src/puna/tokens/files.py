"""Open the tokenizer of a checkpoint, whatever form it comes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as Backend
from tokenizers import models

from puna.artifact import parse_json
from puna.errors import InputError
from puna.tokens.backends import with_specials
from puna.tokens.gguf_vocab import read_gguf
from puna.tokens.sentencepiece import looks_like_sentencepiece, read_sentencepiece
from puna.tokens.sidecar import ADDED_TOKENS, CONFIG, added_tokens, read_sidecar, read_templates
from puna.tokens.source import Roles, Source
from puna.tokens.spm import build_spm
from puna.tokens.tiktoken import build_tiktoken, read_tiktoken
from puna.tokens.tokenizer import Tokenizer
from puna.tokens.vocabulary import TURN_MARKERS, Vocabulary, markers_in

if TYPE_CHECKING:  # the store imports torch, which a tokenizer does not need
    from puna.store.checkpoint import TokenizerFiles


def open_tokenizer(
    files: TokenizerFiles,
    *,
    where: Path,
    vocab_size: int | None = None,
    generation_config: Mapping[str, Any] | None = None,
) -> Tokenizer:
    """Open a tokenizer from what a checkpoint carries.

    tokenizer.json is preferred to tokenizer.model (SentencePiece, or tiktoken ranks: told apart by
    content), and that to GGUF metadata. What tokenizer_config.json, special_tokens_map.json and
    chat_template.jinja say goes before what these say themselves.

    Args:
        files: The raw material.
        where: The checkpoint, named in errors.
        vocab_size: Rows of the model's embedding. Ids from the tokenizer's size up to it are
            padding and decode to nothing.
        generation_config: Its `eos_token_id` (one or a list) adds to the stop tokens.

    Raises:
        InputError: Nothing to read, or something in it is broken; file and key are named.
    """
    source = _open_source(files, where)
    roles = read_sidecar(files.files, source, where=where).over(source.roles)
    roles = Roles(end_ids=_end_ids(generation_config or {}, where)).over(roles)
    backend = with_specials(source.backend, _control_names(source, roles))
    return Tokenizer(replace(source, backend=backend), roles, model_size=vocab_size)


def _control_names(source: Source, roles: Roles) -> frozenset[str]:
    """Added tokens that begin or end texts and turns, whatever the files call them.

    Files exist that have them as plain text; a user could then end the turn by writing one.
    """
    ids = {roles.bos_id, roles.eos_id, roles.pad_id, *roles.end_ids} - {None}
    added = source.backend.get_added_tokens_decoder()
    names = frozenset(token.content for index, token in added.items() if index in ids)
    return TURN_MARKERS | markers_in(roles.templates.values()) | names


def _open_source(files: TokenizerFiles, where: Path) -> Source:
    content = files.files
    if "tokenizer.json" in content:
        return _read_tokenizer_json(content["tokenizer.json"], where / "tokenizer.json")
    if "tokenizer.model" in content:
        data, place = content["tokenizer.model"], where / "tokenizer.model"
        if looks_like_sentencepiece(data):
            markers = markers_in(read_templates(content, where=where).values())
            return _read_spm(data, added_tokens(content, where=where), markers, place)
        return _read_ranks(data, place)
    if files.gguf:
        return read_gguf(files.gguf, where=where)
    raise InputError(
        "has no tokenizer: expected tokenizer.json, tokenizer.model or GGUF metadata",
        where=where,
        fix="copy the tokenizer files of the original model into the folder",
    )


def _read_tokenizer_json(data: bytes, where: Path) -> Source:
    try:
        backend = Backend.from_buffer(data)
    except Exception as error:  # the library has no exception type of its own
        parse_json(data, where=where)  # says the line, if that is what is wrong
        raise InputError(f"is not a valid tokenizer: {error}", where=where) from error
    backend.no_truncation()
    backend.no_padding()
    if isinstance(backend.model, models.BPE) and backend.model.dropout:
        backend.model.dropout = None  # it makes ids random; meant for training a tokenizer
    vocabulary = backend.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise InputError("the vocabulary is empty", where=where)
    if len(set(vocabulary.values())) != len(vocabulary):
        raise InputError("two tokens have the same id", where=where)
    if max(vocabulary.values()) >= 2 * len(vocabulary) + 1024:
        raise InputError(
            f"{len(vocabulary)} tokens, but an id of {max(vocabulary.values())}", where=where
        )
    bos, eos = _framing(backend, where)
    unknown = getattr(backend.model, "unk_token", None)
    roles = Roles(
        bos_id=bos,
        eos_id=eos,
        unk_id=backend.token_to_id(unknown) if unknown else None,
        add_bos=bos is not None,
        add_eos=eos is not None,
    )
    return Source(backend, where, roles)


def _framing(backend: Backend, where: Path) -> tuple[int | None, int | None]:
    """The ids that the post-processor puts before and after a text, by trying it out."""
    bare = backend.encode("a", add_special_tokens=False).ids
    framed = backend.encode("a", add_special_tokens=True).ids
    count = len(framed) - len(bare)
    for before in range(count + 1):
        if framed[before : before + len(bare)] == bare:
            after = count - before
            if before <= 1 and after <= 1:
                first = framed[0] if before else None
                return first, framed[-1] if after else None
            break
    raise InputError(
        f"puts the ids {framed} around {bare}; expected at most one before and one after",
        where=where,
    )


def _read_spm(
    data: bytes, added: Mapping[int, tuple[str, int]], markers: frozenset[str], where: Path
) -> Source:
    model = read_sentencepiece(data, where=where)
    vocabulary = model.vocabulary
    scores = vocabulary.scores
    assert scores is not None
    size = len(vocabulary.tokens)
    _check_within(added, vocabulary, where)
    beyond = [added[index] for index in sorted(added) if index >= size]
    if sorted(index for index in added if index >= size) != list(range(size, size + len(beyond))):
        raise InputError(
            f"the added tokens have the ids {sorted(added)}; expected no gap after {size - 1}",
            where=where.with_name(f"{CONFIG} or {ADDED_TOKENS}"),
        )
    if beyond:
        tokens, types = zip(*beyond, strict=True)
        vocabulary = Vocabulary(
            [*vocabulary.tokens, *tokens],
            [*vocabulary.types, *types],
            [*scores, *[0.0] * len(beyond)],
        ).checked(where)
    vocabulary = vocabulary.with_controls(TURN_MARKERS | markers)
    ids = (model.bos_id, model.eos_id, model.pad_id)
    bos, eos, pad = (index if index >= 0 else None for index in ids)
    roles = Roles(bos, eos, pad, model.rules.unk_id, add_bos=bos is not None, add_eos=False)
    backend = build_spm(vocabulary, model.rules, where=where)
    return Source(backend, where, roles, vocabulary)


def _check_within(
    added: Mapping[int, tuple[str, int]], vocabulary: Vocabulary, where: Path
) -> None:
    """An added token whose id the model has already must be the model's own token."""
    for index, (text, _) in added.items():
        if index < len(vocabulary.tokens) and vocabulary.tokens[index] != text:
            raise InputError(
                f"the added token {text!r} has the id {index}, which is that of "
                f"{vocabulary.tokens[index]!r} in {where.name}",
                where=where.with_name(f"{CONFIG} or {ADDED_TOKENS}"),
                fix="these files are not of one model; fetch them again",
            )


def _read_ranks(data: bytes, where: Path) -> Source:
    vocabulary = read_tiktoken(data, where=where)
    backend = build_tiktoken(vocabulary)
    roles = Roles(
        bos_id=backend.token_to_id("<|begin_of_text|>"),
        eos_id=backend.token_to_id("<|end_of_text|>"),
        pad_id=backend.token_to_id("<|finetune_right_pad_id|>"),
        add_bos=True,
        add_eos=False,
    )
    return Source(backend, where, roles, vocabulary, "llama-bpe")


def _end_ids(config: Mapping[str, Any], where: Path) -> frozenset[int]:
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(item) is int and item >= 0 for item in values):
        raise InputError(
            f"eos_token_id is {value!r}; expected an id or a list of ids",
            where=where / "generation_config.json",
        )
    return frozenset(values)
