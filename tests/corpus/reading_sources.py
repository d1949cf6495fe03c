"""Small helpers for the tests of readers: sources of files, and what is read of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from puna.corpus.read import ReadConfig, ReadUnit, Unread, plan_units, read_unit
from puna.corpus.schema import Found


def read_units(units: Sequence[ReadUnit], config: ReadConfig) -> list[Found | Unread]:
    return [found for unit in units for found in read_unit(unit, config)]


def read_source(
    files: Path | str, *, unit_bytes: int = 1 << 20, **options: Any
) -> list[Found | Unread]:
    config = ReadConfig(files=str(files), **options)
    return read_units(plan_units("source", config, unit_bytes), config)


def read_content(path: Path, content: bytes | str, **options: Any) -> list[Found | Unread]:
    """What is read of a file with this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_source(path, **options)


def documents(found: Sequence[Found | Unread]) -> list[Found]:
    return [one for one in found if isinstance(one, Found)]


def faults(found: Sequence[Found | Unread]) -> list[Unread]:
    return [one for one in found if isinstance(one, Unread)]


def texts(found: Sequence[Found | Unread]) -> list[str]:
    return [one.text for one in documents(found)]


def reasons(found: Sequence[Found | Unread]) -> list[str]:
    return [one.reason for one in faults(found)]


def places(found: Sequence[Found | Unread]) -> list[str]:
    """What follows the folder of the file in each locator."""
    return [one.locator.rpartition("/")[2] for one in found]
