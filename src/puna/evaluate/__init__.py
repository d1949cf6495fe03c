"""A model and a test set in, figures with their uncertainty and answers out.

Every figure comes with a 95 % interval by bootstrap over the examples, and where it has one with
the signature that tells how it was computed. Two models are compared on the same examples, pair
by pair. Nothing is random: the same model on the same cases gets the same figures.
"""

from __future__ import annotations

from puna.evaluate.cases import Case, choose
from puna.evaluate.intervals import Interval, PairedResult, bootstrap, paired
from puna.evaluate.judge import EvaluationConfig, judge
from puna.evaluate.judgement import Judgement, compare, side_by_side
from puna.evaluate.metrics import (
    MEASURES,
    BleuTokenizer,
    Measure,
    MetricValue,
    TextMetric,
    bleu_tokenizer,
    measure,
    summarise,
)
from puna.evaluate.teacher import score_answers

__all__ = [
    "MEASURES",
    "BleuTokenizer",
    "Case",
    "EvaluationConfig",
    "Interval",
    "Judgement",
    "Measure",
    "MetricValue",
    "PairedResult",
    "TextMetric",
    "bleu_tokenizer",
    "bootstrap",
    "choose",
    "compare",
    "judge",
    "measure",
    "paired",
    "score_answers",
    "side_by_side",
    "summarise",
]
