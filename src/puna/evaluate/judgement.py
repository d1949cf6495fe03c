"""What was found of one model on one test set, and how two of them compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from puna.errors import InputError
from puna.evaluate.intervals import Floats, PairedResult, paired
from puna.evaluate.metrics import MetricValue, measure


@dataclass(frozen=True, eq=False)
class Judgement:
    """One model's figures and answers, with all that a later comparison needs."""

    metrics: dict[str, MetricValue]
    ids: tuple[str, ...]  # of the cases; what follows has one entry for each
    questions: tuple[str, ...]
    references: tuple[str, ...]
    outputs: tuple[str | None, ...]  # None: the model was not asked
    rows: dict[str, Floats]  # per metric, [N, K]: what each case contributes
    resamples: int
    seed: int  # of the resamples
    seconds: float
    generated_tokens: int
    scored_tokens: int  # of the references
    cut_outputs: int  # answers that reached max_new_tokens

    @property
    def tokens(self) -> int:
        """Generated and scored."""
        return self.generated_tokens + self.scored_tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        data = dict(vars(self))
        data["metrics"] = {name: value.to_dict() for name, value in self.metrics.items()}
        data["rows"] = {name: rows.tolist() for name, rows in self.rows.items()}
        for name in ("ids", "questions", "references", "outputs"):
            data[name] = list(data[name])
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "judgement") -> Judgement:
        """What `to_dict` gave.

        Raises:
            InputError: The data are something else.
        """
        try:
            values = {name: data[name] for name in cls.__dataclass_fields__}
            for name in ("ids", "questions", "references", "outputs"):
                values[name] = tuple(values[name])
            values["metrics"] = {
                name: MetricValue.from_dict(value) for name, value in values["metrics"].items()
            }
            values["rows"] = {
                name: np.array(rows, dtype=np.float64) for name, rows in values["rows"].items()
            }
            found = cls(**values)
            sizes = {len(rows) for rows in found.rows.values()}
            sizes |= {len(own) for own in (found.questions, found.references, found.outputs)}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"is not a judgement: {error!r}", where=where) from error
        if sizes != {len(found.ids)}:
            raise InputError(f"has {len(found.ids)} cases and rows for {sizes}", where=where)
        if found.rows.keys() != found.metrics.keys():
            raise InputError(
                f"has the metrics {', '.join(found.metrics)} and rows for {', '.join(found.rows)}",
                where=where,
            )
        return found


def compare(before: Judgement, after: Judgement) -> dict[str, PairedResult]:
    """Per metric, what changed between two models on the same cases.

    Raises:
        InputError: The cases or the metrics differ, or a metric was computed in another way, or
            the models cut the references into other tokens, so that figures per token differ.
    """
    if before.ids != after.ids or before.references != after.references:
        raise InputError(
            f"{len(before.ids)} and {len(after.ids)} cases, not the same ones in the same order",
            fix="judge both models on the same test set",
        )
    if before.metrics.keys() != after.metrics.keys():
        raise InputError(
            f"metrics {', '.join(before.metrics)} before and {', '.join(after.metrics)} after"
        )
    return {name: _compare(name, before, after) for name in before.metrics}


def side_by_side(before: Judgement, after: Judgement) -> list[dict[str, str]]:
    """The answers of two models to the questions that both were asked.

    Each has `question`, `reference`, `before` and `after`.
    """
    columns = (before.questions, before.references, before.outputs, after.outputs)
    return [
        {"question": question, "reference": reference, "before": first, "after": second}
        for question, reference, first, second in zip(*columns, strict=True)
        if first is not None and second is not None
    ]


def _compare(name: str, before: Judgement, after: Judgement) -> PairedResult:
    signatures = [own.metrics[name].signature for own in (before, after)]
    if signatures[0] != signatures[1]:
        raise InputError(
            f"{name} was computed in two ways: {signatures[0]} and {signatures[1]}",
            fix="judge both models with the same settings",
        )
    first, second = before.rows[name], after.rows[name]
    per_token = name in ("perplexity", "token_accuracy")
    if per_token and not np.array_equal(first[:, 1], second[:, 1]):
        raise InputError(
            f"{name} is per token, and the two models cut the references into other tokens",
            fix="compare them by bits_per_byte",
        )
    score = measure(name).score
    return paired(first, second, score, resamples=before.resamples, seed=before.seed)
