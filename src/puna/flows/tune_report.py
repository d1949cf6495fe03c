"""The page of a tuning run, from the plain data of its summary; and that of several compared."""

from __future__ import annotations

from puna.flows.tune_report_compare import compare_page
from puna.flows.tune_report_costs import cache, cost, learning, lineage, repeat
from puna.flows.tune_report_sections import asked, data, quality, samples
from puna.flows.tune_report_told import (
    Told,
    date,
    listing,
    mapping,
    mappings,
    metrics,
    pair,
    score,
)
from puna.report import (
    Intervals,
    Page,
    Paragraph,
    Part,
    Tile,
    Tiles,
    Verdict,
    direction,
    read_change,
    verdict,
)
from puna.report.words import (
    count,
    duration,
    energy,
    finite,
    mass,
    number,
    percent,
)

_WORDS = (("good", "better"), ("bad", "worse"), ("even", "not proven either way"))


def tune_page(summary: Told) -> Page:
    """The page of one tuning run.

    Args:
        summary: What RUN/summary.json holds: `title`, `asked` (the recipe), `command`, `model`,
            `data`, `mask`, `method`, `history`, `evaluations`, `before`, `after`, `paired`,
            `samples`, `ledger`, `cache`, `lineage`, `machine`, `finished`; and where known
            `metric` (the name of the one that decides), `best_step` and `notes`. Whatever is
            absent, empty or not finite is shown as such.
    """
    model, method = mapping(summary, "model"), mapping(summary, "method")
    about = [model.get("name"), method.get("name"), date(summary.get("finished"))]
    sections = (
        asked(summary),
        data(summary),
        learning(summary),
        quality(summary),
        samples(summary),
        cost(summary),
        cache(summary),
        lineage(summary),
        repeat(summary),
    )
    return Page(
        title=str(summary.get("title") or "A tuning run"),
        subtitle=" · ".join(str(word) for word in about if word),
        eyebrow="Puna · tuning report",
        opening=_opening(summary),
        sections=sections,
        foot="Written by puna. Intervals hold 95 % of bootstrap resamples over the test examples.",
    )


def _opening(summary: Told) -> tuple[Part, ...]:
    name = _deciding(summary)
    before, after = score(summary, "before", name), score(summary, "after", name)
    change = read_change(mapping(summary, "paired").get(name))
    said = verdict(before, after, change)
    parts: list[Part] = [_with_others(said, summary, name)]
    if before and after and before.interval_text() and after.interval_text():
        tone = direction(before, after, change)
        rows = (before.interval("base", "quiet"), after.interval("tuned", tone))
        parts.append(Intervals(rows, f"{after.title}, with 95 % intervals"))
    parts.append(_tiles(summary))
    parts += [Paragraph(str(note), "even") for note in listing(summary, "notes")]
    return tuple(parts)


def _deciding(summary: Told) -> str:
    """The metric of the verdict: the one named, else the first that both models have."""
    before, after = (metrics(summary, side) for side in ("before", "after"))
    train = mapping(mapping(summary, "asked"), "train")
    for name in (summary.get("metric"), train.get("best_metric"), *after):
        if isinstance(name, str) and name in after and (name in before or not before):
            return name
    return next(iter(after), "")


def _with_others(said: Verdict, summary: Told, name: str) -> Verdict:
    """The verdict, with what else must be known: the other metrics, or the loss alone."""
    detail = said.detail
    if not metrics(summary, "after"):
        detail = _loss_only(summary)
    tones = [direction(*pair(summary, other)) for other in metrics(summary, "after")]
    known = [tone for tone in tones if tone != "plain"]
    if len(known) > 1:
        parts = [f"{known.count(tone)} {word}" for tone, word in _WORDS if tone in known]
        detail = f"{detail} Of {len(known)} metrics: {', '.join(parts)}.".strip()
    return Verdict(said.tone, said.word, said.sentence, detail, said.before, said.after, said.unit)


def _loss_only(summary: Told) -> str:
    losses = [finite(entry.get("validation_loss")) for entry in mappings(summary, "evaluations")]
    known = [loss for loss in losses if loss is not None]
    if len(known) < 2:
        return "There is no measure of what was learnt."
    return (
        f"Validation loss went from {number(known[0])} to {number(min(known))} nats per trained "
        "token at best. That is a sign of learning, but no proof of better answers."
    )


def _tiles(summary: Told) -> Tiles:
    method, total = mapping(summary, "method"), mapping(mapping(summary, "ledger"), "total")
    trainable, whole = finite(method.get("trainable")), finite(method.get("total"))
    share = f"{percent(trainable / whole)} of the model" if trainable and whole else ""
    source = str(total.get("source", ""))
    how = "estimated" if "estimate" in source else f"by {source.partition(' ')[0]}"
    return Tiles(
        (
            Tile("Parameters trained", count(trainable), share),
            Tile("Time", duration(total.get("wall_seconds")), "all stages" if total else ""),
            Tile("Energy", energy(total.get("energy_joules")), how if total else ""),
            Tile("CO\u2082e", mass(total.get("co2e_grams")), how if total else ""),
        )
    )


__all__ = ["compare_page", "tune_page"]
