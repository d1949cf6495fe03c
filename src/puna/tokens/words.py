"""Encoding text word by word, each word once: most of the words of a text have been there before.

A byte-level vocabulary first cuts a text by regular expressions, and merges within what comes of
it alone. So the ids of a text are those of its words, and a word that is known need not be merged
again. The cuts are made here by the package `regex`, the merges by the library `tokenizers`;
`tests/tokens/test_words.py` holds the result against the library's own, for every code point.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import regex
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from puna.tokens.pretokenizers import GPT2

MAX_WORDS = 1 << 19  # that are remembered
MAX_WORD_CHARACTERS = 24  # of one that is: longer ones seldom come again
MAX_ADDED = 64  # tokens that are no words and would have to be looked for in every text
_DIGITS = r"\p{N}"

Word = tuple[int, ...]


class WordEncoder:
    """Encodes texts as a backend does, faster where words come again.

    Threads may share one: a word that two of them meet at once is merged twice, no more.
    """

    def __init__(self, backend: Backend, patterns: Sequence[str], added: Iterable[str]) -> None:
        """See `of`."""
        self._whole = backend
        # Matching would let go of the interpreter and take it back for every word.
        self._cuts = [
            partial(regex.compile(pattern).findall, concurrent=False) for pattern in patterns
        ]
        self._added = tuple(added)
        self._merging = Backend(backend.model)
        self._merging.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=False, use_regex=False
        )
        self._known: dict[str, Word] = {}

    @classmethod
    def of(cls, backend: Backend) -> WordEncoder | None:
        """An encoder that gives what `backend` gives; None where its words are not known.

        Args:
            backend: One that reads special tokens as text.
        """
        patterns = _patterns(backend)
        added = [t.content for t in backend.get_added_tokens_decoder().values() if not t.special]
        if patterns is None or len(added) > MAX_ADDED:
            return None
        return cls(backend, patterns, added)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts, without what begins or ends one.

        Raises:
            TypeError: A text is none, or is not valid Unicode.
        """
        cut = [self._words(text) for text in texts]
        own = self._merged(cut)
        whole = [text for text, words in zip(texts, cut, strict=True) if words is None]
        rest = iter(_ids(self._whole, whole))
        known, found = self._known, []
        for words in cut:
            if words is None:
                found.append(next(rest))
                continue
            try:
                found.append(list(chain.from_iterable(map(known.__getitem__, words))))
            except KeyError:  # some of them are not to be remembered
                each = (known[w] if w in known else own[w] for w in words)
                found.append(list(chain.from_iterable(each)))
        return found

    def to_json(self) -> str:
        """The backend and the words that are remembered, for `from_json`."""
        return json.dumps({"tokenizer": self._whole.to_str(), "known": self._known.copy()})

    @classmethod
    def from_json(cls, text: str) -> WordEncoder:
        """The same as what `to_json` was asked of; for other processes of one run."""
        told = json.loads(text)
        backend = Backend.from_str(told["tokenizer"])
        backend.encode_special_tokens = True
        made = cls.of(backend)
        assert made is not None, "it was one before"
        made._known.update((word, tuple(ids)) for word, ids in told["known"].items())
        return made

    def _words(self, text: str) -> list[str] | None:
        """The words of a text; None where the library must find them."""
        if any(token in text for token in self._added):
            return None
        words = self._cuts[0](text)
        for cut in self._cuts[1:]:
            words = list(chain.from_iterable(map(cut, words)))
        # An expression that leaves something out makes further words of what lies between.
        return words if sum(map(len, words)) == len(text) else None

    def _merged(self, cut: Iterable[list[str] | None]) -> dict[str, Word]:
        """The ids of words that are not known; short ones are, afterwards."""
        known = self._known
        there = set[str]().union(*(words for words in cut if words is not None))
        new = [word for word in there if word not in known]
        found = dict(zip(new, map(tuple, _ids(self._merging, new)), strict=True))
        if len(known) < MAX_WORDS:
            known.update((w, ids) for w, ids in found.items() if len(w) <= MAX_WORD_CHARACTERS)
        return found


def _ids(backend: Backend, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    return [one.ids for one in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _patterns(backend: Backend) -> list[str] | None:
    """The expressions that cut a text, each what the one before left whole."""
    if backend.normalizer or not isinstance(backend.model, models.BPE) or backend.model.dropout:
        return None
    if not backend.pre_tokenizer:
        return None
    state = json.loads(backend.pre_tokenizer.__getstate__())
    steps = state["pretokenizers"] if state["type"] == "Sequence" else [state]
    found: list[str] = []
    for number, step in enumerate(steps, 1):
        pattern = _pattern(step, last=number == len(steps))
        if pattern is None:
            return None
        found += pattern
    return found or None


def _pattern(step: dict[str, Any], *, last: bool) -> list[str] | None:
    """The expressions of one step; None where it does more than to cut."""
    match step:
        case {"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False}:
            return None if last else [cut]
        case {"type": "Digits", "individual_digits": True}:
            return None if last else [rf"{_DIGITS}|\P{{N}}+"]
        case {"type": "ByteLevel", "add_prefix_space": False, **rest}:
            if not last:
                return None
            return [GPT2] if rest.get("use_regex", True) else []
    return None
