"""The page of a curation, from the plain data of its summary."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import yaml

from puna.artifact import format_bytes
from puna.flows.curate_report_examples import changes, clusters, scores
from puna.flows.curate_report_sections import (
    cost_of_steps,
    languages,
    personal,
    quarantine,
    reasons,
    share,
    sources,
)
from puna.flows.curate_words import reason_words, step_words
from puna.flows.tune_report_costs import lineage, repeat
from puna.flows.tune_report_told import (
    Told,
    absent,
    date,
    fact,
    listing,
    mapping,
    mappings,
    plain,
    text,
)
from puna.report import (
    Cell,
    Code,
    Details,
    Funnel,
    KeyValues,
    Page,
    Paragraph,
    Part,
    Section,
    Stage,
    Table,
    Tile,
    Tiles,
    Verdict,
)
from puna.report.words import (
    MISSING,
    count,
    duration,
    energy,
    finite,
    mass,
    number,
    percent,
    plural,
)

MEGABYTE = 1e6


def curate_page(summary: Told) -> Page:
    """The page of one curation.

    Args:
        summary: What CORPUS/summary.json holds: `title`, `command`, `asked` (the recipe),
            `finished`, `machine`, `seconds`, `workers`, `funnel`, `reasons`, `quarantine`,
            `sources`, `languages`, `scores`, `clusters`, `changes`, `personal`, `ledger`,
            `lineage`, `notes`. Whatever is absent, empty or not finite is shown as such.
    """
    first, last = _ends(summary)
    documents = finite(last.get("documents"))
    about = [f"{count(documents)} documents kept" if documents is not None else ""]
    about += [text(date(summary.get("finished")))]
    return Page(
        title=text(summary.get("title")) or "A curation",
        subtitle=" · ".join(word for word in about if word),
        eyebrow="Puna · curation report",
        opening=_opening(summary, first, last),
        sections=(
            funnel(summary),
            reasons(summary),
            sources(summary),
            languages(summary),
            scores(summary),
            clusters(summary),
            changes(summary),
            personal(summary),
            quarantine(summary),
            asked(summary),
            cost_of_steps(summary),
            lineage(summary),
            repeat(summary),
        ),
        foot="Written by puna. Bytes are of UTF-8 text; the texts on this page are shown as they "
        "were found, so they may hold anything that the sources hold.",
    )


# --- what stands first ----------------------------------------------------------------------------


def _ends(summary: Told) -> tuple[Told, Told]:
    """What was read, and what is left."""
    steps = mappings(summary, "funnel")
    return (steps[0], steps[-1]) if steps else ({}, {})


def _opening(summary: Told, first: Told, last: Told) -> tuple[Part, ...]:
    notes = [Paragraph(text(note), "even") for note in listing(summary, "notes")]
    return (_verdict(summary, first, last), _tiles(summary, first, last), *notes)


def _verdict(summary: Told, first: Told, last: Told) -> Verdict:
    """How much is left of what was read; whether that is good is not for this page to say."""
    read, kept = finite(first.get("documents")), finite(last.get("documents"))
    if read is None or kept is None:
        return Verdict("even", "Not counted", "The run did not record how many documents it kept.")
    if not read:
        return Verdict("bad", "Nothing read", "The sources gave no document.")
    ends = {"before": number(round(read)), "after": number(round(kept)), "unit": "documents"}
    if not kept:
        said = "No document is left; the funnel shows at which step the last of them went."
        return Verdict("bad", "Nothing kept", said, _most(summary), **ends)
    bytes_ = share(last.get("bytes"), first.get("bytes"))
    with_ = "" if bytes_ is None else f", with {percent(bytes_)} of the bytes"
    said = f"Of the documents that were read, {percent(kept / read)} are kept{with_}."
    return Verdict("plain", "Curated", said, _most(summary), **ends)


def _most(summary: Told) -> str:
    """The reason that took most documents."""
    known = [
        (size, str(name))
        for name in mapping(summary, "reasons")
        for size in [finite(mapping(mapping(summary, "reasons"), name).get("documents"))]
        if size
    ]
    if not known:
        return ""
    size, name = max(known)
    return (
        f"The commonest reason to go was {reason_words(name)} ({plural(round(size), 'document')})."
    )


def _tiles(summary: Told, first: Told, last: Told) -> Tiles:
    total = mapping(mapping(summary, "ledger"), "total")
    source = text(total.get("source"))
    how = "estimated" if "estimate" in source else f"by {source.partition(' ')[0] or 'the meter'}"
    seconds, workers = finite(summary.get("seconds")), finite(summary.get("workers"))
    on = "" if workers is None else f", {number(round(workers))} at work"
    carbon = f"{mass(total.get('co2e_grams'))} CO\u2082e, {how}" if total else ""
    return Tiles(
        (
            Tile("Documents kept", count(last.get("documents")), _of(first, last, "documents")),
            Tile("Text kept", _bytes(last.get("bytes")), _of(first, last, "bytes")),
            Tile(
                "Speed",
                _rate(first.get("bytes"), seconds),
                "" if seconds is None else f"in {duration(seconds)}{on}",
            ),
            Tile("Energy", energy(total.get("energy_joules")), carbon),
        )
    )


def _of(first: Told, last: Told, key: str) -> str:
    """The share that is left, and of how much."""
    part = share(last.get(key), first.get(key))
    if part is None:
        return ""
    whole = _bytes(first.get(key)) if key == "bytes" else count(first.get(key))
    return f"{percent(part)} of {whole} read"


def _bytes(size: object) -> str:
    known = finite(size)
    return MISSING if known is None else format_bytes(known)


def _rate(size: object, seconds: object) -> str:
    """Megabytes per second; a dash where there was no time to measure."""
    known, time = finite(size), finite(seconds)
    if known is None or not time:
        return MISSING
    rate = finite(known / time / MEGABYTE)
    size_ = abs(rate or 0.0)
    return f"{number(rate, 0 if size_ >= 100 else 1 if size_ >= 10 else 2)} MB/s"


# --- the funnel -----------------------------------------------------------------------------------


def funnel(summary: Told) -> Section:
    """What is left after every step, drawn and in figures."""
    steps = mappings(summary, "funnel")
    if not steps:
        return Section("From raw to kept", (absent("step"),), short="Funnel")
    before: list[Told] = [{}, *steps[:-1]]
    pairs = list(zip(before, steps, strict=True))
    picture = Funnel(
        "What is left after every step",
        tuple(_stage(one, after) for one, after in pairs),
        ("documents", "size of the text"),
        caption="Each side has its own scale. Documents become fewer where they are dropped; bytes "
        "also where text is cut out of documents that stay.",
    )
    columns = ("Step", "Documents left", "Dropped", "Bytes left", "Gone", "Time", "Speed")
    rows = tuple(_funnel_row(one, after) for one, after in pairs)
    caption = "Time is summed over the workers; speed is what one worker reads in a second"
    table = Table(columns, rows, caption=caption)
    lead = _narrowest(steps)
    return Section("From raw to kept", (picture, table), short="Funnel", lead=lead)


def _stage(before: Told, after: Told) -> Stage:
    documents, size = finite(after.get("documents")), finite(after.get("bytes"))
    texts = (MISSING if documents is None else number(round(documents)), _bytes(size))
    notes = (_moved(before, after, "documents"), _moved(before, after, "bytes"))
    return Stage(step_words(after.get("step")), (documents, size), texts, notes)


def _moved(before: Told, after: Told, key: str) -> str:
    """How much a step changed, of what it was given; nothing where it changed nothing."""
    part = share(after.get(key), before.get(key))
    return "" if part is None or part == 1.0 else percent_signed(part - 1.0)


def percent_signed(part: float) -> str:
    """A change as a percentage with its sign."""
    said = percent(part)
    return f"+{said}" if part > 0 and said[0] != "0" else said


def _funnel_row(before: Told, after: Told) -> tuple[str | Cell, ...]:
    dropped, gone = (_lost(before, after, key) for key in ("documents", "bytes"))
    documents = finite(after.get("documents"))
    return (
        Cell(step_words(after.get("step"))),
        MISSING if documents is None else number(round(documents)),
        Cell(
            MISSING if dropped is None else number(round(dropped)),
            _moved(before, after, "documents"),
        ),
        _bytes(after.get("bytes")),
        Cell(_signed_bytes(gone), _moved(before, after, "bytes")),
        duration(after.get("seconds")),
        _rate((before or after).get("bytes"), after.get("seconds")),
    )


def _lost(before: Told, after: Told, key: str) -> float | None:
    had, has = finite(before.get(key)), finite(after.get(key))
    return None if had is None or has is None else finite(had - has)


def _signed_bytes(size: float | None) -> str:
    if size is None:
        return MISSING
    return f"+{format_bytes(-size)}" if size < 0 else format_bytes(size)


def _narrowest(steps: list[Told]) -> str:
    """The step that took the largest part of the documents that reached it."""
    parts = [
        (1.0 - left, step_words(after.get("step")))
        for before, after in pairwise(steps)
        for left in [share(after.get("documents"), before.get("documents"))]
        if left is not None and left < 1.0
    ]
    if not parts:
        return "No step dropped a document." if len(steps) > 1 else ""
    part, name = max(parts)
    return f"The narrowest place is “{name}”: {percent(part)} of the documents end there."


# --- what was asked -------------------------------------------------------------------------------


def asked(summary: Told) -> Section:
    """The sources, the steps in their order, and the whole recipe."""
    recipe = mapping(summary, "asked")
    if not recipe:
        return Section("What was asked", (absent("recipe"),), short="Asked")
    facts: dict[str, str] = {}
    for key, value in recipe.items():
        name, size = text(key).replace("_", " "), finite(value)
        if size is not None and name.endswith("bytes"):
            facts[name] = format_bytes(size)
        elif isinstance(value, bool | int | float | str):
            facts[name] = fact(value)
        elif isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
            facts[name] = ", ".join(text(key) for key, v in value.items() if v is not None)
    steps = [text(step.get("step")) for step in mappings(recipe, "steps") if step.get("step")]
    if steps:
        facts["steps"] = " → ".join(steps)
    written = yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True)
    whole = Details("The whole recipe, with every value as it was used", (Code(written),))
    parts: tuple[Part, ...] = (KeyValues(facts), whole) if facts else (whole,)
    return Section("What was asked", parts, short="Asked")
