"""The identity of a model on disk, computed once per file and remembered."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from puna.artifact import digest_json, model_identity, read_json, write_json, writing_file
from puna.errors import InputError
from puna.store import Checkpoint
from puna.store.values import digest_lazy

_KEPT = 200  # identities that are remembered


def checkpoint_identity(checkpoint: Checkpoint) -> str:
    """The digest over all tensors of a checkpoint; see `puna.artifact.model_identity`.

    Remembered in `$XDG_CACHE_HOME/puna/identities.json` by path, size and time of change of the
    files, so that a large model is read once only.
    """
    files = {tensor.file for tensor in checkpoint.tensors.values() if tensor.file is not None}
    key = _key(files or {checkpoint.path})
    place = _place()
    known = _known(place)
    if key in known:
        return str(known[key])
    with ThreadPoolExecutor(2) as pool:  # hashing lets go of the interpreter
        found = model_identity(pool.map(digest_lazy, checkpoint.tensors.values()))
    _remember(place, key, found)
    return found


def lasting_name(name: str) -> str:
    """The name of a model that holds from any folder."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _key(files: Iterable[Path]) -> str:
    rows = []
    for path in sorted(files):
        told = path.stat()
        rows.append([str(path.resolve()), told.st_size, told.st_mtime_ns])
    return digest_json(rows)


def _place() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "puna" / "identities.json"


def _known(place: Path) -> dict[str, Any]:
    with contextlib.suppress(InputError):
        told = read_json(place)
        if isinstance(told, dict):
            return told
    return {}


def _remember(place: Path, key: str, identity: str) -> None:
    """Without a place to write to, the next one computes it again."""
    with contextlib.suppress(InputError, OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        kept = dict(list(_known(place).items())[-_KEPT:])
        with writing_file(place, force=True) as temporary:
            write_json(temporary, {**kept, key: identity})
