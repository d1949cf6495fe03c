"""Extending a vocabulary by pieces of texts that it splits badly: Chinese on an English one, say.

The new pieces are merges of old ones, and come after all old merges. A text is thus cut into old
pieces as before, and then runs of these become new pieces: with every new id written out as its
old ids, the new encoding of any text is the old one. What an embedding of a new piece should begin
with follows: the mean of its old pieces' (`puna.model.resizing`).

Source: Cui et al. 2023, Chinese LLaMA (arXiv 2304.08177), who merged a second vocabulary into
LLaMA's; that moves the cuts of old texts, which this does not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Backend
from tokenizers import pre_tokenizers

from puna.errors import InputError
from puna.tokens.backends import without_specials
from puna.tokens.learning import (
    MAX_WORD_CHARS,
    Progress,
    covering,
    gathered,
    learn,
    merges_of,
    tell,
)
from puna.tokens.scripts import JOINED, Kind, kind_of
from puna.tokens.tokenizer import Tokenizer
from puna.tokens.vocabulary import byte_of

Origins = tuple[tuple[int, ...], ...]

_SYMBOLS = 0x10000  # old piece k is written as the character of this number + k, to learn from
_COVERAGE = 0.9995  # of the characters that the old vocabulary spells as bytes
_BATCH_PARTS = 64
_GAP = ord(" ")


@dataclass(frozen=True)
class Extension:
    """A vocabulary with new pieces; the old ids are what they were."""

    tokenizer: Tokenizer
    origins: Origins
    """By new piece: the old ids that stood in its place. The first is that of the id `start`."""

    @property
    def start(self) -> int:
        """The id of the first new piece."""
        return self.tokenizer.vocab_size - len(self.origins)


def extend_vocabulary(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    pieces: int,
    *,
    min_frequency: int = 2,
    max_bytes: int = 64 * 2**20,
    progress: Progress | None = None,
) -> Extension:
    """A vocabulary with more pieces, learnt from texts.

    In a SentencePiece vocabulary characters that were spelled as bytes become pieces first, the
    most frequent ones, up to half of the new pieces; the rest are merges. There, no new piece joins
    letters with punctuation, nor Chinese and the like with other scripts, and none holds a digit.

    Args:
        tokenizer: The vocabulary; it is not changed.
        texts: What to learn from, a fair sample; no more than the first `max_bytes` are read.
        pieces: How many new pieces.
        min_frequency: How often a new piece must occur.
        max_bytes: Bytes of text, UTF-8; they are held in memory.
        progress: Told when the texts have fewer such pieces than were asked for. Without it, that
            is a warning.

    Raises:
        InputError: `pieces` is no positive number; there is no text; the vocabulary is not BPE, or
            neither works on bytes nor falls back to them; the texts have no new piece at all.
    """
    if type(pieces) is not int or pieces < 1:
        raise InputError(f"the number of new pieces must be at least 1, not {pieces!r}")
    growing = _Growing(tokenizer)
    sample = gathered(texts, max_bytes)
    if tokenizer.scheme == "sentencepiece":
        growing.add_characters(sample, limit=-(-pieces // 2), min_frequency=min_frequency)
    wanted = pieces - len(growing.origins)
    if wanted:
        growing.add_merges(sample, wanted, min_frequency=min_frequency)
    found = len(growing.origins)
    if not found:
        raise InputError(
            f"the texts have no new piece that occurs {min_frequency} times: the vocabulary has "
            "whole words for what is in them, or they are too short",
        )
    if found < pieces:
        tell(
            f"{found} new pieces, not the {pieces} asked for: no more of them occur "
            f"{min_frequency} times in the text",
            progress,
        )
    return Extension(growing.built(), tuple(growing.origins))


class _Growing:
    """The state of a backend, as its file has it, while pieces are added."""

    def __init__(self, tokenizer: Tokenizer):
        self.old = tokenizer
        self.source = tokenizer._source
        self.start = tokenizer.vocab_size
        backend = self.source.backend
        self.state: dict[str, Any] = json.loads(backend.to_str())
        model = self.state["model"]
        self._check(model)
        self.vocabulary: dict[str, int] = model["vocab"]
        self.merges = merges_of(model)
        self.added = frozenset(backend.get_added_tokens_decoder())
        # The library numbers added tokens from the end of the model on, unless it finds them in
        # the model: there they keep their ids when the model grows.
        for index, token in backend.get_added_tokens_decoder().items():
            self.vocabulary.setdefault(token.content, index)
        self.origins: list[tuple[int, ...]] = []

    def built(self) -> Tokenizer:
        """The tokenizer with the pieces added so far."""
        rows = max(self.old._model_size, self.start + len(self.origins))
        padding = max(0, self.source.padding - len(self.origins))
        # What a GGUF file or a tokenizer.model said of the old pieces is in the backend too.
        source = replace(self.source, backend=self._backend(), vocabulary=None, padding=padding)
        return Tokenizer(source, self.old._roles, model_size=rows)

    def add_characters(self, sample: Sequence[str], *, limit: int, min_frequency: int) -> None:
        """Pieces for the most frequent characters that are spelled as several bytes."""
        normalizer = self.source.backend.normalizer
        counts: Counter[str] = Counter()
        for text in sample:
            counts.update(text if normalizer is None else normalizer.normalize_str(text))
        for char in [char for char in counts if char in self.vocabulary or char.isascii()]:
            del counts[char]
        for char in covering(counts, _COVERAGE, min_frequency=min_frequency)[:limit]:
            spelled = char.encode("utf-8")
            self._add(char, tuple(self.vocabulary[f"<0x{byte:02X}>"] for byte in spelled))

    def add_merges(self, sample: Sequence[str], wanted: int, *, min_frequency: int) -> None:
        """Up to so many pieces that are made of others."""
        symbols = _Symbols(self)
        alphabet = [chr(_SYMBOLS + index) for index in range(symbols.count)]
        _, merges = learn(
            pre_tokenizers.WhitespaceSplit(),
            symbols.words(self._backend(), sample),
            size=symbols.count + wanted,
            min_frequency=min_frequency,
            alphabet=alphabet,
        )
        made = dict.fromkeys(alphabet, True)  # whether a piece of symbols is one of ours
        for left, right in merges:
            whole = left + right
            if not (made.get(left) and made.get(right)):
                continue  # made of one that was left out
            name = symbols.name(whole)
            if whole not in made:
                made[whole] = name not in self.vocabulary
                if made[whole]:
                    self._add(name, symbols.origin(whole))
            if made[whole]:
                self.merges.append((symbols.name(left), symbols.name(right)))

    def _add(self, name: str, origin: tuple[int, ...]) -> None:
        self.vocabulary[name] = self.start + len(self.origins)
        self.origins.append(origin)

    def _backend(self) -> Backend:
        self.state["model"]["merges"] = [list(merge) for merge in self.merges]
        return Backend.from_str(json.dumps(self.state))

    def _check(self, model: dict[str, Any]) -> None:
        where = self.source.where
        if model["type"] != "BPE":
            raise InputError(f"a {model['type']} vocabulary cannot be extended", where=where)
        affixes = ("continuing_subword_prefix", "end_of_word_suffix")
        if any(model.get(name) for name in affixes):
            raise InputError("marks the parts of words, which is not supported", where=where)
        spelled = {f"<0x{byte:02X}>" for byte in range(256)} <= model["vocab"].keys()
        if self.old.scheme == "sentencepiece" and not (model.get("byte_fallback") and spelled):
            raise InputError(
                "cannot be extended: what is not in this vocabulary is not spelled as bytes, but "
                "lost",
                where=where,
            )
        if model.get("ignore_merges"):
            self._check_specials(self.old.special_tokens.keys() - model["vocab"].keys())

    def _check_specials(self, names: set[str]) -> None:
        """Refuse a special token that would become a word of the model, to be taken as it is."""
        pre = self.source.backend.pre_tokenizer
        for name in sorted(names):
            words = [name] if pre is None else [word for word, _ in pre.pre_tokenize_str(name)]
            if words == [name]:
                raise InputError(
                    f"cannot be extended: plain text would be read as the special token {name!r}",
                    where=self.source.where,
                )


class _Symbols:
    """The pieces of a vocabulary as characters, so that a text of ids is a text to learn from."""

    def __init__(self, growing: _Growing):
        self.count = growing.start + len(growing.origins)
        self._start, self._origins = growing.start, tuple(growing.origins)
        assert self.count < 0x110000 - _SYMBOLS, "more pieces than characters to write them"
        self._names = [""] * self.count
        for name, index in growing.vocabulary.items():
            self._names[index] = name
        self._special_ids = frozenset(growing.old.special_tokens.values())
        spm = growing.old.scheme == "sentencepiece"
        self._alone = np.zeros(self.count, dtype=bool)  # what no piece may be made of
        self._first = np.zeros(self.count, dtype=np.uint8)  # kinds of the outermost characters
        self._last = np.zeros(self.count, dtype=np.uint8)
        for index, name in enumerate(self._names):
            byte = spm and byte_of(name) is not None
            self._alone[index] = not name or byte or index in growing.added
            if spm and name:
                self._first[index], self._last[index] = kind_of(name[0]), kind_of(name[-1])
        self._joined = np.ones((len(Kind), len(Kind)), dtype=bool)
        if spm:  # text is not cut into words before it is encoded, so pieces may not reach over
            for one in Kind:
                for other in Kind:
                    self._joined[one, other] = (one, other) in JOINED

    def name(self, symbols: str) -> str:
        """The spelling of a piece that is made of these."""
        return "".join([self._names[ord(char) - _SYMBOLS] for char in symbols])

    def origin(self, symbols: str) -> tuple[int, ...]:
        """The old ids of a piece that is made of these."""
        ids: list[int] = []
        for char in symbols:
            index = ord(char) - _SYMBOLS
            ids += [index] if index < self._start else self._origins[index - self._start]
        return tuple(ids)

    def words(self, backend: Backend, sample: Sequence[str]) -> Iterator[str]:
        """The texts as symbols, with spaces between words."""
        plain = without_specials(backend, self._special_ids)
        for start in range(0, len(sample), _BATCH_PARTS):
            batch = list(sample[start : start + _BATCH_PARTS])
            for encoding in plain.encode_batch(batch, add_special_tokens=False):
                ids = np.array(encoding.ids, dtype=np.int64)
                words = np.array(encoding.word_ids, dtype=np.int64)
                yield self._spaced(ids, words)

    def _spaced(self, ids: NDArray[np.int64], words: NDArray[np.int64]) -> str:
        """Symbols of ids [T], with a space wherever no piece may reach over."""
        left, right = ids[:-1], ids[1:]
        edge = words[:-1] != words[1:]
        edge |= self._alone[left] | self._alone[right]
        edge |= ~self._joined[self._last[left], self._first[right]]
        position = np.arange(len(ids))
        begins = np.concatenate([np.zeros(1, dtype=np.int64), np.where(edge, position[1:], 0)])
        length = position - np.maximum.accumulate(begins)[: len(ids)]
        edge |= (length[1:] % MAX_WORD_CHARS) == 0  # a page without spaces is learnt in parts
        codes = np.where(self._alone[ids], _GAP, ids + _SYMBOLS)
        spaced = np.insert(codes, np.flatnonzero(edge) + 1, _GAP)
        return str(spaced.astype("<u4").tobytes(), "utf-32-le")
