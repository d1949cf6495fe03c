"""The sections of a tuning report on the curves, the costs, the cache and the origin."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from puna.artifact import format_bytes
from puna.flows.tune_report_told import (
    Told,
    absent,
    date,
    fact,
    listing,
    mapping,
    mappings,
    text,
)
from puna.report import (
    BarChart,
    Chain,
    Code,
    Details,
    Interval,
    KeyValues,
    LineChart,
    Paragraph,
    Part,
    Section,
    Series,
    Step,
    Table,
    metric_title,
)
from puna.report.words import duration, energy, finite, mass, number, plural

_NOT_METRICS = ("step", "epoch", "tokens", "trained_tokens", "seconds", "examples", "best")
_MORE_CURVES = (
    ("learning_rate", "Learning rate", "learning rate"),
    ("grad_norm", "Gradient norm, before clipping", "norm"),
    ("tokens_per_second", "Speed", "tokens per second"),
)

Points = list[tuple[float | None, float | None]]


def learning(summary: Told) -> Section:
    """Loss and other curves over the steps."""
    steps, evaluations = mappings(summary, "history"), mappings(summary, "evaluations")
    series = _loss_series(steps, evaluations)
    if not series:
        return Section("How it learnt", (absent("training step"),), short="Learning")
    parts: list[Part] = [_loss_chart(series, summary)]
    bad = [_step(entry) for entry in steps if _bad(entry)]
    if bad:
        where = ", ".join(number(step) for step in bad[:10]) + (" ..." if len(bad) > 10 else "")
        said = f"{plural(len(bad), 'step')} with a loss that was not finite: {where}."
        those = "it" if len(bad) == 1 else "them"
        parts.append(Paragraph(f"{said} Nothing was learnt in {those}.", "bad"))
    more = [*_metric_charts(evaluations), *_step_charts(steps)]
    if more:
        parts.append(Details("More curves", tuple(more)))
    return Section("How it learnt", tuple(parts), short="Learning", lead=_course(evaluations))


def _loss_series(steps: list[Told], evaluations: list[Told]) -> tuple[Series, ...]:
    raw = _points(steps, "loss")
    validation = _points(evaluations, "validation_loss")
    series = []
    window = max(len(raw) // 40, 1)
    if window > 2:
        smooth = tuple(_smoothed(raw, window))
        series.append(Series(f"training, mean of {window} steps", smooth))
    if any(y is not None for _, y in validation):
        series.append(Series("validation", tuple(validation), marked=True))
    if any(y is not None for _, y in raw):
        name = "training, each step" if window > 2 else "training"
        series.append(Series(name, tuple(raw), quiet=window > 2))
    return tuple(series)


def _loss_chart(series: tuple[Series, ...], summary: Told) -> LineChart:
    losses = [y for line in series for _, y in line.points if y is not None]
    wide = bool(losses) and min(losses) > 0 and max(losses) / min(losses) > 30
    best = finite(summary.get("best_step"))
    return LineChart(
        "Loss",
        series,
        "optimizer step",
        "nats per trained token" + (" (logarithmic)" if wide else ""),
        log_y=wide,
        rule=None if best is None else (best, f"kept: step {number(int(best))}"),
    )


def _course(evaluations: list[Told]) -> str:
    """What the validation loss did, in one sentence."""
    points = [(s, loss) for s, loss in _points(evaluations, "validation_loss") if loss is not None]
    if not points:
        return "There was no validation, so overfitting would not be seen."
    step, lowest = min(points, key=lambda point: point[1] or 0.0)
    at = "" if step is None else f" at step {number(int(step))}"
    said = f"Validation loss was lowest{at}, {number(lowest)} nats per trained token"
    if len(points) > 1 and points[-1][1] is not None and points[-1][1] > 1.02 * (lowest or 0.0):
        return f"{said}, and rose to {number(points[-1][1])} by the end."
    return f"{said}."


def _metric_charts(evaluations: list[Told]) -> list[Part]:
    names = dict.fromkeys(name for entry in evaluations for name in entry)
    charts: list[Part] = []
    for name in names:
        points = _points(evaluations, name)
        known = [y for _, y in points if y is not None]
        if name not in (*_NOT_METRICS, "validation_loss") and len(known) > 1:
            title = metric_title(name)
            line = Series(title, tuple(points), marked=True)
            charts.append(LineChart(f"{title} on validation", (line,), "optimizer step", title))
    return charts


def _step_charts(steps: list[Told]) -> list[Part]:
    charts: list[Part] = []
    for key, title, label in _MORE_CURVES:
        points = _points(steps, key)
        if sum(y is not None for _, y in points) > 1:
            line = Series(title, tuple(points))
            charts.append(LineChart(title, (line,), "optimizer step", label))
    return charts


def _points(entries: list[Told], key: str) -> Points:
    return [(_step(entry), finite(entry.get(key))) for entry in entries]


def _step(entry: Told) -> float | None:
    return finite(entry.get("step"))


def _bad(entry: Told) -> bool:
    return bool(entry.get("skipped")) or ("loss" in entry and finite(entry["loss"]) is None)


def _smoothed(points: Points, window: int) -> Points:
    """The mean over each `window` points that are known, at its last step."""
    known = [(x, y) for x, y in points if x is not None and y is not None]
    starts = [*range(0, len(known), window), len(known)]
    groups = [known[start:end] for start, end in pairwise(starts)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups if group]


# --- what it cost ---------------------------------------------------------------------------------


def cost(summary: Told) -> Section:
    """Time, energy and CO2e by stage, and how they came about."""
    ledger = mapping(summary, "ledger")
    stages = {name: entry for name, entry in mapping(ledger, "stages").items() if entry}
    if not stages:
        return Section("What it cost", (absent("cost"),), short="Cost")
    total = mapping(ledger, "total")
    table = Table(
        ("Stage", "Time", "CPU time", "Tokens", "Energy", "CO\u2082e", "Peak memory"),
        tuple(_cost_row(str(name), mapping(stages, name), total) for name in stages),
        caption="Every stage of the run",
        total=_cost_row("Total", total, total) if total else (),
    )
    bars = tuple(
        Interval(str(name), seconds, text=duration(seconds))
        for name in stages
        for seconds in [finite(mapping(stages, name).get("wall_seconds"))]
        if seconds is not None
    )
    parts: list[Part] = [table]
    if len(bars) > 1:
        parts.append(BarChart("Where the time went", bars, "seconds"))
    if said := text(mapping(summary, "memory").get("sentence")):
        parts.append(Paragraph(f"Training, {said}.", "quiet"))
    return Section("What it cost", (*parts, *_estimates(ledger, total)), short="Cost")


def _cost_row(name: str, told: Told, total: Told) -> tuple[str, ...]:
    tokens, peak = told.get("tokens"), finite(told.get("peak_bytes"))
    return (
        name,
        duration(told.get("wall_seconds")),
        duration(told.get("cpu_seconds")),
        number(tokens or None),
        energy(told.get("energy_joules"), like=total.get("energy_joules")),
        mass(told.get("co2e_grams"), like=total.get("co2e_grams")),
        number(None) if not peak else format_bytes(peak),
    )


def _estimates(ledger: Told, total: Told) -> list[Part]:
    """How the figures of energy and CO2e were come by: never left unsaid."""
    grams = finite(ledger.get("carbon_grams_per_kwh"))
    source = text(total.get("source"))
    facts = {
        "energy": source or "the run did not record how it was measured or estimated",
        "CO\u2082e": "not recorded"
        if grams is None
        else f"{number(grams)} g per kWh of electricity",
    }
    if ledger.get("country"):
        facts["CO\u2082e"] += f", the mix of {ledger['country']}"
    notes: list[Part] = [Paragraph(str(note), "even") for note in listing(ledger, "notes")]
    return [
        Paragraph("How energy and CO\u2082e were determined", "quiet"),
        KeyValues(facts),
        *notes,
    ]


def cache(summary: Told) -> Section:
    """What the trunk cache saved."""
    told = mapping(summary, "cache")
    if not told:
        known = "cache" in summary and summary["cache"] is None
        said = Paragraph("No trunk cache was used: every step ran the whole model.", "quiet")
        why_not = said if known else absent("figures of a trunk cache")
        return Section("The trunk cache", (why_not,), short="Cache")
    facts = {str(key).replace("_", " "): _cache_fact(str(key), v) for key, v in told.items()}
    lead = facts.pop("sentence", "")
    damaged = finite(told.get("damaged"))
    parts: list[Part] = [KeyValues(facts)]
    if damaged:
        harm = f"{plural(int(damaged), 'stored chunk')} found damaged, and computed again."
        parts.append(Paragraph(harm, "even"))
    why = "The frozen lower layers were computed once for each example, kept on disk and read back."
    return Section("The trunk cache", tuple(parts), short="Cache", lead=lead or why)


def _cache_fact(key: str, value: Any) -> str:
    known = finite(value)
    if known is not None and "bytes" in key:
        return format_bytes(known)
    return duration(known) if known is not None and "seconds" in key else fact(value)


# --- where it comes from, and how to do it again --------------------------------------------------


def lineage(summary: Told) -> Section:
    """What the product descends from."""
    steps = []
    for entry in listing(summary, "lineage"):
        if isinstance(entry, dict):
            known = {str(key): value for key, value in entry.items()}
            name = next((known.pop(k) for k in ("name", "title", "kind") if known.get(k)), "step")
            digest = next((known.pop(k) for k in ("digest", "identity") if known.get(k)), "")
            said = known.pop("text", None) or known.pop("about", None)
            rest = " · ".join(f"{key}: {fact(v)}" for key, v in known.items() if v is not None)
            steps.append(Step(text(name), text(said) or rest, text(digest)))
        else:
            steps.append(Step(text(entry)))
    parts: tuple[Part, ...] = (Chain(tuple(steps)),) if steps else (absent("lineage"),)
    return Section("Where it comes from", parts, short="Lineage")


def repeat(summary: Told) -> Section:
    """The exact command, and the machine that it ran on."""
    command = text(summary.get("command"))
    parts: list[Part] = [Code(command, "Command") if command else absent("command")]
    machine = {str(k).replace("_", " "): fact(v) for k, v in mapping(summary, "machine").items()}
    if summary.get("finished"):
        machine["finished"] = date(summary["finished"])
    if machine:
        parts.append(KeyValues(machine))
    return Section("To repeat it", tuple(parts), short="Repeat")
