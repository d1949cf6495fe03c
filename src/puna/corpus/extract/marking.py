"""A page made ready for resiliparse, and what resiliparse gives made ready for the filter of lines.

Before: comments, scripts, styles and drawings go, and elements whose class or id says that they
are no main text get the attribute `hidden`, by which resiliparse leaves them out. After: the few
tags that it gives (`minimal_html`) become single characters: U+FDD0 and U+FDD1 around what a link
says, U+FDD2 in a paragraph, U+FDD3 in a heading, U+FDD4 in a list item. They are noncharacters,
which no text has (Unicode 23.7).
"""

from __future__ import annotations

import html
import re
from types import MappingProxyType

LINK, UNLINK, PARAGRAPH, HEADING, ITEM = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3", "\ufdd4"
MARKS = LINK + UNLINK + PARAGRAPH + HEADING + ITEM

_HEAVY = re.compile(r"<(?:!--|(?:script|style|svg)(?=[\s>]))")
# In lower case, as nearly all pages with such classes are: ignoring case takes six times as long.
_TAG = re.compile(r"<(?:div|section|p|ul|ol|li|span|header|figure|table|td|form|h[1-6])\s[^<>]*>")
_NAMES = re.compile(r"\s(?:class|id)\s*=\s*(\"[^\"]*|'[^']*|[^\s>]+)")
_WORDS = re.compile("[A-Z]?[a-z]+|[A-Z]+")
# Beyond what resiliparse knows itself. Chosen on pages with gold text: words of classes in which
# nearly all text was none of it; `related`, `author` or `tag` also name what holds whole articles.
_FURNITURE = frozenset(
    re.split(
        " ",
        "bio byline breadcrumb breadcrumbs caption captions consent cookie cookies credit credits"
        " disclaimer disqus gdpr newsletter newsletters outbrain promo promos promotion recirc"
        " recirculation signup sponsor sponsored subscribe subscription taboola teaser teasers",
    )
)
_STEMS = (
    *("bio", "byline", "breadcrumb", "caption", "consent", "cookie", "credit", "disclaimer"),
    *("disqus", "gdpr", "newsletter", "outbrain", "promo", "recirc", "signup", "sponsor"),
    *("subscri", "taboola", "teaser"),
)
_MAIN = frozenset(
    re.split(" ", "article body content entry main page post single story wrap wrapper")
)
_GIVEN_TAGS = re.compile(r"</?(?:h[1-6]|p|a|li|ul|ol|br|pre)(?:\s[^<>]*)?>")
_UNENDED = re.compile(f"{LINK}(?=[^{LINK}{UNLINK}]*(?:{LINK}|\\Z))")  # links around a picture
_GIVEN_MARKS = MappingProxyType(
    {"<p>": PARAGRAPH, "<li>": ITEM, "</a>": UNLINK}
    | {f"<h{level}>": HEADING for level in range(1, 7)}
)


def lightened(page: str) -> str:
    """The page without comments, scripts, styles and drawings: two thirds of the pages we saw."""
    parts: list[str] = []
    place = 0
    while (found := _HEAVY.search(page, place)) is not None:
        parts.append(page[place : found.start()])
        end = _end(page, found)
        if end < 0:  # a parser knows what to make of it
            parts.append(page[found.start() :])
            return "".join(parts)
        place = end
    parts.append(page[place:])
    return "".join(parts)


def _end(page: str, found: re.Match[str]) -> int:
    """Where a heavy part ends; -1 where it does not."""
    if found[0] == "<!--":
        place = page.find("-->", found.end() - 2)  # `<!-->` is a whole comment
        return place + 3 if place >= 0 else -1
    place = page.find("</" + found[0][1:], found.end())
    return page.find(">", place) + 1 or -1 if place >= 0 else -1


def hidden(page: str) -> str:
    """The page with the attribute `hidden` in tags that say they are no main text."""
    tags = set(_TAG.findall(page))
    together = "\n".join(tags).lower()
    stems = [stem for stem in _STEMS if stem in together]  # few pages have more than a few
    if not stems:
        return page
    others = {
        tag: tag[:-1].rstrip("/") + " hidden>"
        for tag in tags
        if any(stem in tag.lower() for stem in stems) and says_furniture(tag)
    }
    return _TAG.sub(lambda tag: others.get(tag[0], tag[0]), page) if others else page


def marked(given: str) -> str:
    """What resiliparse gives as `minimal_html`, with marks in place of tags, and no entities."""

    def mark(tag: re.Match[str]) -> str:
        return LINK if tag[0].startswith("<a") else _GIVEN_MARKS.get(tag[0], "")

    return _UNENDED.sub("", html.unescape(_GIVEN_TAGS.sub(mark, given)))


def without_marks(text: str) -> str:
    """The text as it was; noncharacters that a page brought itself go too."""
    for mark in MARKS:
        text = text.replace(mark, "")
    return text


def says_furniture(tag: str) -> bool:
    """Whether the class or the id of an opening tag names something that is no main text."""
    words = {word.lower() for names in _NAMES.findall(tag) for word in _WORDS.findall(names)}
    return not words.isdisjoint(_FURNITURE) and words.isdisjoint(_MAIN)
