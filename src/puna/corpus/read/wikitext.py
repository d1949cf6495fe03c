"""Wikitext to plain text: what a reader of an article reads, without tables and notes.

One pass over the marks that nest (templates, links, tables) with a stack, so that time is linear
and depth costs nothing, whatever is left open; then line by line what does not nest. Templates are
not expanded: those whose words belong to the sentence are known by name, the rest is left out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from puna.corpus.read.wikitext_templates import template_text

MAX_DEPTH = 100
_FILE_NAMES = frozenset(("file", "image", "media", "category"))

# What is set aside whole before anything else is read, and put back last.
_HELD, _HELD_END = "\x02", "\x03"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_PUT_BACK = re.compile(f"{_HELD}(\\d+){_HELD_END}")
_OPENING = re.compile(
    r"<(!--|(?:nowiki|math|chem|pre|code|syntaxhighlight|source|ref|references|gallery|timeline"
    r"|score|imagemap|graph|templatedata|templatestyles|indicator|mapframe|maplink|hiero|section"
    r"|inputbox|categorytree|style|script)\b)([^<>]*)(>)?",
    re.I,
)
_KEPT = frozenset(("nowiki", "math", "chem", "pre", "code", "syntaxhighlight", "source"))
_FORMULAE = frozenset(("math", "chem"))

_PARAMETER = re.compile(r"\{\{\{[^{}]{0,200}\}\}\}")
_MARK = re.compile(r"\{\{|\}\}|\[\[|\]\]|^[ \t:]*\{\||^[ \t]*\|\}(?!\})", re.M)
_EXTERNAL = re.compile(r"\[(?:https?:|ftp:|mailto:|//)[^\s\[\]<>]+(?:[ \t]+([^\[\]\n]*))?\]", re.I)
_QUOTES = re.compile(r"'{5}|'{3}|'{2}")
_BREAK = re.compile(
    r"<(?:br|hr|/?p|/?div|/?blockquote|/?center|/?poem|/?li|/?tr|/?h[1-6])\b[^<>]*>"
)
_TAG = re.compile(
    r"</?(?:abbr|b|bdi|bdo|big|cite|dd|del|dfn|dl|dt|em|font|i|includeonly|ins|kbd|mark|noinclude"
    r"|ol|onlyinclude|q|rb|ref|rp|rt|ruby|s|samp|small|span|strike|strong|sub|sup|table|tbody|td|th"
    r"|tt|u|ul|var|wbr)\b[^<>]*>",
    re.I,
)
_MAGIC_WORD = re.compile(r"__[A-Z]{3,25}__")
_VARIANT = re.compile(r"-\{([^{}]{0,500})\}-")
_HEADING = re.compile(r"(={1,6})([^\n]+?)\1[ \t]*")
_LIST = re.compile(r"([*#:;]+)[ \t]*")
_TABLE_LINE = re.compile(r"[ \t]*(\||!|\{\|)")
_EMPTY_BRACKETS = re.compile(r" ?[(（][\s,;:،、，；]*[)）]")
_BRACKET_BEGIN = re.compile(r"([(（])[ \t]*[,;:、，；][ \t,;:、，；]*")
_BEFORE_MARK = re.compile(r" ([,.;:!?)](?:\s|$))")
_SPACES = re.compile(r"[ \t\xa0]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".svg", ".webp", ".tif", ".tiff", ".ogg", ".webm")
_INTERWIKI = re.compile(r"[a-z]{2,3}(?:-[a-z-]{2,12})?|simple", re.ASCII)


_Line = tuple[int, str]
"""The level of a heading, 0 for other lines; and the words."""


@dataclass(frozen=True)
class Namespaces:
    """Names of namespaces in lower case, as one wiki calls them."""

    left_out: frozenset[str]
    """Of files, media and categories: links to them are no words of a sentence."""


def namespaces_of(names: Mapping[int, str]) -> Namespaces:
    """From the names by number that a dump begins with: 6 is that of files, 14 of categories."""
    own = (names.get(number, "").strip().lower() for number in (-2, 6, 14))
    return Namespaces(frozenset(name for name in own if name) | _FILE_NAMES)


ENGLISH = Namespaces(_FILE_NAMES)


def plain_text(wikitext: str, namespaces: Namespaces = ENGLISH) -> str:
    """The words of an article; headings, list items and paragraphs on lines of their own.

    Formulae are kept as `$...$`, code as it stands; notes, tables, pictures, galleries and most
    templates are left out, and headings that nothing stands under.
    """
    held: list[str] = []
    text = _set_aside(_CONTROL.sub("", wikitext), held)
    text = _PARAMETER.sub("", text)
    text = _without_nesting(text, namespaces)
    text = _without_marks(text)
    lines = _without_empty_headings(_lines(text))
    text = _tidy("\n".join(lines))
    return _PUT_BACK.sub(lambda match: held[int(match.group(1))], text).strip()


def _set_aside(text: str, held: list[str]) -> str:
    """Text without comments and notes, and with what must not be read as wikitext as numbers."""
    parts: list[str] = []
    at = 0
    lower = _lower(text)
    ends: dict[str, int] = {}
    while (tag := _OPENING.search(text, at)) is not None:
        parts.append(text[at : tag.start()])
        name = tag.group(1).lower()
        if name == "!--":
            end = _find(lower, "-->", tag.start() + 4, ends)
            at = len(text) if end < 0 else end + 3
            continue
        if tag.group(3) is None or tag.group(2).rstrip().endswith("/"):
            at = tag.end()
            continue
        end = _find(lower, f"</{name}", tag.end(), ends)
        if end < 0:  # left open: the tag alone goes
            at = tag.end()
            continue
        close = text.find(">", end, end + 100)
        at = close + 1 if close >= 0 else end + len(name) + 2
        if name in _KEPT:
            parts.append(f"{_HELD}{len(held)}{_HELD_END}")
            held.append(_held_text(name, text[tag.end() : end]))
    parts.append(text[at:])
    return "".join(parts)


def _lower(text: str) -> str:
    """In lower case and as long as before: a few capitals have two characters for a small one."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(small if len(small := sign.lower()) == 1 else sign for sign in text)


