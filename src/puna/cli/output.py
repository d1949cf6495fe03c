"""Where tables go: as wide as a terminal is, and never cut in a pipe or a file."""

from __future__ import annotations

import sys

from rich.console import Console

WIDE = 1000  # columns; for programs that read lines


def table_console() -> Console:
    """A console for tables on standard output."""
    return Console(width=None if sys.stdout.isatty() else WIDE)
