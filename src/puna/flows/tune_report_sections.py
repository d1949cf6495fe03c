"""The sections of a tuning report on what was asked, the data and the quality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from puna.flows.tune_report_told import (
    Told,
    absent,
    fact,
    listing,
    mapping,
    mappings,
    metrics,
    pair,
    plain,
    text,
)
from puna.report import (
    Cell,
    Code,
    Details,
    Histogram,
    Interval,
    KeyValues,
    MarkedText,
    Paragraph,
    Part,
    Sample,
    Score,
    Section,
    SideBySide,
    Table,
    direction,
)
from puna.report.words import (
    MISSING,
    finite,
    number,
    percent,
    plural,
    probability,
)

SAMPLES = 20  # that stand side by side
LISTED_FILES = 2  # of each split

_LABELS = (
    ("identity", "model identity"),
    ("parameters", "parameters of the model"),
    ("trainable", "parameters trained"),
    ("total", "parameters in all"),
    ("layers", "layers that learn"),
    ("start", "first layer that learns"),
)


def asked(summary: Told) -> Section:
    """The model, the method and the whole recipe."""
    facts: dict[str, str] = {}
    for name in ("model", "method"):
        for key, value in mapping(summary, name).items():
            plain_label = name if key == "name" else f"{name}: {key.replace('_', ' ')}"
            facts[dict(_LABELS).get(key, plain_label)] = fact(value)
    parts: list[Part] = [KeyValues(facts)] if facts else []
    recipe = mapping(summary, "asked")
    if recipe:
        written = yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True)
        parts.append(Details("The whole recipe, with every value as it was used", (Code(written),)))
    return Section("What was asked", tuple(parts) or (absent("recipe"),), short="Asked")


def _files(value: Any) -> str:
    """Files by split: one or two by their paths; of more, their number and the folder."""
    if not isinstance(value, Mapping):
        return fact(value)
    said = []
    for name, paths in value.items():
        known = [str(path) for path in paths] if isinstance(paths, list | tuple) else [fact(paths)]
        folder = PurePath(known[0]).parent if known else PurePath()
        while not all(PurePath(path).is_relative_to(folder) for path in known):
            if folder == folder.parent:  # they have none in common
                break
            folder = folder.parent
        many = f"{len(known):,} files in {folder}"
        if known:
            said.append(f"{name}: {', '.join(known) if len(known) <= LISTED_FILES else many}")
    return "; ".join(said)


def data(summary: Told) -> Section:
    """Files, splits, what was left out and why, and what is trained."""
    told, mask = mapping(summary, "data"), mapping(summary, "mask")
    facts = {
        key.replace("_", " "): _files(value) if key == "files" else fact(value)
        for key, value in told.items()
        if key not in ("splits", "quarantine") and value not in (None, "", [], {})
    }
    if "why" in facts:
        facts["recognised by"] = facts.pop("why")
    parts: list[Part] = [KeyValues(facts)] if facts else []
    splits = mapping(told, "splits")
    names = [*mask, *(name for name in splits if name not in mask)]
    if names:
        parts.append(_split_table(names, mask, splits))
    parts += _losses(told, mask)
    for name, report in mask.items():
        if isinstance(report, Mapping):
            parts += _mask_parts(name, report, first=name == next(iter(mask)))
    return Section(
        "Data, and what the model is trained to say",
        tuple(parts) or (absent("figure about the data"),),
        short="Data",
        lead="Only the trained tokens enter the loss; the rest is context." if mask else "",
    )


def _split_table(names: Iterable[str], mask: Told, splits: Told) -> Table:
    rows = []
    for name in names:
        told = mapping(mask, name)
        dropped = [n for n in map(finite, mapping(told, "dropped").values()) if n is not None]
        tokens, trained = finite(told.get("tokens")), finite(told.get("trained_tokens"))
        share = percent(trained / tokens) if trained is not None and tokens else ""
        rows.append(
            (
                name,
                number(told.get("examples", splits.get(name))),
                number(told.get("tokens")),
                Cell(number(told.get("trained_tokens")), share),
                number(told.get("masked_tokens")),
                number(told.get("truncated_examples")),
                number(int(sum(dropped))) if told else MISSING,
            )
        )
    columns = ("Split", "Examples", "Tokens", "Trained", "Masked", "Truncated", "Dropped")
    return Table(columns, tuple(rows), caption="Examples and tokens by split")


def _losses(data: Told, mask: Told) -> list[Part]:
    """Everything that was left out, by reason."""
    rows = [
        ("read", reason, n) for reason, n in mapping(mapping(data, "quarantine"), "counts").items()
    ]
    for name in mask:
        rows += [(name, reason, n) for reason, n in mapping(mapping(mask, name), "dropped").items()]
    if not rows:
        return [Paragraph("Nothing was left out.", "quiet")] if data or mask else []
    cells = tuple((str(where), str(reason), number(n)) for where, reason, n in rows)
    parts: list[Part] = [
        Table(("Stage", "Reason", "Rows"), cells, "llr", caption="What was left out, and why")
    ]
    cases = mappings(mapping(data, "quarantine"), "samples")
    listed = tuple((str(c.get("locator", "")), str(c.get("reason", ""))) for c in cases)
    if listed:
        table = Table(("Where", "Why"), listed, "ll", caption="First rows that were left out")
        parts.append(Details("Where they stand", (table,)))
    return parts


def _mask_parts(name: str, report: Told, *, first: bool) -> list[Part]:
    bins = tuple(
        (low, max(high - 1, low), int(n))  # the report counts up to below the second bound
        for entry in listing(report, "histogram")
        if isinstance(entry, Sequence) and len(entry) == 3
        for low, high, n in [tuple(map(finite, entry))]
        if low is not None and high is not None and n is not None
    )
    pieces = tuple(
        (str(entry[0]), bool(entry[1]))
        for entry in listing(report, "sample")
        if isinstance(entry, Sequence) and len(entry) == 2
    )
    parts: list[Part] = []
    if bins and first:
        title = f"Lengths of the {name} examples"
        parts.append(Histogram(title, bins, "tokens per example", "examples"))
    if pieces and first:
        parts.append(MarkedText(pieces, "the model is trained to say this", "context, not trained"))
    return parts


def quality(summary: Told) -> Section:
    """Every metric before and after, with intervals, paired tests and signatures."""
    names = [*metrics(summary, "after")]
    names += [name for name in metrics(summary, "before") if name not in names]
    if not names:
        said = "Neither the base nor the tuned model was judged on a test set."
        return Section("Before and after", (Paragraph(said, "even"),), short="Quality")
    table = Table(
        ("Metric", "Base", "Tuned", "Difference", "p", "Base above, tuned below"),
        tuple(_metric_row(summary, name) for name in names),
        "lrrrrl",
        "Values with 95 % bootstrap intervals; the difference is paired, on the same examples.",
    )
    known = [s for name in names for s in pair(summary, name)[:2] if s is not None]
    signed = {score.title: score.signature for score in known if score.signature}
    parts: list[Part] = [table]
    if signed:
        parts += [Paragraph("How they were computed", "quiet"), KeyValues(signed)]
    return Section("Before and after", tuple(parts), short="Quality")


def _metric_row(summary: Told, name: str) -> tuple[str | Cell, ...]:
    before, after, change = pair(summary, name)
    known = after or before or Score(name, None)
    tone = direction(before, after, change)
    way = "higher" if known.higher_is_better else "lower"
    n = f", n\u00a0=\u00a0{known.n:,}" if known.n is not None else ""
    values = [
        Cell(MISSING) if s is None else Cell(s.text(s.value), s.interval_text())
        for s in (before, after)
    ]
    strip: tuple[Interval, ...] = (before.interval("base", "quiet"),) if before else ()
    strip += (after.interval("tuned", tone),) if after else ()
    moved = change.parts(known.unit) if change else (MISSING, "")
    p = probability(change.p_value).removeprefix("p ").removeprefix("= ") if change else MISSING
    return (
        Cell(known.title, f"{way} is better{n}"),
        *values,
        Cell(*moved, tone),
        p,
        Cell("", strip=strip),
    )


def samples(summary: Told) -> Section:
    """The first outputs of both models beside the reference."""
    told = mappings(summary, "samples")[:SAMPLES]
    if not told:
        said = "No samples were generated."
        return Section("Samples side by side", (Paragraph(said, "quiet"),), short="Samples")
    keys = [key for key in ("reference", "before", "after") if any(key in s for s in told)]
    names = {"reference": "reference", "before": "base", "after": "tuned"}
    shown = tuple(
        Sample(text(s.get("question")), tuple(text(s.get(key)) for key in keys)) for s in told
    )
    return Section(
        "Samples side by side",
        (SideBySide(tuple(names[key] for key in keys), shown),),
        short="Samples",
        lead=f"{plural(len(told), 'test example')}; a tick marks an answer equal to the reference.",
    )
