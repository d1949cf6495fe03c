"""The page of an evaluation, from the plain data that evaluation.json holds."""

from __future__ import annotations

from puna.flows.tune_report_costs import cost, repeat
from puna.flows.tune_report_told import (
    Told,
    date,
    fact,
    listing,
    mapping,
    mappings,
    metrics,
    pair,
    score,
    text,
)
from puna.report import (
    Cell,
    Code,
    Details,
    Interval,
    Intervals,
    KeyValues,
    MarkedText,
    Page,
    Paragraph,
    Part,
    Sample,
    Score,
    Section,
    SideBySide,
    Table,
    Tile,
    Tiles,
    direction,
    read_change,
    verdict,
)
from puna.report.words import MISSING, count, duration, number, plural, probability


def evaluation_page(told: Told) -> Page:
    """The page of one evaluation.

    Args:
        told: `title`, `command`, `model`, `base` (null: judged alone), `own_base`, `data`,
            `asked`, `settings`, `after` and `before` (the model's figures and the base's),
            `paired`, `samples`, `notes`, `ledger`, `machine`, `finished`.
    """
    model, base = names(told)
    about = [model, f"against {base}" if base else "", date(told.get("finished"))]
    return Page(
        title=text(told.get("title")) or "An evaluation",
        subtitle=" · ".join(word for word in about if word),
        eyebrow="Puna · evaluation",
        opening=_opening(told),
        sections=(_quality(told), _samples(told), _asked(told), cost(told), repeat(told)),
        foot="Written by puna. Intervals hold 95 % of bootstrap resamples over the examples.",
    )


def names(told: Told) -> tuple[str, str]:
    """What the model and the one it is compared with are called; the latter may be empty."""
    return text(mapping(told, "model").get("name")), text(mapping(told, "base").get("name"))


def _opening(told: Told) -> tuple[Part, ...]:
    name = next(iter(metrics(told, "after")), "")
    before, after = score(told, "before", name), score(told, "after", name)
    change = read_change(mapping(told, "paired").get(name))
    model, base = names(told)
    parts: list[Part] = []
    if told.get("own_base") and before is not None:
        parts.append(verdict(before, after, change))
    if after is not None and after.interval_text():
        tone = direction(before, after, change)
        rows = [before.interval(base, "quiet")] if before is not None else []
        parts.append(
            Intervals((*rows, after.interval(model, tone)), f"{after.title}, with 95 % intervals")
        )
    about, data = mapping(told, "model"), mapping(told, "data")
    total = mapping(mapping(told, "ledger"), "total")
    parts.append(
        Tiles(
            (
                Tile("Examples", number(data.get("judged")), text(data.get("of"))),
                Tile("Parameters", count(about.get("parameters")), text(about.get("dtype"))),
                Tile("Time", duration(total.get("wall_seconds")), "all stages"),
            )
        )
    )
    parts += [Paragraph(text(note), "even") for note in listing(told, "notes")]
    return tuple(parts)


def _quality(told: Told) -> Section:
    model, base = names(told)
    columns = ("Metric", base, model, "Difference", "p", "") if base else ("Metric", model, "")
    rows = tuple(_row(told, name, alone=not base) for name in metrics(told, "after"))
    said = "Values with 95 % bootstrap intervals"
    said += "; the difference is paired, on the same examples." if base else "."
    table = Table(columns, rows, "lrrrrl" if base else "lrl", said)
    known = [score(told, "after", name) for name in metrics(told, "after")]
    signed = {one.title: one.signature for one in known if one is not None and one.signature}
    how: list[Part] = [Paragraph("How they were computed", "quiet"), KeyValues(signed)]
    return Section("Quality", (table, *(how if signed else ())), short="Quality")


def _row(told: Told, name: str, *, alone: bool) -> tuple[str | Cell, ...]:
    before, after, change = pair(told, name)
    tone = direction(before, after, change)
    known = after or Score(name, None)
    way = "higher" if known.higher_is_better else "lower"
    n = f", n\u00a0=\u00a0{known.n:,}" if known.n is not None else ""
    title = Cell(known.title, f"{way} is better{n}")
    strip: tuple[Interval, ...] = (before.interval("other", "quiet"),) if before else ()
    strip += (known.interval("model", tone),)
    if alone:
        return (title, _value(known), Cell("", strip=strip))
    moved = change.parts(known.unit) if change else (MISSING, "")
    p = probability(change.p_value).removeprefix("p ").removeprefix("= ") if change else MISSING
    return (title, _value(before), _value(known), Cell(*moved, tone), p, Cell("", strip=strip))


def _value(score: Score | None) -> Cell:
    return Cell(MISSING) if score is None else Cell(score.text(score.value), score.interval_text())


def _samples(told: Told) -> Section:
    listed = mappings(told, "samples")
    model, base = names(told)
    if not listed:
        said = "The model was not asked to answer: texts are judged by how likely it finds them."
        return Section("Answers", (Paragraph(said, "quiet"),), short="Answers")
    labels = {"reference": "reference", "before": base, "after": model}
    keys = [key for key in labels if any(key in sample for sample in listed)]
    shown = tuple(
        Sample(text(sample.get("question")), tuple(text(sample.get(key)) for key in keys))
        for sample in listed
    )
    return Section(
        "Answers",
        (SideBySide(tuple(labels[key] for key in keys), shown),),
        short="Answers",
        lead=f"{plural(len(listed), 'example')}; a tick marks an answer equal to the reference.",
    )


def _asked(told: Told) -> Section:
    """Data, models and settings, and one question as the model was given it."""
    data, asked = mapping(told, "data"), mapping(told, "asked")
    facts = {"model": fact(dict(mapping(told, "model")))}
    if names(told)[1]:
        facts["compared with"] = fact(dict(mapping(told, "base")))
    facts |= {
        key.replace("_", " "): fact(value)
        for key, value in data.items()
        if key != "quarantine" and value not in (None, "", [], {})
    }
    left_out = mapping(mapping(data, "quarantine"), "counts")
    if left_out:
        facts["rows left out"] = fact(dict(left_out))
    facts |= {f"wording: {key}": fact(v) for key, v in mapping(asked, "wording").items() if v}
    parts: list[Part] = [KeyValues(facts)]
    pieces = tuple(
        (text(piece[0]), bool(piece[1])) for piece in listing(asked, "sample") if len(piece) == 2
    )
    if pieces:
        parts.append(MarkedText(pieces, "what it should say", "what it is given"))
    if asked.get("template"):
        parts.append(Details("The chat template", (Code(text(asked["template"])),)))
    settings = {key.replace("_", " "): fact(v) for key, v in mapping(told, "settings").items()}
    parts.append(Details("All settings", (KeyValues(settings),)))
    return Section("What was asked, and how", tuple(parts), short="Asked")
