"""Two files that are translations of one another, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from puna.errors import InputError
from puna.records.formats.content import byte_lines
from puna.records.row import Quarantine, Row, sound_rows


def read_parallel(source: Path, target: Path, *, quarantine: Quarantine) -> Iterator[Row]:
    """Rows {"source", "target"} of two line-aligned files, each of which may be gzipped.

    The lines are counted before the first row is given, so that misaligned files teach nothing.

    Args:
        source: The file whose lines are translated; rows are named after it.
        target: The file with their translations.
        quarantine: Takes pairs with a blank side, or with bytes that are not UTF-8.

    Raises:
        InputError: A file cannot be read, or the two have different numbers of lines.
    """
    counts = [sum(1 for _ in byte_lines(path, Quarantine())) for path in (source, target)]
    if counts[0] != counts[1]:
        raise InputError(
            f"has {counts[0]:,} lines, but {target} has {counts[1]:,}: they are not line by line "
            "translations of one another",
            where=source,
            fix="check that both are whole and of the same set",
        )
    yield from sound_rows(_pairs(source, target, quarantine), quarantine)


def _pairs(source: Path, target: Path, quarantine: Quarantine) -> Iterator[Row]:
    pairs = zip(byte_lines(source, quarantine), byte_lines(target, quarantine), strict=True)
    for (number, left), (other, right) in pairs:
        if number != other:  # a line above the bound was passed over in one of them
            raise InputError("has a line that is too long", where=f"{source}:{min(number, other)}")
        locator = f"{source}:{number}"
        texts = [line.decode(errors="surrogateescape") for line in (left, right)]
        if all(text.strip() for text in texts):
            yield Row({"source": texts[0], "target": texts[1]}, locator)
        elif any(text.strip() for text in texts):
            quarantine.add(locator, "has text on one side only")
