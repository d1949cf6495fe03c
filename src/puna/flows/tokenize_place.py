"""Where shards come into being: a workspace beside their folder, published as a whole at the end.

A run that is killed leaves its workspace, and the same command goes on in it. Nothing stands at the
place itself before all of it does.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.artifact import (
    MANIFEST,
    digest_file,
    locked,
    manifest,
    read_json,
    write_json,
    writing_file,
    writing_folder,
)
from puna.config import to_dict
from puna.errors import InputError
from puna.flows.workspace import ASKED, holding_workspace, workspace_path
from puna.tokens.shard_file import SPLITS, ShardFile
from puna.tokens.shard_index import INDEX, KIND, ShardIndex, ToldFile
from puna.tokens.shard_writer import shard_files

DOING = "tokenizing"
STATE = "state.json"
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Workspace:
    """The folder in which a run works."""

    path: Path
    begun: bool  # by an earlier process

    @property
    def plan(self) -> Path:
        """What becomes of each document."""
        return self.path / "plan"

    @property
    def vocabulary(self) -> Path:
        """The files of the tokenizer."""
        return self.path / "vocabulary"

    def source(self, name: str) -> Path:
        """The shards of a source; the folder is made where there is none."""
        folder = self.path / "shards" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"could not be made: {error.strerror}", where=folder) from error
        return folder

    def has_work(self) -> bool:
        """Whether there is anything that took long; to read the documents again does not."""
        return self.vocabulary.is_dir()

    def remove(self) -> None:
        """Remove all of it. What is left by one that is killed at this is begun anew."""
        (self.path / STATE).unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


@contextmanager
def open_workspace(out: Path, asked: str, *, force: bool) -> Iterator[Workspace]:
    """Begin a workspace, or go on in the one that is there; nobody else may meanwhile.

    Args:
        out: The folder that is to be made.
        asked: A digest of recipe, files and vocabulary; work goes on for the same only.
        force: Remove the work that is there, and begin again.

    Raises:
        InputError: There is the work of another recipe or of other files, another process is at
            work, or the folder cannot be made.
    """
    with holding_workspace(out, DOING) as path:
        try:
            yield Workspace(path, _begin(path, out, asked, force=force))
        except BaseException:
            left = Workspace(path, begun=True)
            if not left.has_work():
                left.remove()
            raise


def sweep_workspace(out: Path) -> None:
    """Remove what was left by a run that was killed after it had published."""
    path = workspace_path(out, DOING)
    with suppress(OSError), locked(path) as held:
        if held:
            Workspace(path, begun=True).remove()


def told_files(folder: Path, name: str) -> tuple[ToldFile, ...]:
    """What the index says of the files of a source; all of it is read from the disk.

    Args:
        folder: Of the source.
        name: Of the source.

    Raises:
        InputError: A file is damaged.
    """
    return tuple(_told_file(file, name) for split in SPLITS for file in shard_files(folder, split))


def publish(
    workspace: Workspace,
    out: Path,
    index: ShardIndex,
    *,
    config: Mapping[str, Any],
    parents: Sequence[str],
    measured: Mapping[str, Any],
    force: bool,
) -> None:
    """Put everything in its place: whole or absent. The workspace is gone afterwards.

    Args:
        workspace: Where the shards and the vocabulary are.
        out: The folder to make.
        index: What shards.json is to say.
        config: What was asked for; part of the identity.
        parents: Identities of what the documents are from.
        measured: What it cost.
        force: Replace shards that are there.

    Raises:
        InputError: The place is taken, or the disk refused the write.
    """
    digests: dict[str, str] = {}
    with writing_folder(out, force=force) as folder:
        for source in index.sources:
            (folder / source.name).mkdir()
            for file in source.files:
                _link(workspace.path / "shards" / file.name, folder / file.name)
                digests[file.name] = file.sha256
        for path in sorted(workspace.vocabulary.iterdir()):
            shutil.copyfile(path, folder / path.name)
            digests[path.name] = digest_file(path)
        write_json(folder / INDEX, to_dict(index))
        digests[INDEX] = digest_file(folder / INDEX)
        vocabulary = f"vocabulary {index.vocabulary.identity}"
        told = manifest(
            KIND,
            config=config,
            parents=[*parents, vocabulary],
            files=digests,
            measured=measured,
        )
        write_json(folder / MANIFEST, told)
    workspace.remove()


def _begin(path: Path, out: Path, asked: str, *, force: bool) -> bool:
    """Whether there is work to go on with; makes a note of what the work is."""
    told = _told(path)
    if told == asked and not force:
        return True
    if told is not None and not force and Workspace(path, begun=True).has_work():
        raise InputError(
            f"was begun in {path.name} with another recipe, other files or another vocabulary",
            where=out,
            fix="choose another --out, or add --force to begin again in this one",
        )
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    with writing_file(path / STATE) as temporary:
        write_json(temporary, {"kind": DOING, ASKED: asked})
    return False


def _told(path: Path) -> str | None:
    """What the work in a folder is; None where nobody has noted it yet, or any more."""
    if not (path / STATE).is_file():
        return None
    told = read_json(path / STATE)
    return str(told.get(ASKED)) if isinstance(told, dict) else ""


def _told_file(file: ShardFile, source: str) -> ToldFile:
    return ToldFile(
        name=f"{source}/{file.path.name}",
        split=file.label.split,
        tokens=file.tokens,
        documents=file.documents,
        text_bytes=int(file.map().text_bytes.sum()),
        sha256=digest_file(file.path),
    )


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where a file system has no such thing."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)
