"""The figures of a text in plain Python: the oracle of `text_kernels`, slow and easy to read.

The definitions are those of datatrove (`gopher_repetition_filter.py`, `gopher_quality_filter.py`,
`fineweb_quality_filter.py`, `c4_filters.py`), after Rae et al. 2021 (table A1 and section A.1.1),
Penedo et al. 2024 and Raffel et al. 2020.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from puna.corpus.characters import (
    ALONE,
    BULLET,
    CLOSING,
    DIGIT,
    EXTEND,
    LETTER,
    MARK,
    MID_LETTER,
    MID_NUMBER,
    PUNCTUATION,
    RUN,
    SPACE,
    TERMINAL,
    WIDE,
    WORD,
    CharacterTable,
    Splitter,
    character_table,
)
from puna.corpus.figures import FIGURES, PHRASES

_FULL_WIDTH = "\u3000"  # marks from here on end a sentence without a space after them


def split_words(text: str, table: CharacterTable) -> list[str]:
    """The tokens of a text: words and symbols; see `puna.corpus.characters`."""
    kinds = table.of(text)
    found, at = [], 0
    while at < len(text):
        end = _word_end(text, kinds, at)
        if end > at:
            found.append(text[at:end])
        at = max(end, at + 1)
    return found


def count_sentences(line: str, table: CharacterTable) -> int:
    """Sentences of one line: what marks that end one, then quotes, then a space or nothing, end."""
    kinds = table.of(line)
    count, inside, at = 0, False, 0
    while at < len(line):
        start = at
        at = _skip(kinds, at, TERMINAL)
        if at > start:
            wide = any(mark >= _FULL_WIDTH for mark in line[start:at])
            at = _skip(kinds, at, CLOSING)
            if wide or at == len(line) or kinds[at] & SPACE:
                count, inside = count + inside, False
            else:
                inside = True
        else:
            inside = inside or not kinds[at] & SPACE
            at += 1
    return count + inside


def text_figures(
    text: str,
    splitter: Splitter,
    stop_words: Sequence[str] | None,
    short_line_characters: int,
) -> dict[str, float]:
    """The figures of one text by their names.

    Args:
        text: The whole of it is looked at.
        splitter: What a token is; and whether the fraction of alphabetic ones is that of words,
            as with `puna`, or of all tokens.
        stop_words: Those that are counted; None where they are not known.
        short_line_characters: Up to this a line is short.
    """
    table = character_table(splitter)
    tokens = split_words(text, table)
    found = {"characters": len(text), "unread_bytes": 0, "tokens": len(tokens)}
    figures = {
        **found,
        **_word_figures(text, tokens, splitter),
        "stop_words": math.nan if stop_words is None else len(set(stop_words) & set(tokens)),
        **_displayed_line_figures(text, table),
        **_line_figures(text, table, short_line_characters),
        **_duplicate_figures(text),
        **_gram_figures(text, tokens),
    }
    return {name: float(figures[name]) for name in FIGURES}


def _word_end(text: str, kinds: list[int], at: int) -> int:
    kind, end = kinds[at], at + 1
    if kind & WORD:
        while end < len(text):
            if kinds[end] & (WORD | EXTEND):
                end += 1
            elif _joins(kinds, end):
                end += 2
            else:
                break
        return end
    if kind & (ALONE | RUN):
        while end < len(text) and (
            kinds[end] & (MARK | EXTEND) or (kind & RUN and text[end] == text[at])
        ):
            end += 1
        return end
    return at


def _joins(kinds: list[int], at: int) -> bool:
    """Whether a character joins the word before it and the one after it."""
    if at + 1 == len(kinds) or not kinds[at + 1] & WORD:
        return False
    both = kinds[at - 1] & kinds[at + 1]
    if kinds[at] & MID_LETTER:
        return bool(both & LETTER)
    return bool(kinds[at] & MID_NUMBER and both & DIGIT)


def _skip(kinds: list[int], at: int, bit: int) -> int:
    while at < len(kinds) and kinds[at] & bit:
        at += 1
    return at


def _word_figures(text: str, tokens: list[str], splitter: Splitter) -> dict[str, float]:
    table = character_table(splitter)
    words = [t for t in tokens if any(not kind & PUNCTUATION for kind in table.of(t))]
    alphabetic = sum(any(map(str.isalpha, token)) for token in tokens)
    count = max(len(tokens), 1)
    return {
        "words": len(words),
        "mean_word_length": sum(map(len, words)) / len(words) if words else math.nan,
        "alphabetic_fraction": alphabetic / max(len(words if splitter == "puna" else tokens), 1),
        "hash_ratio": text.count("#") / count,
        "ellipsis_ratio": (text.count("...") + text.count("…")) / count,
        "newline_ratio": text.count("\n") / count,
        "curly_brackets": text.count("{"),
    }


def _displayed_line_figures(text: str, table: CharacterTable) -> dict[str, float]:
    lines = [line.strip() for line in text.splitlines()]
    bullets = sum(bool(line) and bool(table.of(line)[0] & BULLET) for line in lines)
    ellipses = sum(line.endswith(("...", "…")) for line in lines)
    lower = [line.lower() for line in lines]
    return {
        "bullet_line_fraction": bullets / max(len(lines), 1),
        "ellipsis_line_fraction": ellipses / max(len(lines), 1),
        "sentences": sum(count_sentences(line, table) for line in lines),
        "javascript_lines": sum(PHRASES[0] in line for line in lower),
        "lorem_ipsum_lines": sum(PHRASES[1] in line for line in lower),
        "policy_lines": sum(any(phrase in line for phrase in PHRASES[2:]) for line in lower),
    }


def _line_figures(text: str, table: CharacterTable, short: int) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    count = max(len(lines), 1)
    kinds = [table.of(line) for line in lines]
    widths = [sum(2 if kind & WIDE else 1 for kind in line) for line in kinds]
    repeated = _duplicates(lines)[1]
    return {
        "lines": len(lines),
        "short_line_fraction": sum(width <= short for width in widths) / count,
        "line_punctuation_fraction": sum(bool(line[-1] & TERMINAL) for line in kinds) / count,
        "repeated_line_fraction": repeated / max(len(text.replace("\n", "")), 1),
    }


def _duplicate_figures(text: str) -> dict[str, float]:
    characters = max(len(text), 1)
    lines, paragraphs = re.split("\n+", text), re.split("\n{2,}", text.strip())
    of_lines, of_paragraphs = _duplicates(lines), _duplicates(paragraphs)
    return {
        "duplicate_line_fraction": of_lines[0] / len(lines),
        "duplicate_line_character_fraction": of_lines[1] / characters,
        "duplicate_paragraph_fraction": of_paragraphs[0] / len(paragraphs),
        "duplicate_paragraph_character_fraction": of_paragraphs[1] / characters,
    }


def _gram_figures(text: str, tokens: list[str]) -> dict[str, float]:
    found = {}
    for n in (2, 3, 4):
        counted = Counter(" ".join(gram) for gram in _grams(tokens, n))
        gram, often = max(counted.items(), key=lambda item: item[1], default=("", 0))
        found[f"top_{n}_gram_character_fraction"] = len(gram) * often / max(len(text), 1)
    for n in range(5, 11):
        characters = _duplicated_characters(tokens, n)
        found[f"duplicated_{n}_gram_character_fraction"] = characters / max(len(text), 1)
    return found


def _grams(tokens: list[str], n: int) -> Iterator[list[str]]:
    for at in range(len(tokens) - n + 1):
        yield tokens[at : at + n]


def _duplicates(elements: list[str]) -> tuple[int, int]:
    """How many were there before, and their characters."""
    seen, count, characters = set[str](), 0, 0
    for element in elements:
        if element in seen:
            count, characters = count + 1, characters + len(element)
        seen.add(element)
    return count, characters


def _duplicated_characters(tokens: list[str], n: int) -> int:
    """Characters in n-grams that were there before; past one of those the next is looked for."""
    seen, characters, at = set[str](), 0, 0
    while at < len(tokens) - n + 1:
        gram = "".join(tokens[at : at + n])
        if gram in seen:
            characters, at = characters + len(gram), at + n
        else:
            seen.add(gram)
            at += 1
    return characters
