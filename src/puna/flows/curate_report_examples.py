"""The sections of a curation report that show texts: scores, duplicates, and what was cut out."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from puna.flows.curate_words import figure_words, reason_words, step_words
from puna.flows.tune_report_told import Told, absent, fact, listing, mapping, mappings, text
from puna.report import (
    Details,
    Histogram,
    MarkedText,
    Paragraph,
    Part,
    Sample,
    Section,
    SideBySide,
    Table,
)
from puna.report.words import MISSING, decimals_for, finite, number, percent, plural

FIGURES, CLUSTERS, CHANGES = 4, 4, 5
"""How many stand open; the rest is folded away."""
EXCERPT = 400
"""Characters of an example; more of it is in the corpus."""
AROUND = 160
"""Characters that are shown on each side of a cut."""
PLACE = 60
"""Characters of a locator that are shown."""
LONGEST = 600
"""Characters of one removed piece that are shown whole."""

Bin = tuple[float, float, int]
Pieces = tuple[tuple[str, bool], ...]


def excerpt(value: object, most: int = EXCERPT) -> str:
    """The beginning of a text, with a mark where it was cut."""
    said = text(value)
    return said if len(said) <= most else f"{said[:most].rstrip()}…"


# --- scores ---------------------------------------------------------------------------------------


def scores(summary: Told) -> Section:
    """How figures are spread over the documents, with documents at several quantiles."""
    told = mapping(summary, "scores")
    title, short = "Scores, and what they look like", "Scores"
    known = [(str(name), mapping(told, name)) for name in told if mapping(told, name)]
    if not known:
        return Section(title, (absent("score"),), short=short)
    ordered = sorted(known, key=lambda entry: not _threshold(entry[1]))  # those that decide first
    parts: list[Part] = []
    for place, (name, score) in enumerate(ordered[:FIGURES]):
        parts += _score(name, score, folded=place > 0)
    rest = [(f"{figure_words(name)}{_aside(s)}", _score(name, s)) for name, s in ordered]
    parts += [Details(label, tuple(inner)) for label, inner in rest[FIGURES:]]
    first = "Those that a threshold is known of come first. " if _threshold(ordered[0][1]) else ""
    lead = f"{first}Documents at several quantiles show what a value looks like."
    return Section(title, tuple(parts), short=short, lead=lead)


def _score(name: str, told: Told, *, folded: bool = True) -> list[Part]:
    bins = _rounded(
        (low, high, int(n))
        for entry in listing(told, "bins")
        if isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) == 3
        for low, high, n in [tuple(map(finite, entry))]
        if low is not None and high is not None and n is not None
    )
    label, meaning = figure_words(name), text(told.get("meaning"))
    rule = _threshold(told)
    parts: list[Part] = [
        Histogram(label[:1].upper() + label[1:], bins, meaning or label, "documents", caption=rule)
        if bins
        else Paragraph(f"{label}: no distribution was recorded. {rule}".strip(), "quiet")
    ]
    samples = tuple(_example(example) for example in mappings(told, "examples"))
    if samples:
        summary = f"{plural(len(samples), 'document')} by {label}"
        shown = SideBySide(("text",), samples)
        parts.append(Details(summary, (shown,)) if folded else shown)
    return parts


def _rounded(bins: Iterable[Bin]) -> tuple[Bin, ...]:
    """Ranges whose bounds have as many digits as their width justifies, so that labels fit."""
    known = tuple(bins)
    digits = decimals_for(*(high - low for low, high, _ in known)) if known else 0
    return tuple((round(low, digits), round(high, digits), n) for low, high, n in known)


def _threshold(told: Told) -> str:
    """Which values go on, in words; nothing where all do."""
    given = mapping(told, "threshold")
    low, high = finite(given.get("low")), finite(given.get("high"))
    if low is not None and high is not None:
        return f"Documents from {number(low)} to {number(high)} go on."
    if low is not None:
        return f"Documents with at least {number(low)} go on."
    return "" if high is None else f"Documents with at most {number(high)} go on."


def _aside(told: Told) -> str:
    said = _threshold(told)
    return f": {said[0].lower()}{said[1:].rstrip('.')}" if said else ""


def _example(told: Told) -> Sample:
    """A document at a quantile: its value, what became of it, and how it begins."""
    quantile, drop = finite(told.get("quantile")), told.get("drop")
    fate = f"dropped, {reason_words(drop)}" if drop else "kept"
    said = f"{number(told.get('value'))} · {fate}\n{_where(told)}".rstrip()
    name = MISSING if quantile is None else percent(quantile, 0)
    return Sample(said, (excerpt(told.get("text")),), name)


def _where(told: Told) -> str:
    """The place of a document and its id, by which `puna show CORPUS --doc ID` tells its story."""
    place = text(told.get("locator"))
    if len(place) > PLACE:  # its end tells more than its beginning
        place = f"…{place[-PLACE:]}"
    return " · ".join(word for word in (place, text(told.get("id"))) if word)


# --- duplicates -----------------------------------------------------------------------------------


def clusters(summary: Told) -> Section:
    """Documents that are nearly the same: the one that stayed beside those that went."""
    known = [told for told in mappings(summary, "clusters") if told]
    title, short = "Duplicates", "Duplicates"
    if not known:
        was = isinstance(summary.get("clusters"), list | tuple)
        said = Paragraph("No duplicates were found, or no step looked for them.", "quiet")
        return Section(title, (said if was else absent("duplicates"),), short=short)
    known.sort(key=lambda told: -(finite(told.get("size")) or 0.0))
    parts: list[Part] = [SideBySide(("kept", "dropped"), tuple(map(_side, known[:CLUSTERS])))]
    parts += [Details(_cluster_name(told), tuple(_members(told))) for told in known]
    sizes = [size for told in known for size in [finite(told.get("size"))] if size is not None]
    most = f", the largest of {number(round(max(sizes)))} documents" if sizes else ""
    lead = (
        f"{plural(len(known), 'cluster')} to look at{most}. Beside the document that was kept "
        "stands the one of its cluster that is least like it."
    )
    return Section(title, tuple(parts), short=short, lead=lead)


def _least(told: Told) -> Told:
    """The member that is least like the kept one: where a threshold would be wrong first."""
    others = mappings(told, "others")
    return min(others, key=_similarity, default={})


def _similarity(told: Told) -> float:
    known = finite(told.get("similarity"))
    return 2.0 if known is None else known


def _side(told: Told) -> Sample:
    other, kept = _least(told), mapping(told, "kept")
    alike = finite(other.get("similarity"))
    said = [_size(told)]
    said += ["" if alike is None else f"similarity {number(alike, 2)}"]
    answers = (excerpt(kept.get("text")), excerpt(other.get("text")))
    return Sample(", ".join(word for word in said if word), answers)


def _size(told: Told) -> str:
    size = finite(told.get("size"))
    return "a cluster" if size is None else plural(round(size), "document")


def _cluster_name(told: Told) -> str:
    kept = mapping(told, "kept")
    return f"{_size(told)}; kept: {_where(kept) or 'a document without a place'}"


def _members(told: Told) -> list[Part]:
    kept, others = mapping(told, "kept"), mappings(told, "others")
    rows: tuple[tuple[str, ...], ...] = (("kept", text(kept.get("locator")), text(kept.get("id"))),)
    rows += tuple(
        (_alike(other), text(other.get("locator")), text(other.get("id"))) for other in others
    )
    parts: list[Part] = []
    if others:
        pieces = differences(excerpt(kept.get("text")), excerpt(_least(told).get("text")))
        parts.append(MarkedText(pieces, "only in the dropped one", "in both"))
    size = finite(told.get("size"))
    left = 0 if size is None else round(size) - len(rows)
    caption = "Its documents" if left <= 0 else f"Its documents; {left:,} more are not listed"
    return [*parts, Table(("Similarity", "Where", "Document"), rows, "lll", caption=caption)]


def _alike(told: Told) -> str:
    known = finite(told.get("similarity"))
    return MISSING if known is None else number(known, 3)


def differences(kept: str, other: str) -> Pieces:
    """The other text, with the words marked that the kept one does not have there."""
    ours, theirs = (re.findall(r"\w+|\W", one) for one in (kept, other))
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    return tuple(
        ("".join(theirs[start:end]), kind != "equal")
        for kind, _, _, start, end in matcher.get_opcodes()
        if end > start
    )


# --- what steps changed ---------------------------------------------------------------------------


def changes(summary: Told) -> Section:
    """Texts before and after, with what was removed marked in its place."""
    known = _mixed([told for told in mappings(summary, "changes") if told])
    title, short = "What was cut out", "Changes"
    if not known:
        was = isinstance(summary.get("changes"), list | tuple)
        said = Paragraph("No step changed the text of a document that is shown here.", "quiet")
        return Section(title, (said if was else absent("change"),), short=short)
    parts: list[Part] = []
    for told in known[:CHANGES]:
        parts += [Paragraph(_change_name(told), "quiet"), _marked(told)]
    parts += [Details(_change_name(told), (_marked(told),)) for told in known[CHANGES:]]
    lead = "Marked is what was removed; long stretches that stayed are shortened."
    return Section(title, tuple(parts), short=short, lead=lead)


def _mixed(told: list[Told]) -> list[Told]:
    """The first change of every step, then the second of every step, and so on.

    Extraction comes last: nearly all of a page's markup goes, which hides what is of interest.
    """
    seen: Counter[str] = Counter()
    placed = []
    for one in told:
        step = text(one.get("step"))
        placed.append(((step == "extract", seen[step]), one))
        seen[step] += 1
    return [one for _, one in sorted(placed, key=lambda pair: pair[0])]


def _change_name(told: Told) -> str:
    removed = sum(len(piece) for piece, gone in _pieces(told) if gone)
    where = _where(told) or "a document without a place"
    step = step_words(told.get("step")) if told.get("step") else "a step"
    return f"{step[:1].upper()}{step[1:]} in {where}: {plural(removed, 'character')} removed"


def _pieces(told: Told) -> Pieces:
    return tuple(
        (entry[0] if isinstance(entry[0], str) else fact(entry[0]), bool(entry[1]))
        for entry in listing(told, "pieces")
        if isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) == 2
    )


def _marked(told: Told) -> Part:
    pieces = _pieces(told)
    if not pieces:
        return Paragraph("The change was not recorded.", "quiet")
    last = len(pieces) - 1
    shown = tuple(
        (_shortened(piece, LONGEST if gone else 2 * AROUND, number in (0, last)), gone)
        for number, (piece, gone) in enumerate(pieces)
    )
    return MarkedText(shown, "removed", "stayed")


def _shortened(piece: str, most: int, at_an_end: bool) -> str:
    """A piece without its middle where that is long; at an end of a text half as much is kept."""
    most = most // 2 if at_an_end else most
    if len(piece) <= most + 2 * len("[…]"):
        return piece
    half = most // 2
    left_out = len(piece) - 2 * half
    return f"{piece[:half]} […{left_out:,} characters…] {piece[len(piece) - half :]}"
