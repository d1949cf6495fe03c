"""Rules that drop documents by their figures: thresholds are data, the text is not read again."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa

from puna.corpus.schema import alive, stat, with_drops
from puna.corpus.step import Apply
from puna.errors import InputError

PerLanguage = Mapping[str, Mapping[str, float | None]]
"""Other thresholds, by code of ISO 639-1 and name of the threshold; null switches a rule off."""


@dataclass(frozen=True)
class Rule:
    """One reason to drop a document."""

    name: str
    """Of the reason: `few_words` of the step `gopher_quality` is `gopher_quality.few_words`."""
    figure: str
    """What is compared with the threshold."""
    threshold: str
    """The field of the step that says it."""
    drops: Literal["above", "below"]
    """On which side of the threshold documents are dropped; those that lie on it stay."""


class Thresholds(Protocol):
    """A step whose fields are thresholds."""

    @property
    def step(self) -> str:
        """Its name."""

    @property
    def per_language(self) -> PerLanguage:
        """What differs by language."""


def check_languages(config: Thresholds, names: Sequence[str]) -> None:
    """Refuse thresholds that do not exist.

    Args:
        config: The step.
        names: Of the thresholds that may differ by language.

    Raises:
        InputError: `per_language` names another one.
    """
    for language, values in config.per_language.items():
        for name in values:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                raise InputError(
                    f"per_language.{language}: there is no threshold {name!r}",
                    fix=f"did you mean {near[0]!r}?" if near else f"one of {', '.join(names)}",
                )


def limits_of(config: Thresholds, name: str, languages: Sequence[str | None]) -> np.ndarray:
    """The threshold of every document: float64 [rows], NaN where it has none."""
    own = getattr(config, name)
    found = [config.per_language.get(code or "", {}).get(name, own) for code in languages]
    return np.array([np.nan if limit is None else limit for limit in found], np.float64)


class Ruled(Thresholds, Protocol):
    """A step that is nothing but rules."""

    RULES: ClassVar[Sequence[Rule]]
    """In the order in which they are tried."""


def bounds_of(config: Ruled) -> dict[str, dict[str, float]]:
    """The thresholds of a step by figure, as `low` and `high`: those of no language in particular.

    Where several rules are about one figure, the narrowest bounds.
    """
    found: dict[str, dict[str, float]] = {}
    for rule in config.RULES:
        limit = getattr(config, rule.threshold)
        if limit is None:
            continue
        bounds = found.setdefault(rule.figure, {})
        if rule.drops == "below":
            bounds["low"] = max(limit, bounds.get("low", limit))
        else:
            bounds["high"] = min(limit, bounds.get("high", limit))
    return found


def open_rules(config: Ruled) -> Apply:
    """What drops the documents that break a rule; the first that one breaks is its reason.

    Figures and thresholds are compared as float32, in which figures are kept: a document exactly
    on a threshold stays, as it does in float64. No other decision differs from that in float64
    as long as a text has fewer than two million characters.
    """
    assert all(hasattr(config, rule.threshold) for rule in config.RULES)

    def apply(batch: pa.RecordBatch) -> pa.RecordBatch:
        languages = batch.column("language").to_pylist()
        left, reasons = alive(batch), dict[int, str]()
        for rule in config.RULES:
            limits = limits_of(config, rule.threshold, languages).astype(np.float32)
            figures = stat(batch, rule.figure)
            hit = figures > limits if rule.drops == "above" else figures < limits
            for row in np.flatnonzero(hit & left):
                reasons[int(row)] = f"{config.step}.{rule.name}"
            left &= ~hit
        return with_drops(batch, reasons)

    return apply
