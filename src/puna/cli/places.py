"""Where things go that nobody has named a place for."""

from __future__ import annotations

from pathlib import Path

from puna.errors import InputError


def default_place(name: str) -> Path:
    """Where a run goes that was given no --out: into runs/, which is made.

    Raises:
        InputError: It cannot be made.
    """
    folder = Path("runs")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"could not be made: {error.strerror}", where=folder, fix="name a folder with --out"
        ) from error
    return folder / name
