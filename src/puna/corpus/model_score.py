"""The step `score`: a figure from a model, by which documents can be dropped.

The corpus knows no model. A recipe names a factory of one, `module:function`, with JSON arguments
and the model's identity; each worker opens it once. So a score by a LLaMA, a classifier or a
service of one's own all come in through one small protocol.
"""

from __future__ import annotations

import importlib
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa

from puna.corpus.schema import alive, with_drops, with_errors, with_stats
from puna.corpus.step import Apply
from puna.errors import InputError

_FACTORY = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z]\w*)", re.ASCII)
_OURS = "puna"


class Scorer(Protocol):
    """What gives every text a figure; the same for a text whatever stands beside it."""

    @property
    def unit(self) -> str:
        """What the figure is in: `bits per byte`, `probability`."""

    def score(self, texts: Sequence[str]) -> Sequence[float]:
        """One figure per text, in their order.

        Raises:
            Exception: It cannot score one of them; each is then tried alone.
        """


@dataclass(frozen=True)
class ScoreConfig:
    """Score documents by a model, and drop those whose score is out of bounds."""

    VERSION: ClassVar[int] = 1

    step: Literal["score"] = "score"
    """As recipes call it."""
    factory: str = ""
    """`module:function` of what opens the scorer: one of puna's, or of those that the caller of
    `open_with` allows. It says in its signature that it returns a scorer."""
    name: str = "model"
    """The figure is `score_NAME`: letters, digits and underscores."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the factory is called with, by name: JSON values."""
    model: str = ""
    """The identity of the model: the step is another one with another model."""
    min_score: float | None = None
    """Documents with less are dropped as `score.NAME_low`."""
    max_score: float | None = None
    """Documents with more are dropped as `score.NAME_high`."""
    batch_documents: int = 32
    """Texts that the scorer is given at a time."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise InputError(
                f"{self.name!r} cannot be the name of a score",
                fix="use small letters, digits and underscores, such as `perplexity`",
            )
        if not _FACTORY.fullmatch(self.factory):
            raise InputError(
                f"{self.factory!r} names no factory", fix="write it as `package.module:function`"
            )
        if self.batch_documents < 1:
            raise InputError(f"batch_documents is {self.batch_documents}; it must be 1 or more")
        low, high = self.min_score, self.max_score
        if low is not None and high is not None and low > high:
            raise InputError(f"min_score {self.min_score} is above max_score {self.max_score}")

    def open(self) -> Apply:
        """What does the work, with a factory of puna's.

        Raises:
            InputError: The factory is not puna's, or not there.
        """
        return self.open_with(())

    def open_with(self, allowed: Sequence[str]) -> Apply:
        """What does the work, with a factory of puna's or one of `allowed`.

        Args:
            allowed: Further factories as `module:function`: from the caller, not from a recipe,
                since a recipe may be somebody else's and a factory is code.

        Raises:
            InputError: The factory is none of these, or not there.
        """
        scorer = open_scorer(self, allowed)
        return lambda batch: _apply(self, scorer, batch)


def open_scorer(config: ScoreConfig, allowed: Sequence[str] = ()) -> Scorer:
    """The scorer that a configuration names.

    Raises:
        InputError: The factory is neither puna's nor in `allowed`, is not there, does not say that
            it returns a scorer, or does not take the arguments.
    """
    module_name, _, name = config.factory.partition(":")
    ours = module_name == _OURS or module_name.startswith(f"{_OURS}.")
    if not ours and config.factory not in allowed:
        raise InputError(
            f"{config.factory!r} is not puna's, and a recipe alone cannot name other code",
            fix="allow it where the corpus is made, by the caller's list of factories",
        )
    factory = _factory(config.factory, module_name, name)
    try:
        scorer: Scorer = factory(**config.arguments)
    except TypeError as error:
        raise InputError(f"its arguments do not fit: {error}", where=config.factory) from error
    return scorer


def _factory(where: str, module_name: str, name: str) -> Callable[..., Any]:
    try:
        factory = getattr(importlib.import_module(module_name), name)
        made = typing.get_type_hints(factory).get("return")
    except (ImportError, AttributeError, TypeError, NameError) as error:
        raise InputError(f"there is no such factory: {error}", where=where) from error
    # Else any function of puna's could be called from a recipe, such as one that imports modules.
    if not (hasattr(made, "score") and hasattr(made, "unit")):
        raise InputError("does not say that it returns a scorer", where=where)
    found: Callable[..., Any] = factory
    return found


def _apply(config: ScoreConfig, scorer: Scorer, batch: pa.RecordBatch) -> pa.RecordBatch:
    figures = np.full(batch.num_rows, np.nan)
    errors: dict[int, str] = {}
    rows = [int(row) for row in np.flatnonzero(alive(batch))]
    # In the order of their length: a model that pads wastes least.
    texts = {row: batch.column("text")[row].as_py() for row in rows}
    rows.sort(key=lambda row: (len(texts[row]), row))
    for start in range(0, len(rows), config.batch_documents):
        chosen = rows[start : start + config.batch_documents]
        _score_rows(config, scorer, {row: texts[row] for row in chosen}, figures, errors)
    drops = _drops(config, figures)
    batch = with_stats(batch, {f"score_{config.name}": figures})
    return with_errors(with_drops(batch, drops), errors)


def _score_rows(
    config: ScoreConfig,
    scorer: Scorer,
    texts: Mapping[int, str],
    figures: np.ndarray,
    errors: dict[int, str],
) -> None:
    """Fill in the figures of some rows; where the scorer fails, each is tried alone."""
    try:
        found = list(scorer.score(list(texts.values())))
    except Exception as error:  # whatever a model may raise on a text
        if len(texts) == 1:
            errors.update(dict.fromkeys(texts, f"score: {type(error).__name__}: {error}"))
            return
        for row, text in texts.items():
            _score_rows(config, scorer, {row: text}, figures, errors)
        return
    if len(found) != len(texts):
        raise InputError(f"gave {len(found)} scores for {len(texts)} texts", where=config.factory)
    for row, figure in zip(texts, found, strict=True):
        if math.isfinite(figure):
            figures[row] = figure
        else:
            errors[row] = f"score: {config.name} is {figure}"


def _drops(config: ScoreConfig, figures: np.ndarray) -> dict[int, str]:
    """Reasons by row. Figures are compared as they are kept, in float32."""
    kept = figures.astype(np.float32)
    low = kept < np.float32(-np.inf if config.min_score is None else config.min_score)
    high = kept > np.float32(np.inf if config.max_score is None else config.max_score)
    drops = {int(row): f"score.{config.name}_low" for row in np.flatnonzero(low)}
    return drops | {int(row): f"score.{config.name}_high" for row in np.flatnonzero(high)}
