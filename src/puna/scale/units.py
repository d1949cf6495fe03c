"""Finished units of work on disk: each a folder, whole or absent, named by what it was made of.

A rerun, after whatever ended the run before, asks which units are there and makes the others. What
lies in a folder is checked against its manifest: what is damaged counts as missing, and is told.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.artifact import (
    MANIFEST,
    digest_file,
    digest_json,
    locked,
    manifest,
    read_manifest,
    write_json,
    writing_folder,
)
from puna.errors import InputError

_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")


def unit_key(inputs: Any, steps: Any) -> str:
    """What a unit is called: a digest of all that decides what comes out.

    Args:
        inputs: JSON: the files, by path, size and digest or time, and what parts of them.
        steps: JSON: the identities of the steps, in their order.
    """
    return digest_json({"inputs": inputs, "steps": steps})


@dataclass(frozen=True)
class Unit:
    """A finished unit."""

    folder: Path
    """Where its files lie."""
    manifest: Mapping[str, Any]
    """What it is and what it cost; see `puna.artifact.manifest`."""

    @property
    def identity(self) -> str:
        """The digest of its identity: the same files made by the same steps have the same."""
        digest: str = self.manifest["digest"]
        return digest


class UnitStore:
    """The units of a run, in a folder that holds nothing else. Several processes may use it.

    Args:
        folder: Made where it is missing, by the first unit that is written.
        kind: What a unit is, for its manifest.
        tell: Told of each damaged unit, in a sentence; None: the sentence is left out, and the
            unit is made again all the same.
    """

    def __init__(
        self, folder: Path, *, kind: str = "unit", tell: Callable[[str], None] | None = None
    ) -> None:
        self.folder, self.kind = folder, kind
        self._tell = tell

    def is_done(self, key: str) -> bool:
        """Whether a unit is there, whole; reads all of its files. A damaged one is told of."""
        damage = self.damage(key)
        if damage and self._tell is not None:
            self._tell(f"{self.place(key)} is damaged ({damage}): it is made again")
        return damage is None

    def damage(self, key: str) -> str | None:
        """What is wrong with a unit: None where nothing is, empty where it is not there."""
        place = self.place(key)
        if not place.is_dir():
            return ""
        told = read_manifest(place / MANIFEST)
        if told is None:
            return "its manifest is missing or cannot be read"
        identity = told["identity"]
        if identity["kind"] != self.kind or identity["config"].get("key") != key:
            return "its manifest is that of something else"
        return _file_damage(place, identity["files"])

    def reading(self, key: str) -> Unit:
        """A unit that is there; its files are not read.

        Raises:
            InputError: It is not there, or has no manifest.
        """
        place = self.place(key)
        told = read_manifest(place / MANIFEST)
        if told is None:
            raise InputError(
                "this unit is not there, or damaged",
                where=place,
                fix="run the same command again: it makes what is missing",
            )
        return Unit(place, told)

    @contextlib.contextmanager
    def writing(
        self,
        key: str,
        *,
        config: Mapping[str, Any] | None = None,
        parents: Iterable[str] = (),
        measured: Mapping[str, Any] | None = None,
    ) -> Iterator[Path]:
        """A folder for the files of a unit, which is there, whole, once the block succeeds.

        What was there before is replaced; where the block fails, it stays, unless it was damaged.

        Args:
            key: Of the unit.
            config: What else belongs to its identity.
            parents: Identities of what it was made from.
            measured: What it cost; the block may go on filling it.

        Raises:
            InputError: The disk refused the write (it is full, or read-only).
        """
        place = self.place(key)
        self._make_folder()
        if self.damage(key):
            _discard(place)
        with writing_folder(place, force=True) as folder:
            yield folder
            told = manifest(
                self.kind,
                config={**(config or {}), "key": key},
                parents=parents,
                files=dict(_digests(folder)),
                measured=measured or {},
            )
            write_json(folder / MANIFEST, told)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys whose unit is to be made, in their order."""
        return [key for key in keys if not self.is_done(key)]

    def written(self) -> list[str]:
        """Of all units that have a manifest, sorted; their files are not read."""
        if not self.folder.is_dir():
            return []
        names = (place.name for place in self.folder.iterdir() if (place / MANIFEST).is_file())
        return sorted(name for name in names if _KEY.fullmatch(name))

    def sweep(self) -> None:
        """Remove what killed writers of any unit left; those at work are left alone."""
        for left in sorted(self.folder.glob(".*.partial")):
            with contextlib.suppress(OSError), locked(left) as held:
                if held:
                    shutil.rmtree(left, ignore_errors=True)

    def place(self, key: str) -> Path:
        """Where a unit lies, or will lie."""
        assert _KEY.fullmatch(key), f"{key!r} cannot be the name of a folder"
        return self.folder / key

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"could not be made: {error.strerror}",
                where=self.folder,
                fix="choose a folder that you may write to",
            ) from error


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield file.relative_to(folder).as_posix(), digest_file(file)


def _file_damage(place: Path, files: Mapping[str, str]) -> str | None:
    for name, digest in files.items():
        try:
            found = digest_file(place / name)
        except OSError as error:
            return f"{name}: {error.strerror}"
        if found != digest:
            return f"{name} is not what was written"
    there = {file.relative_to(place).as_posix() for file in place.rglob("*") if file.is_file()}
    foreign = there - files.keys() - {MANIFEST}
    return f"{min(foreign)} does not belong to it" if foreign else None


def _discard(place: Path) -> None:
    """Remove a damaged unit, its manifest first: what is left after a kill looks damaged too."""
    try:
        (place / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(place)
    except OSError as error:
        raise InputError(f"cannot be removed: {error.strerror}", where=place) from error
