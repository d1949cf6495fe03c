"""Which of the lines that resiliparse gives are main text: a filter by link density and company.

In the manner of boilerpipe (Kohlschuetter and others 2010) and jusText (Pomikalek 2011): a line is
judged by itself (length, share of it that is links, ends of sentences, words of page furniture),
and what cannot be told so is judged by its neighbours. What it was in the page (paragraph, heading,
list item) comes with it as a mark; see `marking`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from puna.corpus.extract.furniture import says_furniture
from puna.corpus.extract.marking import HEADING, ITEM, LINK, PARAGRAPH, UNLINK, without_marks

TEXT, SHORT, FURNITURE = 2, 1, 0

_LINKED = re.compile(f"{LINK}([^{LINK}{UNLINK}]*)")
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_SENTENCE = re.compile(r"[.!?…:;。！？：；।؟][\"'”’»)\]」』]*(?:\s|$)")
_ENDS = re.compile(r"[.!?…。！？।؟:：][\"'”’»)\]」』]*\s*$")


@dataclass(slots=True)
class Line:
    """A line of a page, and what is known of it."""

    text: str
    """Without marks; spaces before it are kept, which code needs."""
    gap: bool
    """An empty line stands before it."""
    size: int
    """Characters; one of Chinese, Japanese or Korean counts as three, since it says as much."""
    links: float
    """The share of it that links are."""
    paragraph: bool
    heading: bool
    item: bool
    sentences: int
    """Ends of sentences within."""
    ended: bool
    """It ends where a sentence ends."""


def lines_of(marked: str) -> list[Line]:
    """The lines of a marked text that say anything, measured."""
    found: list[Line] = []
    inside = gap = False
    for raw in marked.split("\n"):
        shown = without_marks(raw).rstrip()
        if shown[:1] == " " != shown[1:2]:  # what is left of a line break within a paragraph
            shown = shown[1:]
        links, inside = _linked(raw, inside)
        if not shown:
            gap = True
            continue
        found.append(_measured(raw, shown, links, gap))
        gap = False
    return found


def _linked(raw: str, inside: bool) -> tuple[int, bool]:
    """Characters of a line in links, and whether a link goes on behind it, as around a teaser."""
    if LINK not in raw and UNLINK not in raw:
        return (len(raw) if inside else 0), inside
    links = sum(map(len, _LINKED.findall(LINK + raw if inside else raw)))
    return links, raw.rfind(LINK) > raw.rfind(UNLINK)


def _measured(raw: str, shown: str, links: int, gap: bool) -> Line:
    text = shown.strip()
    size = len(text)
    if not text.isascii():
        size += 2 * len(_WIDE.findall(text))
    return Line(
        text=shown,
        gap=gap,
        size=size,
        links=min(1.0, links / len(text)),
        paragraph=PARAGRAPH in raw,
        heading=HEADING in raw,
        item=ITEM in raw,
        sentences=len(_SENTENCE.findall(text)),
        ended=_ENDS.search(text) is not None,
    )


_LONG = 140  # characters of which a line without links is hardly ever furniture
_MEDIUM = 50  # the same if it ends as a sentence does
_FURNITURE_CHARS = 200  # a phrase of furniture tells nothing about a longer line
_FURNITURE_SENTENCE_CHARS = 100  # nor about a paragraph as long that is a sentence
_TAIL_CHARS = 25  # what comes behind the last sentence, and is shorter, is a button


def kind_of(line: Line) -> int:
    """What a line is by itself: TEXT, FURNITURE, or SHORT where it does not tell."""
    limit = _FURNITURE_SENTENCE_CHARS if line.paragraph and line.ended else _FURNITURE_CHARS
    if line.size < limit and says_furniture(line.text.lstrip()):
        return FURNITURE
    sentence = line.ended and line.size >= _MEDIUM and not line.item
    if line.links > 0.5:
        return SHORT if sentence and line.paragraph and not line.heading else FURNITURE
    if line.heading:
        return SHORT
    if sentence or (line.size >= _LONG and line.sentences):
        return TEXT
    return SHORT


def chosen(lines: Sequence[Line]) -> list[int]:
    """Which lines are main text: their numbers, in order."""
    kinds = [kind_of(line) for line in lines]
    texts = [number for number, kind in enumerate(kinds) if kind == TEXT]
    if not texts:
        return _short_lines(lines, kinds)
    first = _first(lines, kinds, texts[0])
    last = _last(lines, kinds, texts[-1])
    before, after = _nearest(kinds), _nearest(kinds[::-1])[::-1]
    return [
        number
        for number in range(first, last + 1)
        if kinds[number] == TEXT
        or (kinds[number] == SHORT and TEXT in (before[number], after[number]))
    ]


def _short_lines(lines: Sequence[Line], kinds: Sequence[int]) -> list[int]:
    """The lines of a poem, a table or code, in a page where they outweigh the furniture."""
    sizes = [0, 0, 0]
    for line, kind in zip(lines, kinds, strict=True):
        sizes[kind] += line.size
    if sizes[SHORT] <= sizes[FURNITURE]:
        return []
    return [number for number, kind in enumerate(kinds) if kind == SHORT]


def _first(lines: Sequence[Line], kinds: Sequence[int], place: int) -> int:
    """The line that the main text begins with, where its first certain line is `place`."""
    while place and kinds[place - 1] == SHORT and not lines[place - 1].heading:
        if not (lines[place - 1].paragraph and lines[place - 1].ended):
            break
        place -= 1
    return place


def _last(lines: Sequence[Line], kinds: Sequence[int], place: int) -> int:
    """The line that the main text ends with, where its last certain line is `place`."""
    while place + 1 < len(lines) and kinds[place + 1] == SHORT:
        line = lines[place + 1]
        if line.heading or not (line.item or line.ended or line.size >= _TAIL_CHARS):
            break
        place += 1
    return place


def _nearest(kinds: Sequence[int]) -> list[int]:
    """The kind of the last line before each that is not SHORT."""
    found, last = [], FURNITURE
    for kind in kinds:
        found.append(last)
        last = last if kind == SHORT else kind
    return found


@dataclass(frozen=True)
class Kept:
    """What the filter keeps of a page."""

    text: str
    size: int
    """As `Line.size`, of all that is kept."""
    share: float
    """Of what resiliparse gave, by size."""


def main_lines(marked: str) -> Kept:
    """The main text of a marked text."""
    lines = lines_of(marked)
    kept = [lines[number] for number in chosen(lines)]
    size, total = sum(line.size for line in kept), sum(line.size for line in lines)
    if not size:
        return Kept("", 0, 0.0)
    text = "".join(("\n\n" if line.gap else "\n") + line.text for line in kept)
    return Kept(text.strip("\n"), size, size / total)
