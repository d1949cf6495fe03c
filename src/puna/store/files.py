"""Files of a checkpoint beside its weights, and what may be opened as a file at all."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.artifact import read_json
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


def check_regular(path: Path) -> None:
    """Refuse what is no regular file: reading a pipe or a device may never end.

    Raises:
        InputError: There is nothing at `path`, or it is a folder, a pipe, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", where=path) from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise InputError(
            f"is {kinds.get(stat.S_IFMT(mode), 'a device')}; expected a regular file",
            where=path,
            fix="copy the content into a file first",
        )


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        InputError: It is no regular file, cannot be read, or holds something else.
    """
    check_regular(path)
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"expected an object, found a {type(value).__name__}", where=path)
    return value
