"""The nouns on disk: a result is written beside its place and renamed, whole or absent.

A manifest says what an artifact is (`identity`, hashed) and what making it cost (`measured`,
never hashed). No torch here: `puna --help` and the corpus rooms import this module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from puna.errors import InputError

MANIFEST = "manifest.json"
BESIDE = "beside"  # of a manifest's measured part: files that are no part of the identity
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def writing_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds.

    The path is that of an empty file, which the block may write or replace.

    Raises:
        InputError: `path` exists and `force` is not set, or the disk refused the write.
    """
    check_free(path, force=force)
    temporary = _temporary_name(path)
    try:
        _sweep(path)
        temporary.touch()
        with locked(temporary):
            yield temporary
            _sync(temporary)
            temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise _disk_error(error, path, temporary) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` when the block succeeds.

    With `force`, what stood at `path` before is moved aside first and deleted only after the new
    folder is in place, so `path` is never half written. A writer that is killed between the two
    renames leaves the old folder aside; the next writer puts it back.

    Raises:
        InputError: `path` exists and `force` is not set, or the disk refused the write.
    """
    _sweep(path)
    check_free(path, force=force, folder=True)
    temporary = _temporary_name(path)
    aside = temporary.with_suffix(".old")
    try:
        temporary.mkdir()
        with locked(temporary):
            yield temporary
            for file in (*temporary.rglob("*"), temporary):
                _sync(file)
            _replace(path, temporary, aside)
        _sync(path.parent)
    except OSError as error:
        raise _disk_error(error, path, temporary) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            _remove(aside)


def _replace(path: Path, temporary: Path, aside: Path) -> None:
    if path.exists():
        path.rename(aside)
    try:
        temporary.rename(path)
    except OSError:
        if aside.exists():
            aside.rename(path)
        raise


@contextlib.contextmanager
def locked(temporary: Path) -> Iterator[bool]:
    """Lock a file or folder while its user is at work; the system lets go when it dies.

    Yields whether there is a lock: NFS refuses one on what is open for reading only (and a folder
    cannot be opened otherwise), and some file systems know none. The writer needs no lock to write;
    the sweep, which cannot tell then whether a writer lives, must leave the place alone.

    Raises:
        BlockingIOError: Another process holds it.
    """
    descriptor = os.open(temporary, os.O_RDONLY)
    held = True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            held = False
        yield held
    finally:
        os.close(descriptor)


def _sweep(path: Path) -> None:
    """Clean up after writers of `path` that were killed; leave those alone that are at work."""
    for left in sorted(path.parent.glob(f".{glob.escape(path.name)}.????????.partial")):
        with contextlib.suppress(OSError), locked(left) as held:
            if held:
                _remove(left)
    for aside in sorted(path.parent.glob(f".{glob.escape(path.name)}.????????.old")):
        if aside.with_suffix(".partial").exists():
            continue  # its writer is at work
        if path.exists():
            _remove(aside)
        else:
            aside.rename(path)


def check_free(path: Path, *, force: bool = False, folder: bool = False) -> None:
    """Refuse to write to a place that is taken, or that cannot hold what is written.

    With `force` a file may replace a file, and a folder may replace a folder that Puna made and
    that holds nothing else: nobody loses work to a mistyped path.

    Args:
        path: The place.
        force: Whether it may be taken.
        folder: Whether a folder will be written, rather than a file.

    Raises:
        InputError: The place is taken, or the folder that it lies in does not exist.
    """
    if not path.parent.is_dir():
        raise InputError(
            f"the folder {path.parent} does not exist", where=path, fix=f"mkdir -p {path.parent}"
        )
    if not path.exists() or (folder and path.is_dir() and not any(path.iterdir())):
        return
    if not force:
        raise InputError(
            "already exists", where=path, fix="choose another path, or add --force to replace it"
        )
    kept = "choose another path, or remove it yourself"
    if path.is_dir() != folder:
        kind = "a folder, not a file" if path.is_dir() else "a file, not a folder"
        raise InputError(f"is {kind}; --force does not replace it", where=path, fix=kept)
    foreign = _foreign(path) if folder else None
    if foreign is not None:
        raise InputError(
            f"holds {foreign}, which puna did not write; --force does not replace it",
            where=path,
            fix=kept,
        )


def _foreign(folder: Path) -> str | None:
    """The first entry of a folder that its manifest does not name; None for a folder of ours."""
    own: set[str] = set()
    with contextlib.suppress(InputError, KeyError, TypeError, AttributeError):
        told = read_json(folder / MANIFEST)
        # What tells of the making, such as a report with times, is beside what is made.
        names = [*dict(told["identity"]["files"]), *told.get("measured", {}).get(BESIDE, [])]
        own = {MANIFEST, *(Path(name).parts[0] for name in names)}
    return next((e.name for e in sorted(folder.iterdir()) if e.name not in own), None)


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no white space)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class TensorDigest:
    """What the identity of a model is made of: one tensor's name, dtype, shape and content."""

    name: str
    dtype: str  # torch's name without the prefix: float32, bfloat16 ...
    shape: tuple[int, ...]
    sha256: str  # of the values in row-major, little-endian order


def model_identity(tensors: Iterable[TensorDigest]) -> str:
    """The identity of a model: a digest over its tensors sorted by name.

    Two checkpoints in different formats that hold the same values have the same identity.
    """
    rows = sorted([t.name, t.dtype, list(t.shape), t.sha256] for t in tensors)
    return digest_json(rows)


def manifest(
    kind: str,
    *,
    config: Mapping[str, Any],
    parents: Iterable[str],
    files: Mapping[str, str],
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Build a manifest.

    Args:
        kind: The noun: `checkpoint`, `adapter`, `shards` ...
        config: What was asked for; part of the identity.
        parents: Identities of what this artifact was made from.
        files: SHA-256 by file name.
        measured: Time, energy, host: recorded, never hashed.
    """
    from puna import __version__

    identity = {
        "kind": kind,
        "config": dict(config),
        "parents": list(parents),
        "files": dict(sorted(files.items())),
        "puna": __version__,
    }
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "identity": identity,
        "digest": digest_json(identity),
        "measured": {"finished": stamp, **measured},
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON that people can read: indented, sorted as given, with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is missing, not UTF-8 or not JSON; the message names the line.
    """
    try:
        return parse_json(path.read_bytes(), where=path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error


def parse_json(data: bytes, *, where: Path | str) -> Any:
    """Parse JSON bytes; `where` names their origin in errors.

    Raises:
        InputError: The bytes are not UTF-8 or not JSON.
    """
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 at byte {error.start}", where=where) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}", where=where
        ) from error
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"is not usable JSON: {error}", where=where) from error
    except RecursionError as error:
        raise InputError("is not usable JSON: nested too deeply", where=where) from error


def manifest_path(path: Path, *, folder: bool) -> Path:
    """Where the manifest of an artifact lies: in a folder, or beside a single file."""
    return path / MANIFEST if folder else path.with_name(f"{path.name}.{MANIFEST}")


def find_manifest(path: Path) -> Path | None:
    """The manifest of the artifact at `path`, or of the artifact that the file at `path` is in.

    A folder's manifest speaks for a file in it only where it names the file.
    """
    places = [manifest_path(path, folder=path.is_dir())]
    if path.is_symlink():  # what is written through a link lies, with its manifest, behind it
        places.append(manifest_path(path.resolve(), folder=path.is_dir()))
    around = path.parent / MANIFEST
    if not path.is_dir():
        told = read_manifest(around)
        if told is not None and path.name in told["identity"]["files"]:
            places.append(around)
    return next((place for place in places if place.is_file()), None)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in a file; None where the file is absent, or no manifest of ours.

    Other programs write files of this name, so what is inside is checked: every part of the type
    that `manifest` gives it, and the digest that of the identity.
    """
    if not path.is_file():
        return None
    with contextlib.suppress(KeyError, TypeError, ValueError):
        told = read_json(path)
        identity = told["identity"]
        kinds = {"kind": str, "config": dict, "parents": list, "files": dict, "puna": str}
        if (
            all(isinstance(identity[key], kind) for key, kind in kinds.items())
            and isinstance(told["measured"], dict)
            and told["digest"] == digest_json(identity)
        ):
            return dict(told)
    return None


def format_bytes(size: float) -> str:
    """A size for people: binary units, three digits or four."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def _temporary_name(path: Path) -> Path:
    token = secrets.token_hex(4)
    return path.parent / f".{path.name}.{token}.partial"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _disk_error(error: OSError, path: Path, temporary: Path) -> InputError:
    reason = error.strerror or str(error)
    named = Path(error.filename) if isinstance(error.filename, str | Path) else path
    if named != path and not named.is_relative_to(temporary):
        return InputError(
            f"{reason}, while {path} was being written", where=named, fix="nothing was left behind"
        )
    advice = {errno.ENOSPC: "free some space, or choose another disk"}
    return InputError(
        f"could not be written: {reason}",
        where=path,
        fix=advice.get(error.errno or 0, "choose a folder that you may write to")
        + "; nothing was left behind",
    )
