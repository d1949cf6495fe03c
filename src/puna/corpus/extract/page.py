"""What a page is before anyone parses it: HTML or not, and not too much for a parser.

An HTML parser walks up its stack of open elements at almost every tag, so that a page of n nested
elements costs n^2 steps: 100,000 open `<div>`s, half a megabyte, take many seconds. Open
formatting elements (`<b>`, `<font>`) are opened again in every later block, which costs memory in
the same way. Both are counted here, roughly and without a parser, before one is called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

SNIFFED_CHARS = 4096
"""A page that has no tag in so many characters is not HTML: the head comes first."""
_CERTAIN_TAGS = 20_000
"""Opened at most, a page is parsed within half a second however its tags lie."""
_MAX_REOPENED = 2_000_000
"""Formatting elements left open, times the elements of the page: nodes that a parser may make."""

_MAX_NESTED_BYTES = 1 << 29
"""The bytes of a page times its depth: resiliparse looks at a text again from each element that
it lies in, at some 30 MB/s."""
_SEARCHED = 32
"""Open elements that a closing tag is looked for in."""

_SNIFF = re.compile(
    r"<(?:!doctype\s+html|(?:html|head|body|title|meta|div|p|span|table|article|main|section|h[1-6]"
    r"|ul|ol|a|br|font|center|b|i|pre|blockquote)(?:\s*/?>|\s+[a-z-]+\s*=))",
    re.IGNORECASE,
)
_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(script|style|textarea|title|xmp|noscript|iframe)(?=[\s/>]).*?(?:</\1\s*>|\Z)"
    r"|<(/?)([a-z][^\s/>]*)[^>]*>?",
    re.IGNORECASE | re.DOTALL,
)
# Elements that hold nothing, and those that end by themselves where the next of their kind begins:
# neither nests deeper than the elements that are counted.
_UNCOUNTED = frozenset(
    re.split(
        " ",
        "area base br col embed hr img input link meta param source track wbr"
        " p li dt dd td th tr thead tbody tfoot option optgroup colgroup rp rt html head body",
    )
)
_SPECIAL = frozenset(
    re.split(
        " ",
        "address applet article aside blockquote button center details dialog dir div dl fieldset"
        " figcaption figure footer form frameset h1 h2 h3 h4 h5 h6 header hgroup listing main"
        " marquee menu nav object ol plaintext pre search section select summary table template ul",
    )
)
_FORMATTING = frozenset(re.split(" ", "a b big code em font i nobr s small strike strong tt u"))


def looks_like_html(text: str, metadata: Mapping[str, Any]) -> bool:
    """Whether a document is a page: its metadata says so, or it has a tag where pages have one.

    Args:
        text: The document.
        metadata: Its key `format`, where there is one, decides: `html` or anything else.
    """
    said = metadata.get("format")
    if isinstance(said, str) and said not in ("warc", ""):
        return said in ("html", "xhtml")
    return _SNIFF.search(text, 0, SNIFFED_CHARS) is not None


def excess(text: str, data: np.ndarray, max_depth: int) -> str | None:
    """What of a page is too much for a parser, in words; None where nothing is.

    Args:
        text: The page.
        data: The same in UTF-8, uint8 [bytes].
        max_depth: Elements within one another. Browsers stop at 512.
    """
    opened, deepest = _tags(data)
    light = deepest * opened <= _MAX_REOPENED and deepest * len(data) <= _MAX_NESTED_BYTES
    if light and deepest <= max_depth and opened <= _CERTAIN_TAGS:
        return None
    return _counted(text, max_depth, len(data))


def tags(data: np.ndarray) -> int:
    """How many elements a page opens, about. Contents of scripts are counted too."""
    return _tags(data)[0]


def _tags(data: np.ndarray) -> tuple[int, int]:
    """Elements opened, and how many of them at most are open at once if all closings count."""
    places = np.flatnonzero(data[:-1] == ord("<"))
    following = data[places + 1]
    letters = (following | 32) - ord("a")  # uint8: whatever is no letter wraps far above 25
    opens = letters < 26
    balance = np.cumsum(opens.astype(np.int32) - (following == ord("/")))
    if not len(balance):
        return 0, 0
    lowest = np.minimum(np.minimum.accumulate(balance), 0)
    return int(opens.sum()), int((balance - lowest).max())


def _counted(text: str, max_depth: int, size: int) -> str | None:
    """Follow every tag with a stack, as a parser would, but in few steps a tag."""
    stack: list[str] = []
    opened = formatting = worst = deepest = 0
    for tag in _TAG.finditer(text):
        name = (tag[3] or "").lower()
        if not name or name in _UNCOUNTED:
            opened += name != "" and not tag[2]
            continue
        if tag[2]:
            formatting -= _close(stack, name)
            continue
        stack.append(name)
        opened += 1
        formatting += name in _FORMATTING
        worst = max(worst, formatting)
        deepest = max(deepest, len(stack))
        if deepest > max_depth:
            return f"elements lie more than {max_depth:,} deep"
    if deepest * size > _MAX_NESTED_BYTES:
        return f"{size:,} bytes lie up to {deepest:,} elements deep"
    if worst * opened > _MAX_REOPENED * 4:
        return f"{worst:,} formatting elements are left open over {opened:,} elements"
    return None


def _close(stack: list[str], name: str) -> int:
    """Take what a closing tag ends off the stack; how many formatting elements that were.

    A tag that ends nothing near is passed over: so the work is bounded, and the depth at worst
    overrated.
    """
    for place in range(len(stack) - 1, max(-1, len(stack) - 1 - _SEARCHED), -1):
        if stack[place] == name:
            ended = sum(other in _FORMATTING for other in stack[place:])
            del stack[place:]
            return ended
        if name not in _SPECIAL and stack[place] in _SPECIAL:
            return 0  # parsers do not close a block for the sake of a `</span>` within it
    return 0
