"""The sections of a curation report that count: reasons, sources, languages, quarantine, cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from puna.artifact import format_bytes
from puna.flows.curate_words import language_words, personal_words, reason_words
from puna.flows.tune_report_costs import cost
from puna.flows.tune_report_told import Told, absent, mapping, mappings, text
from puna.report import (
    BarChart,
    Cell,
    Details,
    Interval,
    Paragraph,
    Part,
    Section,
    Table,
)
from puna.report.words import MISSING, finite, number, percent, plural

BARS = 10  # that a chart of reasons or languages has
LISTED = 15  # rows of a table that stand open; the rest is folded away

Counted = list[tuple[str, Told]]


def share(part: object, whole: object) -> float | None:
    """A part of a whole, where both are known and there is a whole."""
    known, of = finite(part), finite(whole)
    if known is None or of is None or of <= 0:
        return None
    return finite(known / of)


def size_words(told: Told) -> str:
    """The bytes of a count, in words."""
    size = finite(told.get("bytes"))
    return MISSING if size is None else format_bytes(size)


def whole_words(value: object) -> str:
    """A count of things in words; a dash where it is not known."""
    known = finite(value)
    return MISSING if known is None else number(round(known))


def counted(told: Told, key: str = "documents") -> Counted:
    """Names with their counts, the largest first; equal ones in the order of their names."""
    entries = [(str(name), mapping(told, name)) for name in told]
    return sorted(entries, key=lambda entry: (-(finite(entry[1].get(key)) or 0.0), entry[0]))


def total(entries: Counted, key: str) -> float:
    """The sum of what is known."""
    return finite(sum(finite(told.get(key)) or 0.0 for _, told in entries)) or 0.0


def folded(table: Table, what: str) -> list[Part]:
    """A table whose rows beyond the first are folded away, so that a page stays short."""
    if len(table.rows) <= LISTED + 3:
        return [table]
    rest = replace(table, rows=table.rows[LISTED:], caption=f"The other {what}", total=())
    more = Details(f"{len(rest.rows):,} more {what}", (rest,))
    return [replace(table, rows=table.rows[:LISTED]), more]


def bars(title: str, entries: Sequence[tuple[str, float | None, str]], label: str) -> list[Part]:
    """The largest few as bars: name, value and how it is written; none for fewer than two."""
    known = [entry for entry in entries if entry[1]]
    if len(known) < 2:
        return []
    drawn = tuple(Interval(name, value, text=said) for name, value, said in known[:BARS])
    more = len(known) - len(drawn)
    caption = f"The {BARS} largest; {more:,} more are in the table." if more else ""
    return [BarChart(title, drawn, label, caption=caption)]


# --- why documents were dropped -------------------------------------------------------------------


def reasons(summary: Told) -> Section:
    """Every reason for which documents were dropped, with its shares."""
    entries = counted(mapping(summary, "reasons"))
    title = "Why documents were dropped"
    if not entries:
        known = isinstance(summary.get("reasons"), dict)
        said = Paragraph("No rule dropped a document.", "quiet") if known else absent("reason")
        return Section(title, (said, *_uncounted(summary, 0.0)), short="Reasons")
    dropped, read = total(entries, "documents"), _read(summary)
    rows = tuple(
        (
            Cell(reason_words(name), name),
            whole_words(told.get("documents")),
            percent(share(told.get("documents"), dropped)),
            percent(share(told.get("documents"), read)),
            size_words(told),
        )
        for name, told in entries
    )
    whole = (
        "All reasons",
        number(round(dropped)),
        percent(1.0),
        percent(share(dropped, read)),
        format_bytes(total(entries, "bytes")),
    )
    columns = ("Reason", "Documents", "Of the dropped", "Of the read", "Bytes")
    table = Table(columns, rows, caption="The first reason that a document was given", total=whole)
    drawn = bars(
        "Documents dropped, by reason",
        [
            (reason_words(name), finite(told.get("documents")), whole_words(told.get("documents")))
            for name, told in entries
        ],
        "documents",
    )
    parts = (*_uncounted(summary, dropped), *drawn, *folded(table, "reasons"))
    return Section(title, parts, short="Reasons")


def _read(summary: Told) -> float | None:
    steps = mappings(summary, "funnel")
    return finite(steps[0].get("documents")) if steps else None


def _uncounted(summary: Told, dropped: float) -> list[Part]:
    """A notice where the reasons do not explain all that the funnel lost.

    Documents that a step could not work on are in quarantine, and have no reason of a rule.
    """
    steps = mappings(summary, "funnel")
    read, kept = _read(summary), finite(steps[-1].get("documents")) if steps else None
    if read is None or kept is None:
        return []
    missing = round(finite(read - kept - dropped) or 0.0)
    set_aside = finite(mapping(summary, "quarantine").get("total")) or 0.0
    if 0 <= missing <= set_aside:
        return []
    if missing < 0:
        said = f"The reasons count {plural(-missing, 'document')} more than the funnel lost."
    else:
        said = f"{plural(missing, 'document')} of those that the funnel lost have no reason."
    return [Paragraph(f"{said} The counts of this run do not add up.", "bad")]


# --- sources and languages ------------------------------------------------------------------------


def sources(summary: Told) -> Section:
    """What every source gave, and what is left of it."""
    told = mapping(summary, "sources")
    if not told:
        return Section("Sources", (absent("source"),), short="Sources")
    names = [str(name) for name in told]
    read = [(str(name), mapping(mapping(told, name), "read")) for name in told]
    kept = [(str(name), mapping(mapping(told, name), "kept")) for name in told]
    licenses = [text(mapping(told, name).get("license")) for name in told]
    corpus = total(kept, "bytes")
    rows = tuple(
        (
            Cell(name, license_ or "no licence given"),
            *_source_cells(before, after, corpus),
        )
        for name, license_, (_, before), (_, after) in zip(names, licenses, read, kept, strict=True)
    )
    all_read, all_kept = (
        {key: total(part, key) for key in ("documents", "bytes")} for part in (read, kept)
    )
    whole = ("All sources", *_source_cells(all_read, all_kept, corpus))
    columns = ("Source", "Documents read", "Kept", "Bytes read", "Kept", "Of the corpus")
    table = Table(columns, rows, caption="Shares of the corpus are of bytes", total=whole)
    picture = bars(
        "The corpus by source",
        [(name, finite(part.get("bytes")), _part_words(part, corpus)) for name, part in kept],
        "bytes",
    )
    return Section("Sources", (*picture, *folded(table, "sources")), short="Sources")


def _source_cells(read: Told, kept: Told, corpus: float) -> tuple[str | Cell, ...]:
    return (
        whole_words(read.get("documents")),
        Cell(
            whole_words(kept.get("documents")), _percent(kept.get("documents"), read, "documents")
        ),
        size_words(read),
        Cell(size_words(kept), _percent(kept.get("bytes"), read, "bytes")),
        percent(share(kept.get("bytes"), corpus)),
    )


def _percent(part: object, whole: Told, key: str) -> str:
    known = share(part, whole.get(key))
    return "" if known is None else percent(known)


def _part_words(part: Told, whole: float) -> str:
    return f"{percent(share(part.get('bytes'), whole))}, {size_words(part)}"


def languages(summary: Told) -> Section:
    """The languages of what was kept."""
    entries = counted(mapping(summary, "languages"), "bytes")
    if not entries:
        return Section("Languages", (absent("language"),), short="Languages")
    documents, size = total(entries, "documents"), total(entries, "bytes")
    rows = tuple(
        (
            language_words(code),
            whole_words(told.get("documents")),
            percent(share(told.get("documents"), documents)),
            size_words(told),
            percent(share(told.get("bytes"), size)),
        )
        for code, told in entries
    )
    columns = ("Language", "Documents", "Share", "Bytes", "Share")
    table = Table(columns, rows, caption="Languages of the documents that were kept")
    picture = bars(
        "The corpus by language",
        [(language_words(c), finite(t.get("bytes")), _part_words(t, size)) for c, t in entries],
        "bytes",
    )
    return Section("Languages", (*picture, *folded(table, "languages")), short="Languages")


# --- personal data, quarantine --------------------------------------------------------------------


def personal(summary: Told) -> Section:
    """Personal data by kind: how often each was found."""
    told = mapping(summary, "personal")
    title, short = "Personal data", "Personal"
    if not told:
        known = isinstance(summary.get("personal"), dict)
        said = Paragraph("None was found, or no step looked for it.", "quiet")
        return Section(title, (said if known else absent("personal data"),), short=short)
    found = sorted(told.items(), key=lambda entry: -(finite(entry[1]) or 0.0))
    rows = tuple((personal_words(kind), whole_words(n)) for kind, n in found)
    table = Table(("Kind", "Found"), rows, caption="In the documents that the step was given")
    lead = "The recipe says what was done with it: removed, masked, or replaced by made-up values."
    return Section(title, (table,), short=short, lead=lead)


def quarantine(summary: Told) -> Section:
    """What could not be read or worked on, by reason, with the first places."""
    told = mapping(summary, "quarantine")
    counts = [(str(reason), finite(n)) for reason, n in mapping(told, "counts").items()]
    known = finite(told.get("total"))
    size = (finite(sum(n or 0.0 for _, n in counts)) or 0.0) if known is None else known
    title, short = "Quarantine", "Quarantine"
    if not size and not counts:
        said = "Every record could be read and worked on."
        good = Paragraph(said, "quiet") if known is not None else absent("quarantine")
        return Section(title, (good,), short=short)
    rows = tuple(
        (reason_words(reason), whole_words(n), percent(share(n, size)))
        for reason, n in sorted(counts, key=lambda entry: (-(entry[1] or 0.0), entry[0]))
    )
    parts: list[Part] = []
    if rows:
        table = Table(("Reason", "Records", "Share"), rows, caption="Records that were set aside")
        parts += folded(table, "reasons")
    cases = tuple(
        (
            text(case.get("locator")),
            Cell(reason_words(text(case.get("reason"))), text(case.get("detail"))),
        )
        for case in mappings(told, "samples")
    )
    if cases:
        table = Table(("Where", "Why"), cases, "ll", caption="First records that were set aside")
        parts.append(Details(f"Where they stand ({plural(len(cases), 'case')})", (table,)))
    alone = "is no document of its own" if size == 1 else "are no documents of their own"
    many = plural(round(size), "record")
    lead = f"{many} could not be read or worked on, or {alone}."
    return Section(title, tuple(parts), short=short, lead=lead)


# --- cost -----------------------------------------------------------------------------------------


def cost_of_steps(summary: Told) -> Section:
    """Time, energy and CO2e by stage, without the column of tokens: a curation has none."""
    section = cost(summary)
    parts = tuple(_without(p, "Tokens") if isinstance(p, Table) else p for p in section.parts)
    return replace(section, parts=parts)


def _without(table: Table, column: str) -> Table:
    """The table without a column that no row has a value in."""
    place = table.columns.index(column) if column in table.columns else len(table.columns)
    cells = [row[place] for row in (*table.rows, table.total) if place < len(row)]
    if any(cell != MISSING for cell in cells):
        return table
    total_, *rows = ((*row[:place], *row[place + 1 :]) for row in (table.total, *table.rows))
    columns = (*table.columns[:place], *table.columns[place + 1 :])
    return replace(table, columns=columns, rows=tuple(rows), total=total_)