def _find(lower: str, mark: str, at: int, ends: dict[str, int]) -> int:
    """Where a mark comes next; -1 for nowhere.

    `ends` remembers it: what is far away or not there is looked for once, not from each place.
    """
    known = ends.get(mark)
    if known is None or 0 <= known < at:
        ends[mark] = known = lower.find(mark, at)
    return known


def _held_text(name: str, inner: str) -> str:
    if name in _FORMULAE:
        return f"${inner.strip()}$" if inner.strip() else ""
    inner = inner if name in ("syntaxhighlight", "source") else html.unescape(inner)
    return inner if name == "nowiki" else inner.strip("\n")


@dataclass
class _Frame:
    """An open mark and what has come since."""

    opening: str
    kind: str
    parts: list[str] = field(default_factory=list)


def _without_nesting(text: str, namespaces: Namespaces) -> str:
    """Templates, links and tables replaced by their words, from the inside out."""
    stack = [_Frame("", "")]
    open_kinds = {"{{": 0, "[[": 0, "{|": 0}
    pairs = {"}}": "{{", "]]": "[[", "|}": "{|"}
    at = 0
    for mark in _MARK.finditer(text):
        stack[-1].parts.append(text[at : mark.start()])
        at = mark.end()
        token = mark.group().strip(" \t:") if mark.group()[-1] in "|}" else mark.group()
        if token in open_kinds:
            if len(stack) <= MAX_DEPTH:
                stack.append(_Frame(mark.group(), token))
                open_kinds[token] += 1
            continue
        kind = pairs[token]
        if not open_kinds[kind]:
            stack[-1].parts.append("" if kind == "{{" else mark.group())
            continue
        while stack[-1].kind != kind:
            open_kinds[stack[-1].kind] -= 1
            _give_up(stack)
        open_kinds[kind] -= 1
        frame = stack.pop()
        stack[-1].parts.append(_words(kind, "".join(frame.parts), namespaces))
    stack[-1].parts.append(text[at:])
    while len(stack) > 1:
        _give_up(stack)
    return "".join(stack[0].parts)


