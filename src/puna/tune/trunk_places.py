"""The cache's folder: where it lies, which chunks are in use, and which leave for others.

A process that uses chunks holds a lock on a `.use` file that lists them; the system lets go of the
lock when the process dies, however it dies. Losing a chunk in use would be no error (it is
computed again), so no lock is held for longer than a look.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from puna.artifact import locked

CHUNKS = "*/chunk-*.safetensors"


def default_folder() -> Path:
    """Where trunks are kept when the recipe does not say: `$XDG_CACHE_HOME/puna/trunk`."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "puna" / "trunk"


@dataclass(frozen=True)
class Room:
    """What making room came to."""

    evicted: int  # chunks removed
    used_bytes: int  # of all chunks that are left


def make_room(root: Path, keep: Set[Path], needed_bytes: int, max_bytes: int) -> Room:
    """Remove the chunks that were not used for longest until `needed_bytes` fit.

    Args:
        root: The folder of all trunks.
        keep: Chunks of the caller; neither they nor those of another live process are removed.
        needed_bytes: About to be written.
        max_bytes: Of all chunks together, where those that must stay allow it.
    """
    sweep(root)
    files = []
    for path in root.glob(CHUNKS):
        with contextlib.suppress(OSError):  # another process may have removed it
            stat = path.stat()
            files.append((stat.st_mtime_ns, path, stat.st_size))
    used = sum(size for _, _, size in files)
    kept = keep | in_use(root) if used + needed_bytes > max_bytes else keep
    evicted = 0
    for _, path, size in sorted(files):
        if used + needed_bytes <= max_bytes:
            break
        if path not in kept:
            with contextlib.suppress(OSError):
                path.unlink()
                used, evicted = used - size, evicted + 1
    return Room(evicted, used)


def in_use(root: Path) -> set[Path]:
    """The chunks that processes have said they use, this one too; right after a sweep, live ones.

    Where the file system knows no locks, a process that was killed counts as live.
    """
    found: set[Path] = set()
    for use in root.glob("*/.*.use"):
        with contextlib.suppress(OSError):
            names = use.read_text(encoding="utf-8").split("\n")
            found |= {use.parent / name for name in names}
    return found


def sweep(root: Path) -> None:
    """Remove what killed processes left behind: partial chunks, and lists of chunks in use."""
    for pattern in ("*/.*.partial", "*/.*.new", "*/.*.use"):
        for left in root.glob(pattern):
            with contextlib.suppress(OSError), locked(left) as held:
                if held:
                    left.unlink(missing_ok=True)
