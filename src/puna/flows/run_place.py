"""The folder of a run: a workspace that a killed run is continued in, and nobody else's files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.artifact import (
    MANIFEST,
    locked,
    read_json,
    read_manifest,
    write_json,
    writing_file,
)
from puna.errors import InputError
from puna.flows.products import PRODUCT, RUN_FILE
from puna.train.checkpoints import CHECKPOINTS
from puna.train.log import METRICS

BEFORE, AFTER = "before.json", "after.json"
SUMMARY, REPORT, TENSORBOARD = "summary.json", "report.html", "tensorboard"
SAMPLES = "samples.jsonl"
REMOVING = "removing"
TUNING, PRETRAINING = "tuning run", "pretraining run"  # kinds of run
OWN = (
    RUN_FILE,
    METRICS,
    CHECKPOINTS,
    BEFORE,
    AFTER,
    SAMPLES,
    SUMMARY,
    REPORT,
    TENSORBOARD,
    PRODUCT,
)


@dataclass(frozen=True)
class RunPlace:
    """A folder that holds a run of ours."""

    path: Path
    identity: str
    finished: bool  # it was, when it was opened
    begun: bool  # by an earlier process
    kind: str = TUNING

    def finish(self) -> None:
        """Note that all is done."""
        _note(self.path, self.identity, "finished", self.kind)


def check_place(path: Path, *, force: bool = False, resume: bool = False) -> None:
    """Refuse, before any work, a folder that cannot become the place of a run.

    Args:
        path: The folder.
        force: A run that is there is to be removed.
        resume: A run that is there is to be gone on with.

    Raises:
        InputError: It holds something else, the folder it would lie in does not exist, or there is
            no run to resume.
    """
    if force and resume:
        raise InputError("--force begins again, and --resume goes on", fix="keep one of them")
    if not path.parent.is_dir():
        raise InputError(
            f"the folder {path.parent} does not exist", where=path, fix=f"mkdir -p {path.parent}"
        )
    if path.exists() and not path.is_dir():
        raise InputError("is a file; a run is a folder", where=path, fix="choose another --out")
    is_run = (path / RUN_FILE).is_file()
    if resume and not is_run:
        raise InputError(
            "holds no run to go on with", where=path, fix="leave out --resume to begin one"
        )
    foreign = _foreign(path, is_run=is_run)
    if foreign is not None and (force or not is_run):
        raise InputError(
            f"holds {foreign}, which is not of a run", where=path, fix="choose another --out"
        )


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Make the folder of a run where there is none, and keep other processes out of it.

    Raises:
        InputError: It cannot be made, or another process is at work there.
    """
    _make(path)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except BlockingIOError as error:
            raise InputError(
                "is in use: another process is at work on this run",
                where=path,
                fix="wait for it, stop it, or choose another --out",
            ) from error
        yield


def open_place(
    path: Path,
    identity: str,
    *,
    force: bool = False,
    resume: bool = False,
    kind: str = TUNING,
) -> RunPlace:
    """Begin a run in a folder, or go on with the one that is there.

    A run that has nothing to lose yet makes room for another.

    Args:
        path: The folder.
        identity: Of recipe, data and base: a run goes on with the same ones only.
        force: Remove the run that is there, and begin again.
        resume: There must be one to go on with.
        kind: What the run is.

    Raises:
        InputError: The folder holds another run or something else; or nothing to resume.
    """
    check_place(path, force=force, resume=resume)
    told = _told(path, force=force)
    state = told.get("state")
    same = told.get("identity") == identity
    empty = not any((path / name).exists() for name in OWN if name != RUN_FILE)
    if force or state == REMOVING or (empty and not same):
        _clear(path, identity, kind)
        told = {}
    if not told:
        _make(path)
        _note(path, identity, "running", kind)
        return RunPlace(path, identity, finished=False, begun=False, kind=kind)
    if not same:
        raise InputError(
            "holds a run of another recipe, other data or another base",
            where=path,
            fix="choose another --out, or add --force to begin again in this one",
        )
    whole = all((path / name).exists() for name in (PRODUCT, SUMMARY, REPORT))
    finished = state == "finished" and whole
    return RunPlace(path, identity, finished=finished, begun=True, kind=kind)


def _told(path: Path, *, force: bool) -> dict[str, Any]:
    """What the note of a run says; empty where there is none, or none that matters any more."""
    place = path / RUN_FILE
    if not place.is_file():
        return {}
    try:
        told = read_json(place)
    except InputError as error:
        if force:
            return {}
        raise InputError(error.what, where=place, fix="begin again with --force") from error
    return told if isinstance(told, dict) else {"state": "unknown"}


def _clear(path: Path, identity: str, kind: str) -> None:
    """Remove a run; one that is killed at this is not taken for a run to go on with."""
    if not (path / RUN_FILE).is_file():
        return
    _note(path, identity, REMOVING, kind)
    for name in (*(name for name in OWN if name != RUN_FILE), RUN_FILE):
        _remove(path / name)


def _make(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"could not be made: {error.strerror}",
            where=path,
            fix="choose a folder that you may write to",
        ) from error


def _note(path: Path, identity: str, state: str, kind: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    told = {"kind": kind, "identity": identity, "state": state, "since": stamp}
    with writing_file(path / RUN_FILE, force=True) as temporary:
        write_json(temporary, told)


def _foreign(path: Path, *, is_run: bool) -> str | None:
    """The first entry of a folder that no run of ours put there."""
    entries = sorted(path.iterdir()) if path.is_dir() else []
    for entry in entries:
        partial = entry.name.startswith(".") and entry.name.endswith((".partial", ".old"))
        if not partial and (entry.name not in OWN or not is_run):
            return entry.name
    if is_run and (path / PRODUCT).is_dir():
        with_manifest = {*_files_of(path / PRODUCT), MANIFEST}
        names = sorted(entry.name for entry in (path / PRODUCT).iterdir())
        return next((f"{PRODUCT}/{n}" for n in names if n not in with_manifest), None)
    return None


def _files_of(product: Path) -> set[str]:
    told = read_manifest(product / MANIFEST)
    return set() if told is None else {Path(name).parts[0] for name in told["identity"]["files"]}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
