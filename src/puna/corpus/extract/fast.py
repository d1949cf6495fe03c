"""Main text by resiliparse and a filter of lines: fast, and sure of itself or not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from puna.corpus.extract.lines import Kept, main_lines
from puna.corpus.extract.marking import hidden, lightened, marked
from puna.errors import require


@dataclass(frozen=True)
class Extracted:
    """The main text of a page."""

    text: str
    """Paragraphs and headings, one a line or more; empty where there is none."""
    confidence: float
    """How sure the fast way was, 0 to 1; 1 where it was not asked."""
    by: Literal["fast", "precise"]


def open_fast() -> Callable[[str], Extracted]:
    """What gives the main text of a page by resiliparse, with the lines that are none left out.

    Raises:
        MissingPackageError: resiliparse is not installed.
    """
    purpose = "extracting main text"
    html2text = require("resiliparse.extract.html2text", extra="corpus", purpose=purpose)

    def extract(html: str) -> Extracted:
        page = hidden(lightened(html))
        given = html2text.extract_plain_text(
            page,
            main_content=True,
            preserve_formatting="minimal_html",
            list_bullets=False,
            alt_texts=False,
            links=True,
            comments=False,
        )
        kept = main_lines(marked(given))
        return Extracted(kept.text, confidence_in(kept, page), "fast")

    return extract


_SURE_SIZE = 500  # characters of two paragraphs; where less is left, most of it may be missing
_PARAGRAPH = re.compile(r"<p(?:\s[^<>]*)?>([^<&]{40,})")  # up to an entity: the text has none
_COMPARED_CHARS = 40


def confidence_in(kept: Kept, page: str) -> float:
    """How sure it is that what was kept is the main text, 0 to 1: the least of three figures.

    They are the square of what was kept of what resiliparse gave (to leave out a third is a sign of
    trouble); its size in that of two paragraphs; and itself in the sum of it and of paragraphs of
    the page that it lacks. Each finds other errors; the choice was made on pages with gold text.

    Args:
        kept: What the filter kept.
        page: The page of HTML, without scripts.
    """
    had = {_beginning(line) for line in kept.text.split("\n")}
    lacking = sum(len(one) for one in _PARAGRAPH.findall(page) if _beginning(one) not in had)
    complete = kept.size / (kept.size + lacking) if kept.size else 0.0
    return min(kept.share**2, kept.size / _SURE_SIZE, complete)


def _beginning(text: str) -> str:
    return " ".join(text[: 2 * _COMPARED_CHARS].split())[:_COMPARED_CHARS]
