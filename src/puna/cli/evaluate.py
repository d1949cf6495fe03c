"""`puna evaluate`: how good is a model, and is it better than another?"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from puna.cli.output import table_console
from puna.cli.progress import ReportOptions, reporting
from puna.flows import evaluating as flow
from puna.flows.evaluate_data import DataOptions
from puna.flows.evaluate_options import AskOptions, EvaluateOptions, JudgeOptions, RunOptions
from puna.flows.evaluate_page import names
from puna.flows.tune_report_told import listing, mapping, mappings, metrics, pair, text
from puna.report import Score, direction
from puna.report.words import MISSING, probability

SAMPLES = 3  # answers that are printed; the report has more


@dataclass(frozen=True)
class Place:
    """What is written."""

    out: Path | None = None
    """A folder to make, with evaluation.json and report.html."""
    force: bool = False
    """Replace the evaluation that is there."""


def evaluate(
    model: str,
    *,
    base: str = "auto",
    data: Annotated[
        DataOptions, Parameter(name="*", consume_multiple=True, negative_iterable=())
    ] = DataOptions(),  # noqa: B008
    ask: Annotated[AskOptions, Parameter(name="*")] = AskOptions(),  # noqa: B008
    judging: Annotated[
        JudgeOptions, Parameter(name="*", consume_multiple=True, negative_iterable=())
    ] = JudgeOptions(),  # noqa: B008
    run: Annotated[RunOptions, Parameter(name="*")] = RunOptions(),  # noqa: B008
    place: Annotated[Place, Parameter(name="*")] = Place(),
    report: Annotated[ReportOptions, Parameter(name="*")] = ReportOptions(),  # noqa: B008
) -> None:
    """Judge a model on data, and compare it with what it was made from.

    A run is judged on its own test examples; any model on the files that --data names. Every
    figure has a 95 % interval, and every difference a test on the same examples.

    Args:
        model: A run, a tuning, a path, an alias, a packaged model, or owner/name on the hub.
        base: Another model to compare with; auto: what the model was made from; none.
    """
    options = EvaluateOptions(
        base,
        data,
        ask,
        replace(judging, metrics=_split(judging.metrics)),
        run,
        place.out,
        place.force,
        shlex.join(["puna", *sys.argv[1:]]),
    )
    with reporting(report, "examples") as progress:
        found = flow.evaluate(model, options, progress)
    console = table_console()
    for line in _about(found.told):
        console.print(Text(line), soft_wrap=True)
    _print_table(console, found.told)
    for line in (*_signatures(found.told), *_answers(found.told)):
        console.print(Text(line), soft_wrap=True)
    if report.quiet:
        return
    for note in listing(found.told, "notes"):
        print(f"note     {note}", file=sys.stderr)
    if found.path is not None:
        print(f"report   {found.path / flow.REPORT}", file=sys.stderr)


def _split(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names that are separated by spaces or commas."""
    return tuple(name for part in names for name in part.split(",") if name)


def _about(told: Mapping[str, Any]) -> Iterator[str]:
    data, asked = mapping(told, "data"), mapping(told, "asked")
    model, base = names(told)
    made_from = mapping(told, "model").get("made_from")
    yield f"model    {model}" + (f", made from {made_from}" if made_from else "")
    if base:
        yield f"base     {base}"
    files = [Path(text(file)).name for file in listing(data, "files")]
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    own = ": the run's own test split" if data.get("of") != "files" else ""
    judged, total = int(data["judged"]), int(data["examples"])
    of = f" of {total:,}" if judged < total else ""
    where = ", ".join(files[:3]) + more
    yield f"data     {judged:,}{of} examples in {where} ({data['shape']}){own}"
    for reason, count in mapping(data, "left_out").items():
        yield f"         {count:,} left out: {reason}"
    for reason, count in mapping(mapping(data, "quarantine"), "counts").items():
        yield f"         {count:,} rows left out: {reason}"
    wording = mapping(asked, "wording")
    if wording.get("prompt"):
        yield f"asked    {wording['prompt']!r}"
    yield ""


def _print_table(console: Console, told: Mapping[str, Any]) -> None:
    model, base = names(told)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("metric")
    for name in (base, model, "difference", "p") if base else (model,):
        table.add_column(Text(_short(name)), justify="right")
    for name in metrics(told, "after"):
        before, after, change = pair(told, name)
        known = after or Score(name, None)
        arrow = "higher" if known.higher_is_better else "lower"
        row = [Text(f"{known.title} ({arrow} is better)"), Text(_value(known))]
        if base:
            styles = {"good": "green", "bad": "red"}
            style = styles.get(direction(before, after, change), "")
            moved = change.parts(known.unit) if change else (MISSING, "")
            p = probability(change.p_value).removeprefix("p ") if change else MISSING
            difference = f"{moved[0]} [{moved[1]}]" if moved[1] else moved[0]
            row[1:1] = [Text(_value(before))]
            row += [Text(difference, style=style), Text(p.removeprefix("= "))]
        table.add_row(*row)
    console.print(table)


def _value(score: Score | None) -> str:
    if score is None:
        return MISSING
    bounds = score.interval_text()
    return score.text(score.value) + (f" [{bounds}]" if bounds else "")


def _short(name: str) -> str:
    """A name for the head of a column: of a path, the last two parts."""
    parts = Path(name).parts
    return name if len(name) <= 24 else str(Path(*parts[-2:]))[-24:]


def _signatures(told: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "In brackets: 95 % intervals, by bootstrap over the examples."
    for name in metrics(told, "after"):
        _, after, _ = pair(told, name)
        if after is not None and after.signature:
            yield f"{after.title}: {after.signature}"


def _answers(told: Mapping[str, Any]) -> Iterator[str]:
    model, base = (_short(name) for name in names(told))
    labels = {"question": "asked", "reference": "wanted", "before": base, "after": model}
    wide = max(map(len, labels.values()))
    for sample in mappings(told, "samples")[:SAMPLES]:
        yield ""
        for key, label in labels.items():
            if key in sample:
                said = " ".join(text(sample[key]).split())
                yield f"{label:{wide}}  {said[:400]}"
