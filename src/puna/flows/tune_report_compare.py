"""The page of several tuning methods on one budget: quality against what each of them takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from puna.artifact import format_bytes
from puna.flows.tune_report_told import Told, fact
from puna.report import (
    Cell,
    Code,
    Details,
    Dot,
    Intervals,
    KeyValues,
    Page,
    Paragraph,
    Part,
    Scatter,
    Score,
    Section,
    Table,
    Verdict,
    read_score,
)
from puna.report.words import MISSING, count, duration, energy, finite, mass, number, plural

Unit = Literal["plain", "bytes", "seconds", "joules"]

_MEASURES: tuple[tuple[str, str, str, Unit], ...] = (
    ("trainable", "Quality against trained parameters", "trained parameters", "plain"),
    ("seconds", "Quality against time", "time", "seconds"),
    ("peak_bytes", "Quality against memory", "peak memory", "bytes"),
    ("energy_joules", "Quality against energy", "energy", "joules"),
)


@dataclass(frozen=True)
class _Row:
    """One method, read."""

    name: str
    score: Score | None
    told: Told
    error: str

    def measure(self, key: str) -> float | None:
        return finite(self.told.get(key))


def compare_page(
    rows: Sequence[Told],
    *,
    base: Mapping[str, Any] | None = None,
    title: str = "Tuning methods compared",
    command: str = "",
    facts: Mapping[str, Any] | None = None,
) -> Page:
    """The page of `puna tune --compare`.

    Args:
        rows: One mapping per method: `name`, `metric` (a metric's plain data: the quality),
            `trainable` (parameters), `seconds`, `peak_bytes`, `energy_joules`; and where known
            `co2e_grams`, `validation_loss`, `folder`, and `error` for a method that failed.
        base: The same metric of the untuned model.
        title: Of the page.
        command: What was typed.
        facts: What all methods had in common: data, seeds, budget.
    """
    known = [_read(row) for row in rows]
    floor = read_score("quality", base)
    sections = [Section("The figures", tuple(_figures(known, floor)), short="Figures")]
    charts = tuple(c for measure in _MEASURES if (c := _chart(known, floor, *measure)))
    sections.append(
        Section(
            "Quality against what it takes",
            charts or (Paragraph("No measure was taken of two methods or more.", "quiet"),),
            short="Plots",
            lead="Better is higher and further to the left."
            if _higher(known)
            else "Better is lower and further to the left.",
        )
    )
    again: list[Part] = [Code(command, "Command")] if command else []
    if facts:
        again.append(KeyValues({str(k).replace("_", " "): fact(v) for k, v in facts.items()}))
    if again:
        sections.append(Section("To repeat it", tuple(again), short="Repeat"))
    return Page(
        title,
        f"{plural(len(known), 'method')} on the same data, seeds and budget",
        "Puna · methods compared",
        tuple(_opening(known, floor)),
        tuple(sections),
        "Written by puna. Intervals hold 95 % of bootstrap resamples over the test examples.",
    )


def _read(row: Told) -> _Row:
    return _Row(
        str(row.get("name") or "unnamed"),
        read_score("quality", row.get("metric")),
        row,
        str(row.get("error") or ""),
    )


def _higher(rows: Sequence[_Row]) -> bool:
    return next((row.score.higher_is_better for row in rows if row.score), True)


def _ranked(rows: Sequence[_Row]) -> list[tuple[_Row, Score, float]]:
    """Those that were judged, the best first."""
    judged = [
        (row, row.score, row.score.value)
        for row in rows
        if row.score is not None and row.score.value is not None
    ]
    return sorted(judged, key=lambda entry: entry[2], reverse=_higher(rows))


def _opening(rows: Sequence[_Row], floor: Score | None) -> list[Part]:
    ranked = _ranked(rows)
    if not ranked:
        return [Verdict("plain", "Not judged", "No method was judged, so none can be preferred.")]
    best, score, _ = ranked[0]
    peers = [row for row, other, _ in ranked[1:] if _same(score, other)]
    intervals = [
        entry.interval(row.name, "good" if row is best else "plain") for row, entry, _ in ranked
    ]
    if floor is not None:
        intervals.append(floor.interval("base, untuned", "quiet"))
    sentence = f"{best.name} has the best {score.title}: {_with_bounds(score)}."
    word = "No clear winner" if peers else "Best"
    parts: list[Part] = [
        Verdict("even" if peers else "good", word, sentence, _detail(best, peers, floor, score))
    ]
    parts.append(Intervals(tuple(intervals), f"{score.title}, with 95 % intervals"))
    failed = [row for row in rows if row.error]
    parts += [Paragraph(f"{row.name} failed: {row.error}", "bad") for row in failed]
    return parts


def _same(best: Score, other: Score) -> bool:
    """Whether intervals overlap; without intervals nothing is told apart."""
    if best.low is None or best.high is None or other.low is None or other.high is None:
        return True
    return best.low <= other.high and other.low <= best.high


def _detail(best: _Row, peers: Sequence[_Row], floor: Score | None, score: Score) -> str:
    said = []
    if peers:
        names = ", ".join(row.name for row in peers)
        said.append(
            f"Its interval overlaps with that of {names}: these figures do not tell them apart."
        )
        for key, word in (("seconds", "quickest"), ("trainable", "smallest")):
            among = [(v, row) for row in (best, *peers) if (v := row.measure(key)) is not None]
            if len(among) > 1:
                value, row = min(among, key=lambda entry: entry[0])
                shown = duration(value) if key == "seconds" else f"{count(value)} parameters"
                said.append(f"The {word} of these is {row.name} ({shown}).")
    if floor is not None and floor.value is not None:
        which = "overlaps with" if _same(floor, score) else "lies apart from"
        said.append(f"Its interval {which} that of the untuned model, {_with_bounds(floor)}.")
    return " ".join(said)


def _with_bounds(score: Score) -> str:
    bounds = score.interval_text()
    return score.text(score.value) + (f" (95 % interval {bounds})" if bounds else "")


def _figures(rows: Sequence[_Row], floor: Score | None) -> list[Part]:
    titles = [row.score.title for row in rows if row.score] or ["Quality"]
    columns = ("Method", titles[0], "Validation loss", "Trained", "Time", "Peak memory", "Energy")
    ranked = [row for row, *_ in _ranked(rows)]
    order = ranked + [row for row in rows if row not in ranked]
    cells = [_cells(row) for row in order]
    if floor is not None:
        quality = Cell(floor.text(floor.value), floor.interval_text())
        cells.append(("base, untuned", quality, *([MISSING] * 5)))
    if not cells:
        return [Paragraph("No method was run.", "quiet")]
    caption = "The best first; values with 95 % bootstrap intervals"
    parts: list[Part] = [Table(columns, tuple(cells), caption=caption)]
    folders = {row.name: str(row.told["folder"]) for row in order if row.told.get("folder")}
    return [*parts, Details("Where the products lie", (KeyValues(folders),))] if folders else parts


def _cells(row: _Row) -> tuple[str | Cell, ...]:
    peak = row.measure("peak_bytes")
    quality = (
        Cell(row.score.text(row.score.value), row.score.interval_text()) if row.score else None
    )
    grams = row.measure("co2e_grams")
    return (
        Cell(row.name, "failed" if row.error else ""),
        quality or MISSING,
        number(row.measure("validation_loss"), 3),
        count(row.measure("trainable")),
        duration(row.measure("seconds")),
        MISSING if peak is None else format_bytes(peak),
        Cell(
            energy(row.measure("energy_joules")),
            "" if grams is None else f"{mass(grams)} CO\u2082e",
        ),
    )


def _chart(
    rows: Sequence[_Row], floor: Score | None, key: str, title: str, label: str, unit: Unit
) -> Scatter | None:
    """Quality against one measure; None where fewer than two methods have both."""
    dots = tuple(
        Dot(row.name, row.measure(key), score.value, score.low, score.high)
        for row in rows
        if (score := row.score) is not None
    )
    if sum(dot.x is not None and dot.y is not None for dot in dots) < 2:
        return None
    level = None if floor is None or floor.value is None else (floor.value, "base, untuned")
    quality = next(row.score.title for row in rows if row.score)
    return Scatter(title, dots, label, quality, unit, level)
