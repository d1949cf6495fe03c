"""The backend of a SentencePiece vocabulary, whether from `tokenizer.model` or from GGUF.

Equal to the library `sentencepiece`, with rare exceptions that the `tokenizers` library cannot
express. BPE: pieces of equal score (merged vocabularies whose new pieces all score 0) merge in the
order of their ids rather than from the left. Unigram: of two segmentations that score the same but
for rounding, the other may be taken (scores are added in float64 here, in float32 there). A
precompiled character map is applied per grapheme.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from puna.errors import InputError
from puna.tokens.backends import EDGE_SPACES
from puna.tokens.vocabulary import SPACE, TokenType, Vocabulary, merges_by_rank

ALL_SPACES = 65_535  # as many spaces at the beginning as decoding ever removes
_BYTE_LITERAL = r"<(?=0x[0-9A-F]{2}>)"


@dataclass(frozen=True)
class SpmRules:
    """How a SentencePiece vocabulary is applied to text."""

    kind: Literal["bpe", "unigram"]
    unk_id: int
    byte_fallback: bool  # what is no token is written as bytes, not as unknown
    add_dummy_prefix: bool  # "Hello" is read as " Hello"
    remove_extra_whitespaces: bool = False  # runs of spaces become one; none at the ends
    charsmap: bytes = b""  # precompiled normalization; empty for none
    nfkc: bool = False  # that normalization is NFKC and perhaps more
    symbols_are_added: bool = False
    """User-defined symbols are added tokens, each starting a new text as in llama.cpp, rather
    than atoms within the text as in SentencePiece."""


def build_spm(vocabulary: Vocabulary, rules: SpmRules, *, where: Path | str) -> Backend:
    """Build the backend.

    Raises:
        InputError: The byte tokens are incomplete, or the character map is not one.
    """
    added = [TokenType.CONTROL, TokenType.UNKNOWN]
    if rules.symbols_are_added:
        added.append(TokenType.USER_DEFINED)
    count = len(vocabulary.ids(TokenType.BYTE))
    if rules.byte_fallback and count != 256:
        raise InputError(f"expected 256 byte tokens, found {count}", where=where)
    symbols = [] if rules.symbols_are_added else _symbols(vocabulary)
    core = vocabulary.core(*added)
    if rules.kind == "bpe":
        model = _bpe(vocabulary, rules, core, isolated=bool(symbols))
    else:
        model = _unigram(vocabulary, rules, core, where)
    backend = Backend(model)
    backend.normalizer = _normalizer(rules, where)
    cuts = ["|".join(re.escape(symbol) for symbol in symbols)] if symbols else []
    if rules.kind == "unigram" and rules.byte_fallback:
        cuts.append(_BYTE_LITERAL)  # a text that spells out <0x0A> must not become that byte
    if cuts:
        splits = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in cuts]
        backend.pre_tokenizer = pre_tokenizers.Sequence(splits)
    backend.decoder = _decoder(rules)
    plain = vocabulary.ids(TokenType.USER_DEFINED) if rules.symbols_are_added else []
    special = vocabulary.ids(TokenType.CONTROL, TokenType.UNKNOWN)
    vocabulary.add_to(backend, special=special, plain=plain)
    return backend


def _symbols(vocabulary: Vocabulary) -> list[str]:
    """User-defined symbols, longest first, so that the longest match wins."""
    names = (vocabulary.tokens[index] for index in vocabulary.ids(TokenType.USER_DEFINED))
    return sorted(names, key=len, reverse=True)


def _bpe(
    vocabulary: Vocabulary, rules: SpmRules, core: dict[str, int], *, isolated: bool
) -> models.Model:
    """Merges from scores. Control, byte and user-defined tokens take no part in merging."""
    assert vocabulary.scores is not None, "a SentencePiece vocabulary has scores"
    scores, tokens = vocabulary.scores, vocabulary.tokens
    normal = vocabulary.ids(TokenType.NORMAL)
    ranked = [tokens[index] for index in sorted(normal, key=lambda index: -scores[index])]
    return models.BPE(
        vocab=core,
        merges=merges_by_rank(ranked, frozenset(ranked)),
        unk_token=tokens[rules.unk_id],
        fuse_unk=True,
        byte_fallback=rules.byte_fallback,
        ignore_merges=isolated,  # a symbol cut out by the pre-tokenizer is a word and a token
    )


def _unigram(
    vocabulary: Vocabulary, rules: SpmRules, core: dict[str, int], where: Path | str
) -> models.Model:
    assert vocabulary.scores is not None, "a SentencePiece vocabulary has scores"
    if rules.unk_id >= len(core):
        raise InputError("the unknown token stands among added tokens", where=where)
    scored = list(zip(core, vocabulary.scores, strict=False))
    return models.Unigram(scored, rules.unk_id, rules.byte_fallback)


def _normalizer(rules: SpmRules, where: Path | str) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if rules.charsmap:
        steps += _charsmap(rules, where)
    if rules.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(EDGE_SPACES), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if rules.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _charsmap(rules: SpmRules, where: Path | str) -> list[normalizers.Normalizer]:
    """The character map, after steps that keep it from dropping the rest of a grapheme.

    Where a grapheme begins with something in the map, `tokenizers` replaces the whole of it.
    """
    try:
        charsmap = normalizers.Precompiled(rules.charsmap)
        newlines = [charsmap.normalize_str(char) for char in "\r\n"]
    except Exception as error:  # the library has no exception type of its own
        raise InputError(f"the character map is not valid: {error}", where=where) from error
    steps: list[normalizers.Normalizer] = [normalizers.NFC()] if rules.nfkc else []
    if newlines[0] == newlines[1] != "\n":
        steps.append(normalizers.Replace("\r\n", "\n\n"))
    return [*steps, charsmap]


def _decoder(rules: SpmRules) -> decoders.Decoder:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = ALL_SPACES if rules.remove_extra_whitespaces else int(rules.add_dummy_prefix)
    if strip:
        steps.append(decoders.Strip(content=" ", left=strip, right=0))
    return decoders.Sequence(steps)
