"""Main text by trafilatura: slower, and right more often."""

from __future__ import annotations

import logging
from collections.abc import Callable

from puna.errors import require

Extract = Callable[[str], str]


def open_precise(*, thorough: bool = True) -> Extract:
    """What gives the main text of a page by trafilatura with its default settings.

    Args:
        thorough: Let it ask other algorithms where it is unsure itself, as is its default. That
            takes half of its time; behind the fast way it changed no page of the benchmark.

    Raises:
        MissingPackageError: trafilatura or lxml_html_clean is not installed.
    """
    require("lxml_html_clean", extra="corpus", purpose="extracting main text precisely")
    trafilatura = require("trafilatura", extra="corpus", purpose="extracting main text precisely")
    # It logs every page that it finds empty; those are counted by the reason of their drop.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)

    def extract(html: str) -> str:
        found: str | None = trafilatura.extract(html, include_comments=False, fast=not thorough)
        return found or ""

    return extract
