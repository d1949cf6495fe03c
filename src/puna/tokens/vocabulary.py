"""What every source of a vocabulary is read into, and the backend built from it.

A SentencePiece model, tiktoken ranks and GGUF metadata all become a `Vocabulary`: tokens by id,
with a type and, for SentencePiece, a score. `backend` turns it into a `tokenizers.Tokenizer`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from puna.errors import InputError

Merge = tuple[str, str]
Scheme = Literal["byte_level", "sentencepiece"]

SPACE = "▁"  # U+2581, how SentencePiece writes a space

END_OF_TURN = frozenset(
    {
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end_of_text|>",
        "<|endoftext|>",
        "<|end|>",
        "<end_of_turn>",
        "<|end_of_turn|>",
        "<end_of_utterance>",
        "<EOT>",
        "_<EOT>",
    }
)
"""Tokens that end an answer wherever a vocabulary has them (as in llama.cpp's vocabulary)."""

TURN_MARKERS = END_OF_TURN | {
    "<|im_start|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|begin_of_text|>",
    "<start_of_turn>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
}
"""Tokens that structure a chat; no text of a user may produce them."""

_MARKER = re.compile(r"<\|[^|<>\s]{1,64}\|>")


def markers_in(templates: Iterable[str]) -> frozenset[str]:
    """What looks like `<|name|>` in chat templates: the markers that they write around turns."""
    return frozenset(name for text in templates for name in _MARKER.findall(text))


class TokenType(IntEnum):
    """The types of SentencePiece's model file, which GGUF took over."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id. `types` and `scores` have one entry per token; `scores` may be absent."""

    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float] | None = None

    def ids(self, *types: TokenType) -> list[int]:
        """The ids of the tokens of some types, ascending."""
        wanted = frozenset(int(kind) for kind in types)
        return [index for index, kind in enumerate(self.types) if kind in wanted]

    def checked(self, where: Path | str) -> Vocabulary:
        """Itself, when every token occurs once and the columns have one length.

        Raises:
            InputError: A token occurs twice, there are none, or the columns differ in length.
        """
        if not self.tokens:
            raise InputError("the vocabulary is empty", where=where)
        columns = {"types": self.types, "scores": self.scores}
        for name, column in columns.items():
            if column is not None and len(column) != len(self.tokens):
                raise InputError(
                    f"expected {len(self.tokens)} {name}, one per token, found {len(column)}",
                    where=where,
                )
        if len(set(self.tokens)) != len(self.tokens):
            token, count = Counter(self.tokens).most_common(1)[0]
            ids = [index for index, other in enumerate(self.tokens) if other == token]
            raise InputError(
                f"the token {token!r} occurs {count} times, at ids {ids[:4]}", where=where
            )
        return self

    def padded(self, rows: int) -> Vocabulary:
        """The same with unused tokens at the end, one for each row that a model has beyond it."""
        more = range(len(self.tokens), rows)
        taken = frozenset(self.tokens)
        names = [padding_name(index) for index in more]
        names = [f"{name}_" if name in taken else name for name in names]
        return Vocabulary(
            [*self.tokens, *names],
            [*self.types, *[TokenType.UNUSED] * len(more)],
            None if self.scores is None else [*self.scores, *[0.0] * len(more)],
        )

    def unpadded(self, least: int) -> Vocabulary:
        """The inverse of `padded`; at least `least` tokens stay."""
        size = len(self.tokens)
        while size > max(least, 1) and self._is_padding(size - 1):
            size -= 1
        scores = None if self.scores is None else self.scores[:size]
        return Vocabulary(self.tokens[:size], self.types[:size], scores)

    def _is_padding(self, index: int) -> bool:
        name = padding_name(index)
        unused = self.types[index] == TokenType.UNUSED
        return unused and self.tokens[index] in (name, f"{name}_")

    def with_controls(self, names: Collection[str]) -> Vocabulary:
        """The same with user-defined tokens of these names as control tokens."""
        types = [
            TokenType.CONTROL if kind == TokenType.USER_DEFINED and token in names else kind
            for token, kind in zip(self.tokens, self.types, strict=True)
        ]
        return Vocabulary(self.tokens, types, self.scores)

    def core(self, *added: TokenType) -> dict[str, int]:
        """The vocabulary of the merging model: all but the added tokens at the end.

        Added tokens at the end go on top of the model, where its merging cannot reach them; those
        amid the vocabulary must stay, for the ids of an added token cannot be chosen.
        """
        end = len(self.tokens)
        while end > 0 and self.types[end - 1] in added:
            end -= 1
        return {token: index for index, token in enumerate(self.tokens[:end])}

    def add_to(self, backend: Backend, *, special: Iterable[int], plain: Iterable[int]) -> None:
        """Register added tokens on `backend`, in the order of their ids."""
        specials = frozenset(special)
        ids = sorted(specials.union(plain))
        backend.add_tokens(
            [
                AddedToken(self.tokens[index], special=index in specials, normalized=False)
                for index in ids
            ]
        )
        for index in ids:
            assert backend.token_to_id(self.tokens[index]) == index, "an added token moved"


def padding_name(index: int) -> str:
    """What llama.cpp's converter calls an id that no token has."""
    return f"[PAD{index}]"


def byte_of(token: str) -> bytes | None:
    """The byte that a SentencePiece byte token such as `<0x0A>` stands for."""
    if len(token) != 6 or not (token.startswith("<0x") and token.endswith(">")):
        return None
    try:
        return bytes.fromhex(token[3:5])
    except ValueError:
        return None


def merges_by_rank(
    pieces: Iterable[str], vocabulary: Mapping[str, int] | frozenset[str]
) -> list[Merge]:
    """Every way to put two tokens together into a third, in the order of `pieces`.

    SentencePiece and tiktoken have no list of merges: two neighbours merge when their
    concatenation is a token, best score (lowest rank) first. Listing every split of every token
    says the same to a model that works by merges. What such a list cannot say is that all splits
    of one token rank equally; ties within a token are ordered longest left part first.

    Args:
        pieces: The tokens that merging may produce, best first.
        vocabulary: The tokens that merging may use.
    """
    merges: list[Merge] = []
    append = merges.append
    for piece in pieces:
        for cut in range(len(piece) - 1, 0, -1):
            left = piece[:cut]
            if left in vocabulary and (right := piece[cut:]) in vocabulary:
                append((left, right))
    return merges
