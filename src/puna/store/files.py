"""Side files of a checkpoint: the tokenizer and the template, copied as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from puna.errors import InputError


def write_side_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by name into a folder.

    Raises:
        InputError: A name is a path, or a file of that name is there already.
    """
    for name, content in files.items():
        path = folder / name
        if Path(name).name != name or path.exists():
            raise InputError(f"cannot write the side file {name!r}", where=folder)
        path.write_bytes(content)
