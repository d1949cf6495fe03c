"""How sure a figure is: bootstrap intervals over examples, and paired comparisons.

A metric is a function of the sums of what its examples contribute (n-gram counts, edits, nats),
so a resample of the test set is a weighted sum of rows, and thousands of them one matrix product.

Shapes: N examples, K statistics of one example, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.errors import InputError

Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]  # sums [R, K] to figures [R]

MIN_RESAMPLES = 40  # fewer have no 2.5 % at each end
_CHUNK_ENTRIES = 4_000_000  # drawn indices in memory at a time


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedResult:
    """What changed from one model to another on the same examples."""

    difference: float  # after minus before, in the metric's unit
    low: float  # 95 % interval of the difference
    high: float
    p_value: float  # two-sided: how often chance alone makes a difference this large
    n: int  # examples

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


def bootstrap(rows: Floats, score: Score, *, resamples: int = 1000, seed: int = 12345) -> Interval:
    """The figure of some examples, with its percentile bootstrap interval (Efron 1979).

    With the seed of sacrebleu, 12345, the resamples are those that sacrebleu draws (Koehn 2004).
    The interval says how the figure depends on which examples were drawn, not on the training.

    Args:
        rows: [N, K] what each example contributes.
        score: Sums to figures.
        resamples: R; more make the ends of the interval steadier.
        seed: Of the draws.

    Raises:
        InputError: There are no examples, or too few resamples.
    """
    _check(rows, resamples)
    figures = score(resampled_sums(rows, resamples=resamples, seed=seed))
    low, high = _percentiles(figures)
    return Interval(float(score(rows.sum(0, keepdims=True))[0]), low, high)


def paired(
    before: Floats, after: Floats, score: Score, *, resamples: int = 1000, seed: int = 12345
) -> PairedResult:
    """Compare two models on the same examples; each resample draws the same ones of both.

    The p-value is that of the shifted bootstrap (Noreen 1989; Riezler & Maxwell 2005), two-sided:
    the share of resamples whose difference lies at least as far from the mean of the resampled
    differences as the observed one from zero. sacrebleu's paired bootstrap compares absolute
    differences with their mean instead, which is one-sided once the sign is clear: half of this.

    Args:
        before: [N, K] what each example contributes with the first model.
        after: [N, K] the same with the second.
        score: Sums to figures.
        resamples: R; no p-value is below 1 / (R + 1).
        seed: Of the draws.

    Raises:
        InputError: The two are of different shapes, empty, or the resamples are too few.
    """
    if before.shape != after.shape:
        raise InputError(
            f"{len(before)} examples before and {len(after)} after: a paired comparison needs "
            "the same ones"
        )
    _check(before, resamples)
    pairs = [
        score(resampled_sums(rows, resamples=resamples, seed=seed)) for rows in (before, after)
    ]
    ends = [score(rows.sum(0, keepdims=True))[0] for rows in (before, after)]
    with np.errstate(invalid="ignore"):  # of infinite figures
        differences = pairs[1] - pairs[0]
        observed = float(ends[1] - ends[0])
        away = np.abs(differences - differences.mean())
    # A rounding error must not decide whether a difference counts as large as another; what is
    # no number proves nothing, so it counts as one.
    near = away < abs(observed) * (1 - 1e-9)
    low, high = _percentiles(differences)
    p_value = float((~near).sum() + 1) / (resamples + 1)
    return PairedResult(observed, low, high, p_value, len(before))


def resampled_sums(rows: Floats, *, resamples: int, seed: int) -> Floats:
    """Sums [R, K] over resamples of the rows [N, K], drawn with replacement."""
    parts = [weights @ rows for weights in _weights(len(rows), resamples, seed)]
    return np.concatenate(parts)


def _weights(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each of `count` examples is drawn [part of R, N]."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK_ENTRIES // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(0, count, size=(size, count))
        drawn += np.arange(size)[:, None] * count
        counts = np.bincount(drawn.ravel(), minlength=size * count)
        yield counts.reshape(size, count).astype(np.float64)


def _percentiles(figures: Floats) -> tuple[float, float]:
    """The middle 95 %, cut where sacrebleu cuts."""
    ordered = np.sort(figures)
    cut = len(ordered) // 40
    return float(ordered[cut]), float(ordered[len(ordered) - cut - 1])


def _check(rows: Floats, resamples: int) -> None:
    if not len(rows):
        raise InputError("there are no examples to judge by")
    if resamples < MIN_RESAMPLES:
        raise InputError(f"resamples must be at least {MIN_RESAMPLES}, not {resamples}")
