"""Plain text: one row per line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from puna.records.formats.content import text_lines
from puna.records.row import Quarantine, Row


def read_txt(path: Path, quarantine: Quarantine) -> Iterator[Row]:
    """One row {"text": line} for each line that is not blank."""
    for number, line in text_lines(path, quarantine):
        if line.strip():
            yield Row({"text": line}, f"{path}:{number}")
