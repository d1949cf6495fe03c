"""The quality rules that FineWeb adds, by the figures that `statistics` has computed.

Penedo et al. 2024, "The FineWeb Datasets", in the form that datatrove gives them.
FineWeb applies them to what C4's rules have left of a text: put `statistics` once more between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from puna.corpus.rules import Rule, check_languages, open_rules
from puna.corpus.step import Apply

_RULES = (
    Rule("empty", "lines", "min_lines", "below"),
    Rule("unpunctuated_lines", "line_punctuation_fraction", "min_line_punctuation", "below"),
    Rule("short_lines", "short_line_fraction", "max_short_line_fraction", "above"),
    Rule("repeated_lines", "repeated_line_fraction", "max_repeated_line_fraction", "above"),
    Rule("list", "newline_ratio", "max_newline_ratio", "above"),
)


@dataclass(frozen=True)
class FineWeb:
    """Drops lists, menus and forms; null switches a rule off."""

    step: Literal["fineweb"] = "fineweb"
    """The name of the step."""
    min_lines: float | None = 1
    """Lines that are not blank; fewer are dropped as `empty`."""
    min_line_punctuation: float | None = 0.12
    """Of the lines: those that end with the mark of a sentence."""
    max_short_line_fraction: float | None = 0.67
    """Of the lines; how long a short one is, `statistics` says."""
    max_repeated_line_fraction: float | None = 0.01
    """Of the characters: those in lines that were there before."""
    max_newline_ratio: float | None = 0.3
    """Line feeds per token."""
    per_language: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Thresholds that differ by language."""

    VERSION: ClassVar[int] = 1
    RULES: ClassVar[Sequence[Rule]] = _RULES

    def __post_init__(self) -> None:
        check_languages(self, [rule.threshold for rule in _RULES])

    def open(self) -> Apply:
        """The rules over figures."""
        return open_rules(self)
