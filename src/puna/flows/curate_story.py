"""The story of one document: where it was found, what every step did to it, what became of it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from puna.artifact import format_bytes
from puna.flows.curate_words import figure_words, language_words, reason_words, spoken, step_words
from puna.flows.tune_report_told import Told, fact, mapping, mappings, text
from puna.report.words import finite, number, plural, visible

LABEL = 14  # characters of the column of labels
WIDTH = 92  # of a line of text
EXCERPT = 600  # characters of a text that are shown
LISTED = 12  # removed or added lines that are shown

_OWN = ("step", "drop", "error", "characters_before", "characters_after", "figures", "note")


def story_lines(row: Mapping[str, Any]) -> list[str]:
    """What is known of one document, as lines for a terminal.

    Args:
        row: A row of the corpus as plain data: the columns of `puna.corpus.schema`, and as far
            as they are known `steps` (mappings in their order: `step`, `drop`, `error`, `note`,
            `characters_before`, `characters_after`, `figures`), `cluster` (`size`, `kept`,
            `similarity`, `members`, `reason`), `meanings` (what figures are, by name), `before`
            (the text as it was read) and `note` (why steps are not known). Whatever is absent is
            left out; control characters are shown as pictures, so that no text of the web can
            steer a terminal.
    """
    lines = [*_place(row), *_fate(row), *_figures(row), *_steps(row), *_cluster(row)]
    lines += [*_metadata(row), *_texts(row)]
    return [visible(line).replace("\n", " ") for line in lines]


def _line(label: str, said: str) -> str:
    return f"{label:<{LABEL}}{said}"


def _place(row: Told) -> Iterator[str]:
    yield _line("document", _digest(row.get("id")) or "without an id")
    root = _digest(row.get("root_id"))
    if root and root != _digest(row.get("id")):
        yield _line("made from", root)
    for label in ("source", "locator", "url", "date", "license"):
        if row.get(label):
            yield _line("licence" if label == "license" else label, text(row[label]))
    if row.get("language"):
        yield _line("language", language_words(row["language"]))
    if row.get("content_hash"):
        yield _line("content hash", _digest(row["content_hash"]))


def _digest(value: Any) -> str:
    """An id as people copy it: bytes in hexadecimal digits."""
    return bytes(value).hex() if isinstance(value, bytes | bytearray | memoryview) else text(value)


def _fate(row: Told) -> Iterator[str]:
    drop, error = row.get("drop"), row.get("error")
    if error:
        yield _line("fate", f"in quarantine: {text(error)}")
    elif drop:
        yield _line("fate", f"dropped: {reason_words(drop)} ({text(drop)})")
    else:
        yield _line("fate", "kept")


def _figures(row: Told) -> Iterator[str]:
    """Every figure with its name, in the order of the steps; those that are nought on one line."""
    known = {str(name): value for name, value in mapping(row, "stats").items() if value is not None}
    if not known:
        return
    names = {name: figure_words(name) for name in known}
    meanings = mapping(row, "meanings")
    yield ""
    yield "figures"
    nought = [names[name] for name in known if finite(known[name]) == 0]
    others = [name for name in known if finite(known[name]) != 0]
    width = max((len(names[name]) for name in others), default=0) + 2
    for name in others:
        size = finite(known[name])
        said = format_bytes(size) if size and name.endswith("bytes") else number(known[name])
        meaning = f"  {text(meanings[name])}" if meanings.get(name) else ""
        yield f"  {names[name]:<{width}}{said:<{10 if meaning else 0}}{meaning}"
    if nought:
        wrapped = textwrap.wrap(f"0: {', '.join(nought)}", WIDTH, subsequent_indent="   ")
        yield from (f"  {line}" for line in wrapped)


def _steps(row: Told) -> Iterator[str]:
    steps = mappings(row, "steps")
    if row.get("note"):
        yield ""
        yield _line("steps", f"not known: {text(row['note'])}")
    if not steps:
        return
    yield ""
    yield "steps"
    for number_, step in enumerate(steps, 1):
        yield f"  {number_:>2}  {step_words(step.get('step') or 'a step')}: {_did(step)}"


def _did(step: Told) -> str:
    """What one step did, in a few words."""
    said = []
    if step.get("error"):
        said.append(f"could not work on it: {text(step['error'])}")
    if step.get("drop"):
        said.append(f"dropped it: {reason_words(step['drop'])}")
    before, after = (finite(step.get(f"characters_{when}")) for when in ("before", "after"))
    if before is not None and after is not None and before != after:
        way = "cut out" if after < before else "added"
        changed = plural(round(abs(before - after)), "character")
        said.append(f"{way} {changed}, {number(round(after))} are left")
    said += [f"{spoken(name)} {fact(value)}" for name, value in mapping(step, "figures").items()]
    said += [text(step["note"])] if step.get("note") else []
    said += [f"{spoken(key)} {fact(step[key])}" for key in step if key not in _OWN]
    return "; ".join(said) or "nothing to change"


def _cluster(row: Told) -> Iterator[str]:
    told = mapping(row, "cluster")
    if not told:
        return
    size, alike = finite(told.get("size")), finite(told.get("similarity"))
    kind = step_words(told.get("reason") or "near_duplicate")
    said = [f"of {kind}s" if size is None else plural(round(size), kind)]
    kept = told.get("kept")
    if isinstance(kept, bool):
        said.append("this one was kept" if kept else "another was kept")
    elif kept:
        same = _digest(kept) == _digest(row.get("id"))
        said.append("this one was kept" if same else f"{_digest(kept)} was kept")
    if alike is not None:
        said.append(f"similarity {number(alike, 3)}")
    yield ""
    yield _line("cluster", ", ".join(said))
    members = told.get("members")
    for member in members[:LISTED] if isinstance(members, list | tuple) else ():
        yield _line("", _digest(member) if not isinstance(member, Mapping) else fact(member))


def _metadata(row: Told) -> Iterator[str]:
    """What else the source said, from its JSON."""
    given = row.get("metadata")
    try:
        known = json.loads(given) if isinstance(given, str) else given
        items = known.items() if isinstance(known, Mapping) else ()
        facts = [f"{spoken(key)}: {fact(value)}" for key, value in items]
    except (ValueError, RecursionError):  # not JSON, or nested beyond all reason
        facts = [f"not readable: {text(given)[:WIDTH]}"] if isinstance(given, str) else []
    for place, said in enumerate(facts):
        if not place:
            yield ""
        short = said if len(said) <= WIDTH else f"{said[:WIDTH]}…"
        yield _line("" if place else "metadata", short)


def _texts(row: Told) -> Iterator[str]:
    after, before = text(row.get("text")), row.get("before")
    if isinstance(before, str) and before != after:
        yield from _excerpt("text before", before)
        yield from _excerpt("text after", after)
        yield from _changed(before, after)
    else:
        yield from _excerpt("text", after)


def _excerpt(label: str, whole: str) -> Iterator[str]:
    """The beginning of a text, wrapped, under its label."""
    shown = whole[:EXCERPT]
    yield ""
    yield f"{label} ({plural(len(whole), 'character')})"
    for line in shown.splitlines():
        yield from (f"  {part}" for part in textwrap.wrap(line, WIDTH) or [""])
    if len(whole) > len(shown):
        yield "  …"


def _changed(before: str, after: str) -> Iterator[str]:
    """The first lines that one text has and the other has not."""
    old, new = (one.splitlines() for one in (before, after))
    kept = set(new) & set(old)  # linear in the text, where a true diff can take minutes
    old, new = [x for x in old if x not in kept], [x for x in new if x not in kept]
    marks = [f"  - {line}" for line in old if line.strip()]
    marks += [f"  + {line}" for line in new if line.strip()]
    if not marks:
        return
    yield ""
    yield f"lines that changed ({len(old):,} before, {len(new):,} after)"
    yield from (line if len(line) <= WIDTH else f"{line[:WIDTH]}…" for line in marks[:LISTED])
    if len(marks) > LISTED:
        yield f"  and {len(marks) - LISTED:,} more"
