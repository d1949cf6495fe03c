"""One HTML file from a page: no script, nothing fetched, readable anywhere and for years."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from puna.artifact import writing_file
from puna.report.parts import MarkedText, Page, Section, Table
from puna.report.plot import Chart, draw, strip
from puna.report.words import visible

WIDE, NARROW = 720, 350
"""Widths of the two drawings of a chart, pixels: for a desk and for a phone."""

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Drawn:
    """A chart in both widths."""

    wide: Markup
    narrow: Markup


def render(page: Page) -> str:
    """The page as one self-contained HTML document, which is well-formed XML too.

    All texts are escaped. The content policy allows the style sheet of this page, by its digest,
    and nothing else: no script runs and nothing is loaded, whatever a text holds.
    """
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    names = (f"g{n}" for n in itertools.count(1))
    return _template().render(
        {
            "page": page,
            "style": Markup(style),
            "policy": f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'",
            "anchors": _anchors(page.sections),
            "drawn": _drawer(names),
            "strip": lambda items: Markup(strip(items, next(names))),
            "new_name": lambda: next(names),
        }
    )


def write(page: Page, path: Path, *, force: bool = False) -> None:
    """Render a page into a file, whole or not at all.

    Raises:
        InputError: `path` exists and `force` is not set, or the disk refused the write.
    """
    text = render(page)
    with writing_file(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["aligned"] = _aligned
    environment.filters["joined"] = _joined
    return environment.get_template("page.html.jinja")


def _drawer(names: Iterator[str]) -> Callable[[Chart], Drawn]:
    def drawn(chart: Chart) -> Drawn:
        wide, narrow = (draw(chart, width, next(names)) for width in (WIDE, NARROW))
        return Drawn(Markup(wide), Markup(narrow))

    return drawn


def _shown(value: Any) -> Any:
    """What the template writes for a value: text with every character made visible."""
    if isinstance(value, Markup):
        return value
    return visible(value) if isinstance(value, str) else value


def _aligned(table: Table) -> str:
    return table.align or "l" + "r" * (len(table.columns) - 1)


def _joined(marked: MarkedText) -> list[tuple[str, bool]]:
    """Neighbouring pieces of one kind as one, so that no seam shows inside a word."""
    groups = itertools.groupby(marked.pieces, key=lambda piece: bool(piece[1]))
    return [("".join(text for text, _ in group), mark) for mark, group in groups]


def _anchors(sections: Sequence[Section]) -> list[str]:
    """A readable name for every section, each once."""
    anchors: list[str] = []
    for number, section in enumerate(sections, 1):
        plain = unicodedata.normalize("NFKD", section.short or section.title).casefold()
        anchor = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
        fresh = anchor and anchor not in anchors
        anchors.append(anchor if fresh else f"section-{number}")
    return anchors
