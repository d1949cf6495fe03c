"""C4's line rules in plain Python: the oracle of `c4_kernels`, slow and easy to read.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2, in the form that
datatrove gives them (`c4_filters.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from puna.corpus.characters import LINE_END, PUNCTUATION, CharacterTable
from puna.corpus.figures import PHRASES
from puna.corpus.text_twin import count_sentences, split_words

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")


@dataclass(frozen=True)
class LineRules:
    """Which lines and texts are dropped."""

    split_by_spaces: bool
    """Whether words are what stands between spaces, or words of the table."""
    min_words: int
    """Fewest words of a line; -1 for any."""
    max_word_characters: int
    """Most characters of a word; -1 for any."""
    line_ends: bool = True
    """Whether a line must end with the mark of a sentence or a quote."""
    citations: bool = True
    """Whether marks of citations are taken out."""
    javascript: bool = True
    """Whether lines that name JavaScript are dropped."""
    policy: bool = True
    """Whether lines about cookies, privacy and terms of use are dropped."""
    lorem_ipsum: bool = True
    """Whether texts with lorem ipsum are dropped."""
    curly: bool = True
    """Whether texts with a { are dropped."""


@dataclass(frozen=True)
class Cleaned:
    """What is left of a text."""

    text: str
    """Empty where the text is to be dropped."""
    sentences: int
    """In the lines kept, until the text was dropped."""
    kept: int
    """Lines that were kept."""
    lines: int
    """Lines that were looked at."""
    reason: str | None = None
    """Why the text is to be dropped."""


def clean_text(text: str, table: CharacterTable, rules: LineRules) -> Cleaned:
    """The lines of a text that C4 keeps."""
    kept, sentences, lines = list[str](), 0, 0
    for whole in text.splitlines():
        lines += 1
        line = _kept(whole.strip(), table, rules)
        if line is None:
            continue
        lower = line.lower()
        if rules.lorem_ipsum and PHRASES[1] in lower:
            return Cleaned("", sentences, len(kept), lines, "lorem_ipsum")
        if rules.javascript and PHRASES[0] in lower:
            continue
        if rules.curly and "{" in line:
            return Cleaned("", sentences, len(kept), lines, "curly_bracket")
        if rules.policy and any(phrase in lower for phrase in PHRASES[2:]):
            continue
        sentences += count_sentences(line, table)
        kept.append(line)
    return Cleaned("\n".join(kept).strip(), sentences, len(kept), lines)


def _kept(line: str, table: CharacterTable, rules: LineRules) -> str | None:
    """The line without citations; None where its words or its end are not right."""
    count, longest = _words(line, table, rules.split_by_spaces)
    if 0 <= rules.max_word_characters < longest:
        return None
    if rules.citations:
        line = _CITATION.sub("", line)
    if rules.line_ends:
        ends = bool(line) and bool(table.of(line)[-1] & LINE_END)
        if not ends or line.endswith("..."):
            return None
    return line if count >= rules.min_words else None


def _words(line: str, table: CharacterTable, by_spaces: bool) -> tuple[int, int]:
    """How many words there are, and the characters of the longest."""
    words = line.split() if by_spaces else split_words(line, table)
    real = [w for w in words if by_spaces or any(not k & PUNCTUATION for k in table.of(w))]
    return len(real), max(map(len, words), default=0)