def _give_up(stack: list[_Frame]) -> None:
    """A mark that is never closed goes; what it was to hold stays."""
    frame = stack.pop()
    stack[-1].parts.append("\n" if frame.kind == "{|" else "")
    stack[-1].parts += frame.parts


def _words(kind: str, inner: str, namespaces: Namespaces) -> str:
    if kind == "{{":
        return template_text(inner)
    return _link_words(inner, namespaces) if kind == "[[" else "\n"


def _link_words(inner: str, namespaces: Namespaces) -> str:
    target, bar, label = inner.partition("|")
    target = target.strip()
    prefix = target.partition(":")[0].strip().lower() if ":" in target else ""
    if prefix in namespaces.left_out or (prefix and target.lower().endswith(_PICTURES)):
        return ""
    if prefix and not bar and _INTERWIKI.fullmatch(target.partition(":")[0]):
        return ""  # the same article in another language
    if bar:
        words = label.rpartition("|")[2] if prefix else label
        return words.strip() or _piped(target)
    return target.lstrip(":")


def _piped(target: str) -> str:
    """What `[[Help:Mercury (planet)|]]` shows: Mercury."""
    name = target.rpartition(":")[2]
    return (name[: name.rfind("(")] if name.endswith(")") and "(" in name else name).strip()


def _without_marks(text: str) -> str:
    text = _EXTERNAL.sub(lambda match: (match.group(1) or "").strip(), text)
    text = _VARIANT.sub(_variant_words, text.replace("[[", "").replace("]]", ""))
    text = _MAGIC_WORD.sub("", _QUOTES.sub("", text))
    text = _TAG.sub("", _BREAK.sub("\n", text))
    return html.unescape(text)


def _variant_words(match: re.Match[str]) -> str:
    """What `-{zh-hans:...; zh-hant:...}-` shows, in the first of its variants."""
    inner = match.group(1).rpartition("|")[2]
    first = next((rule for rule in inner.split(";") if rule.strip()), "")
    name, colon, words = first.partition(":")
    return words.strip() if colon and name.strip().startswith("zh") else first.strip()


def _lines(text: str) -> list[_Line]:
    lines: list[_Line] = []
    for line in text.split("\n"):
        line = line.rstrip()
        heading = _HEADING.fullmatch(line) if line.startswith("=") else None
        if heading is not None:
            words = heading.group(2).strip(" =")
            lines += [(0, ""), (len(heading.group(1)), words), (0, "")]
        elif not _TABLE_LINE.match(line):
            lines.append((0, _list_item(line)))
    return lines


def _list_item(line: str) -> str:
    marks = _LIST.match(line)
    if marks is None:
        return line
    words = line[marks.end() :]
    if not words.strip():
        return ""
    return f"- {words}" if marks.group(1)[-1] in "*#" else words


def _without_empty_headings(lines: list[_Line]) -> list[str]:
    """The lines but for headings with neither text nor a deeper heading with text under them."""
    kept: list[str] = []
    text_follows, below = False, 0
    for level, line in reversed(lines):
        if not level:
            text_follows = text_follows or bool(line.strip(" -*"))
        elif text_follows or below > level:
            text_follows, below = False, level
        else:
            continue
        kept.append(line)
    return kept[::-1]


def _tidy(text: str) -> str:
    # Spaces first: the patterns after it look at one of them only.
    text = _EMPTY_BRACKETS.sub("", _SPACES.sub(" ", text))
    text = _BEFORE_MARK.sub(r"\1", _BRACKET_BEGIN.sub(r"\1", text))
    text = "\n".join(line.strip(" \t") for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text)
