"""The curves of a pretraining report: losses, bits per byte by source, rate, norm, speed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from puna.flows.tune_report_told import Told, absent, mapping, mappings
from puna.report import Details, LineChart, Part, Section, Series
from puna.report.words import finite, number

Points = tuple[tuple[float | None, float | None], ...]
MORE = (
    ("learning_rate", "Learning rate", "learning rate"),
    ("grad_norm", "Gradient norm, before clipping", "norm"),
    ("tokens_per_second", "Speed", "tokens per second"),
)
STEP = "optimizer step"
SMOOTHED = 60  # points of the smoothed line


def learning(summary: Told) -> Section:
    """Loss and other curves over the steps."""
    steps, evaluations = mappings(summary, "history"), mappings(summary, "evaluations")
    if not steps:
        return Section("How it learnt", (absent("training step"),), short="Learning")
    parts: list[Part] = [_loss(summary, steps, evaluations)]
    bits = _by_source(evaluations, "bits_per_byte")
    if bits:
        parts.append(LineChart("Bits per byte, held out", bits, STEP, "bits per byte of text"))
    more: list[Part] = []
    losses = _by_source(evaluations, "loss")
    if losses:
        more.append(LineChart("Loss by source, held out", losses, STEP, "nats per token"))
    more += _curves(summary, steps)
    if more:
        parts.append(Details("More curves", tuple(more)))
    return Section("How it learnt", tuple(parts), short="Learning", lead=_course(evaluations))


def _loss(summary: Told, steps: list[Told], evaluations: list[Told]) -> LineChart:
    raw = _points(steps, "loss")
    window = max(len(raw) // SMOOTHED, 1)
    series = []
    if window > 2:
        series.append(Series("training, smoothed", _smoothed(raw, window)))
    if any(entry.get("validation_loss") is not None for entry in evaluations):
        series.append(Series("held out", _points(evaluations, "validation_loss"), marked=True))
    series.append(Series("training", raw, quiet=window > 2))
    best = finite(summary.get("best_step"))
    rule = None if best is None else (best, f"kept: step {number(int(best))}")
    return LineChart("Loss", tuple(series), STEP, "nats per token", rule=rule)


def _by_source(evaluations: list[Told], figure: str) -> tuple[Series, ...]:
    """One line for each source; that of all together where there is one."""
    names = dict.fromkeys(name for entry in evaluations for name in entry)
    found = [name for name in names if name == figure or name.startswith(f"{figure}_")]
    return tuple(
        Series(
            name.removeprefix(figure).removeprefix("_") or "all", _points(evaluations, name), True
        )
        for name in found
    )


def _value(key: str, entry: Told) -> float | None:
    return finite(entry.get(key))


def _curves(summary: Told, steps: list[Told]) -> list[Part]:
    charts: list[Part] = []
    for key, title, label in MORE:
        charts += _chart(steps, title, label, partial(_value, key))
    told = mapping(summary, "speed")
    flops, peak = finite(told.get("flops_per_token")), finite(told.get("peak_flops_per_second"))
    if flops is not None and peak:
        scale = 100 * flops / peak

        def used(entry: Told) -> float | None:
            rate = finite(entry.get("tokens_per_second"))
            return None if rate is None else rate * scale

        charts += _chart(steps, "Model-FLOPs utilisation", "percent", used)
    return charts


def _chart(
    steps: list[Told], title: str, label: str, value: Callable[[Told], float | None]
) -> list[Part]:
    points = tuple((finite(entry.get("step")), value(entry)) for entry in steps)
    if sum(y is not None for _, y in points) < 2:
        return []
    return [LineChart(title, (Series(title, points),), STEP, label)]


def _points(entries: list[Told], key: str) -> Points:
    return tuple((finite(entry.get("step")), finite(entry.get(key))) for entry in entries)


def _smoothed(points: Points, window: int) -> Points:
    """The mean over each `window` points that are known, at its last step."""
    known = [(x, y) for x, y in points if x is not None and y is not None]
    starts = [*range(0, len(known), window), len(known)]
    groups = [known[start:end] for start, end in pairwise(starts)]
    return tuple((group[-1][0], sum(y for _, y in group) / len(group)) for group in groups if group)


def _course(evaluations: list[Told]) -> str:
    """What the held-out loss did, in one sentence."""
    points = [(x, y) for x, y in _points(evaluations, "validation_loss") if y is not None]
    if not points:
        return "No document was held out, so overfitting would not be seen."
    step, lowest = min(points, key=lambda point: point[1])
    at = "" if step is None else f" at step {number(int(step))}"
    said = f"The held-out loss was lowest{at}, {number(lowest)} nats per token"
    last = points[-1][1]
    return f"{said}, and rose to {number(last)} by the end." if last > 1.02 * lowest else f"{said}."
