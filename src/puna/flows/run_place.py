"""The folder of a run: a workspace that a killed run is continued in, and nobody else's files."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.artifact import read_json, write_json, writing_file
from puna.errors import InputError
from puna.flows.products import PRODUCT, RUN_FILE
from puna.train.checkpoints import CHECKPOINTS
from puna.train.log import METRICS

BEFORE, AFTER = "before.json", "after.json"
SUMMARY, REPORT, TENSORBOARD = "summary.json", "report.html", "tensorboard"
OWN = (RUN_FILE, METRICS, CHECKPOINTS, BEFORE, AFTER, SUMMARY, REPORT, TENSORBOARD, PRODUCT)


@dataclass(frozen=True)
class RunPlace:
    """A folder that holds a run of ours."""

    path: Path
    identity: str
    finished: bool  # it was, when it was opened
    begun: bool  # by an earlier process

    def finish(self) -> None:
        """Note that all is done."""
        _note(self.path, self.identity, "finished")


def check_place(path: Path, *, force: bool) -> None:
    """Refuse, before any work, a folder that cannot become the place of a run.

    Raises:
        InputError: It holds something else, or the folder it would lie in does not exist.
    """
    if not path.parent.is_dir():
        raise InputError(
            f"the folder {path.parent} does not exist", where=path, fix=f"mkdir -p {path.parent}"
        )
    if path.exists() and not path.is_dir():
        raise InputError("is a file; a run is a folder", where=path, fix="choose another --out")
    if not path.exists() or not any(path.iterdir()):
        return
    foreign = [entry.name for entry in sorted(path.iterdir()) if not _is_own(entry)]
    if foreign and (force or not (path / RUN_FILE).is_file()):
        raise InputError(
            f"holds {foreign[0]}, which is not of a run", where=path, fix="choose another --out"
        )


def open_place(path: Path, identity: str, *, force: bool = False, resume: bool = False) -> RunPlace:
    """Begin a run in a folder, or go on with the one that is there.

    Args:
        path: The folder.
        identity: Of recipe, data and base: a run goes on with the same ones only.
        force: Remove the run that is there, and begin again.
        resume: There must be one to go on with.

    Raises:
        InputError: The folder holds another run or something else; or nothing to resume.
    """
    check_place(path, force=force)
    told: Any = read_json(path / RUN_FILE) if (path / RUN_FILE).is_file() else None
    if resume and told is None:
        raise InputError(
            "holds no run to go on with", where=path, fix="leave out --resume to begin one"
        )
    if told is not None and force:
        for name in OWN:
            _remove(path / name)
        told = None
    if told is None:
        _make(path)
        _note(path, identity, "running")
        return RunPlace(path, identity, finished=False, begun=False)
    if not isinstance(told, dict) or told.get("identity") != identity:
        raise InputError(
            "holds a run of another recipe, other data or another base",
            where=path,
            fix="choose another --out, or add --force to begin again in this one",
        )
    return RunPlace(path, identity, finished=told.get("state") == "finished", begun=True)


def _make(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"could not be made: {error.strerror}",
            where=path,
            fix="choose a folder that you may write to",
        ) from error


def _note(path: Path, identity: str, state: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with writing_file(path / RUN_FILE, force=True) as temporary:
        write_json(
            temporary, {"kind": "tuning run", "identity": identity, "state": state, "since": stamp}
        )


def _is_own(entry: Path) -> bool:
    partial = entry.name.startswith(".") and entry.name.endswith((".partial", ".old"))
    return entry.name in OWN or partial


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
