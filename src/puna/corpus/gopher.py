"""The quality and repetition rules of Gopher, by the figures that `statistics` has computed.

Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
section A.1.1 and table A1, in the form that datatrove gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from puna.corpus.rules import Rule, check_languages, open_rules
from puna.corpus.step import Apply

_REPETITION = (
    Rule("empty", "characters", "min_characters", "below"),
    *(
        Rule(name, name, f"max_{name}", "above")
        for name in (
            "duplicate_paragraph_fraction",
            "duplicate_paragraph_character_fraction",
            "duplicate_line_fraction",
            "duplicate_line_character_fraction",
        )
    ),
    *(
        Rule(f"top_{n}_gram", f"top_{n}_gram_character_fraction", f"max_top_{n}_gram", "above")
        for n in (2, 3, 4)
    ),
    *(
        Rule(
            f"duplicated_{n}_gram",
            f"duplicated_{n}_gram_character_fraction",
            f"max_duplicated_{n}_gram",
            "above",
        )
        for n in range(5, 11)
    ),
)
_QUALITY = (
    Rule("few_words", "words", "min_words", "below"),
    Rule("many_words", "words", "max_words", "above"),
    Rule("short_words", "mean_word_length", "min_mean_word_length", "below"),
    Rule("long_words", "mean_word_length", "max_mean_word_length", "above"),
    Rule("hashes", "hash_ratio", "max_symbol_ratio", "above"),
    Rule("ellipses", "ellipsis_ratio", "max_symbol_ratio", "above"),
    Rule("bullets", "bullet_line_fraction", "max_bullet_line_fraction", "above"),
    Rule("ellipsis_lines", "ellipsis_line_fraction", "max_ellipsis_line_fraction", "above"),
    Rule("few_alphabetic", "alphabetic_fraction", "min_alphabetic_fraction", "below"),
    Rule("few_stop_words", "stop_words", "min_stop_words", "below"),
)


def _repetition_per_language() -> dict[str, dict[str, float | None]]:
    # A token is one character there, some 0.6 of a word: so many in a row recur more easily. With
    # these, of Python's documentation in Chinese as much is dropped as in English.
    looser = {5: 0.22, 6: 0.20, 7: 0.18, 8: 0.17, 9: 0.15, 10: 0.12}
    values: dict[str, float | None] = {f"max_duplicated_{n}_gram": x for n, x in looser.items()}
    return {"zh": values, "ja": dict(values)}


def _quality_per_language() -> dict[str, dict[str, float | None]]:
    # A word is one character there; what is longer are numbers and Latin words among them.
    return {
        "zh": {
            "min_words": 80,
            "max_words": 160_000,
            "min_mean_word_length": 1,
            "max_mean_word_length": 4,
        },
        "ja": {
            "min_words": 100,
            "max_words": 200_000,
            "min_mean_word_length": 1,
            "max_mean_word_length": 4,
        },
    }


@dataclass(frozen=True)
class GopherRepetition:
    """Drops documents that say the same again and again; null switches a rule off."""

    step: Literal["gopher_repetition"] = "gopher_repetition"
    """The name of the step."""
    min_characters: float | None = 1
    """Characters; fewer are dropped as `empty`."""
    max_duplicate_paragraph_fraction: float | None = 0.30
    """Of the paragraphs."""
    max_duplicate_paragraph_character_fraction: float | None = 0.20
    """Of the characters."""
    max_duplicate_line_fraction: float | None = 0.30
    """Of the lines."""
    max_duplicate_line_character_fraction: float | None = 0.20
    """Of the characters."""
    max_top_2_gram: float | None = 0.20
    """Of the characters."""
    max_top_3_gram: float | None = 0.18
    """Of the characters."""
    max_top_4_gram: float | None = 0.16
    """Of the characters."""
    max_duplicated_5_gram: float | None = 0.15
    """Of the characters."""
    max_duplicated_6_gram: float | None = 0.14
    """Of the characters."""
    max_duplicated_7_gram: float | None = 0.13
    """Of the characters."""
    max_duplicated_8_gram: float | None = 0.12
    """Of the characters."""
    max_duplicated_9_gram: float | None = 0.11
    """Of the characters."""
    max_duplicated_10_gram: float | None = 0.10
    """Of the characters."""
    per_language: Mapping[str, Mapping[str, float | None]] = field(
        default_factory=_repetition_per_language
    )
    """Thresholds that differ by language; `{}` for the published ones in every language."""

    VERSION: ClassVar[int] = 1
    RULES: ClassVar[Sequence[Rule]] = _REPETITION

    def __post_init__(self) -> None:
        check_languages(self, [rule.threshold for rule in _REPETITION])

    def open(self) -> Apply:
        """The rules over figures."""
        return open_rules(self)


@dataclass(frozen=True)
class GopherQuality:
    """Drops documents that do not look like prose; null switches a rule off."""

    step: Literal["gopher_quality"] = "gopher_quality"
    """The name of the step."""
    min_words: float | None = 50
    """Words."""
    max_words: float | None = 100_000
    """Words."""
    min_mean_word_length: float | None = 3
    """Characters per word."""
    max_mean_word_length: float | None = 10
    """Characters per word."""
    max_symbol_ratio: float | None = 0.1
    """# per token, and ellipses per token."""
    max_bullet_line_fraction: float | None = 0.9
    """Of the lines."""
    max_ellipsis_line_fraction: float | None = 0.3
    """Of the lines."""
    min_alphabetic_fraction: float | None = 0.8
    """Of the words; with the splitter `datatrove`, of words and symbols."""
    min_stop_words: float | None = 2
    """Stop words of the language; where `statistics` has none for it, no document is dropped."""
    per_language: Mapping[str, Mapping[str, float | None]] = field(
        default_factory=_quality_per_language
    )
    """Thresholds that differ by language; `{}` for the published ones in every language."""

    VERSION: ClassVar[int] = 1
    RULES: ClassVar[Sequence[Rule]] = _QUALITY

    def __post_init__(self) -> None:
        check_languages(self, [rule.threshold for rule in _QUALITY])

    def open(self) -> Apply:
        """The rules over figures."""
        return open_rules(self)
