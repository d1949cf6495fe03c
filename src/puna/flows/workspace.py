"""The folder beside a result in which it comes into being, and which one process works in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from puna.artifact import MANIFEST, locked, read_manifest
from puna.errors import InputError

ASKED = "asked"  # of a manifest's measured part: a digest of all that decides what comes out


def is_made(out: Path, kind: str, asked: str) -> bool:
    """Whether a folder holds, whole, what would be made."""
    told = read_manifest(out / MANIFEST)
    return (
        told is not None
        and told["identity"]["kind"] == kind
        and told["measured"].get(ASKED) == asked
        and all((out / name).is_file() for name in told["identity"]["files"])
    )


def workspace_path(out: Path, doing: str) -> Path:
    """Where it lies: hidden, beside the result, on the same disk.

    Args:
        out: The folder that is to be made.
        doing: What is done, such as `curating`.
    """
    return out.parent / f".{out.name}.{doing}"


@contextmanager
def holding_workspace(out: Path, doing: str) -> Iterator[Path]:
    """Make the folder where there is none, and keep others out of it meanwhile.

    Raises:
        InputError: It cannot be made, or another process is at work in it.
    """
    path = workspace_path(out, doing)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"could not be made: {error.strerror}",
            where=path,
            fix="choose an --out in a folder that you may write to",
        ) from error
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except BlockingIOError as error:
            raise InputError(
                f"is in use: another process is {doing} into this folder",
                where=out,
                fix="wait for it, stop it, or choose another --out",
            ) from error
        yield path
