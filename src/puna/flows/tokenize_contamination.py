"""Which documents share a run of words with texts that a model will be judged on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from puna.errors import InputError
from puna.flows.tokenize_recipe import DecontaminateConfig
from puna.records import Quarantine, find_files, read_rows
from puna.records.documents import plain_words
from puna.tokens.scripts import UNSPACED

_WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing
_Hashes = npt.NDArray[np.uint64]


class Contamination:
    """The runs of words of some texts.

    Words are compared without case, compatibility forms and punctuation; where a script puts no
    spaces between words, each character counts as one.

    Attributes:
        runs: How many different ones there are.
        short: Texts that have fewer words than a run, and so are not looked for.
    """

    def __init__(self, texts: Iterable[str], ngram_words: int) -> None:
        """Take the runs of `ngram_words` words of all texts; each costs about 150 bytes."""
        self.words, self.short = ngram_words, 0
        self._runs: set[str] = set()
        hashes = [np.zeros(0, dtype=np.uint64)]
        for text in texts:
            words = words_of(text)
            runs = len(words) - ngram_words + 1
            self.short += runs < 1
            if runs > 0:
                self._runs.update(" ".join(words[i : i + ngram_words]) for i in range(runs))
                hashes.append(_hashes(words, ngram_words))
        self.runs = len(self._runs)
        self._hashes: _Hashes = np.unique(np.concatenate(hashes))

    def found_in(self, text: str) -> bool:
        """Whether a text has one of the runs."""
        words = words_of(text)
        if len(words) < self.words or not self.runs:
            return False
        rolled = _hashes(words, self.words)
        places = np.searchsorted(self._hashes, rolled)
        places[places == len(self._hashes)] = 0
        # Hashes only say where to look: what is compared in the end are the words.
        for start in np.flatnonzero(self._hashes[places] == rolled).tolist():
            if " ".join(words[start : start + self.words]) in self._runs:
                return True
        return False


def read_contamination(config: DecontaminateConfig, notes: list[str]) -> Contamination:
    """The runs of words of the files that a recipe names.

    Args:
        config: The files, and how long a run is.
        notes: Takes what a user should know.

    Raises:
        InputError: There are no such files, they cannot be read, or no text in them is as long as
            a run.
    """
    files = config.files
    found = find_files(files if isinstance(files, str) else list(files))
    quarantine = Quarantine()
    rows = read_rows(found, quarantine=quarantine, format=config.format)
    texts = (text for row in rows for text in _texts(row.values))
    told = Contamination(texts, config.ngram_words)
    if not told.runs:
        raise InputError(
            f"decontaminate: no text in them has {config.ngram_words} words",
            where=str(found[0]) if len(found) == 1 else f"{found[0]} and {len(found) - 1} more",
            fix="lower decontaminate.ngram_words, or name other files",
        )
    if told.short:
        notes.append(
            f"{told.short:,} texts to be judged on have fewer than {config.ngram_words} words, "
            "and are not looked for"
        )
    notes.extend(f"of the texts to be judged on, left out: {line}" for line in quarantine.lines())
    return told


def words_of(text: str) -> list[str]:
    """The words of a text; see `Contamination`."""
    return _WORD.findall(plain_words(text))


def _hashes(words: Sequence[str], count: int) -> _Hashes:
    """A number for each run of `count` words; valid within this process."""
    each = np.fromiter(map(hash, words), dtype=np.int64, count=len(words)).view(np.uint64)
    runs = len(words) - count + 1
    rolled = np.zeros(runs, dtype=np.uint64)
    for offset in range(count):
        rolled = rolled * _FACTOR + each[offset : offset + runs]
    return rolled


def _texts(values: Mapping[str, Any]) -> Iterator[str]:
    left: list[Any] = [values]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            left.extend(item.values())
        elif isinstance(item, list | tuple):
            left.extend(item)
