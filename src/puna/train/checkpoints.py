"""Checkpoints of a run: `checkpoints/step-N`, each whole or absent, each proved when read.

A checkpoint holds what learns, the optimizer, the random states of every rank and the position in
the data, as safetensors and JSON. `state.json` carries a digest of itself and of every tensor, so
that damage is found before anything is put back. Where a model is spread over ranks, each has
written its rows; any number of ranks can read them. `puna.train.keeping` writes checkpoints.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from puna.artifact import digest_json, read_json, write_json
from puna.errors import InputError
from puna.scale.pieces import Piece, local, piece
from puna.scale.world import World
from puna.train.checkpoint_pieces import OPTIMIZER, TRAINED, Listing, Stored, read_parts
from puna.train.ranks import gather, together

CHECKPOINTS = "checkpoints"
STATE = "state.json"
_VERSION = 2


@dataclass(frozen=True)
class Saved:
    """A checkpoint whose every byte has been checked."""

    path: Path
    step: int
    state: Mapping[str, Any]
    """What it was given beside tensors."""
    trained: Stored
    """By name; views of the files where they can be: copy, do not write."""
    optimizer: Stored
    """The same."""


def write_state(folder: Path, step: int, state: Mapping[str, Any], files: Listing) -> None:
    """Write what makes a folder of tensors a checkpoint.

    Args:
        folder: Where the tensors lie.
        step: Optimizer steps done.
        state: Plain data.
        files: What the ranks have written.

    Raises:
        OSError: The disk refused.
    """
    content = {"version": _VERSION, "step": step, "run": dict(state), "files": files}
    write_json(folder / STATE, {"content": content, "digest": digest_json(content)})


def load(path: Path, world: World | None = None) -> Saved:
    """Read a checkpoint and check all of it.

    Args:
        path: Its folder.
        world: Ranks that all read it at once, and check a part each; by default this process
            checks all.

    Raises:
        InputError: Something is missing, cut short or changed; then on every rank.
    """
    if world is None:
        return _load(path, 0, 1)
    with together(world):
        return _load(path, world.rank, world.size)


def _load(path: Path, rank: int, ranks: int) -> Saved:
    told = read_json(path / STATE)
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, dict) or told.get("digest") != digest_json(content):
        raise InputError("is not as it was written", where=path / STATE)
    files = _files(content)
    if files is None:
        raise InputError(
            f"has the version {content['version']!r}, expected {_VERSION}",
            where=path / STATE,
            fix="go on with the version of puna that began the run",
        )
    stored = {kind: read_parts(path, files[kind], rank, ranks) for kind in (TRAINED, OPTIMIZER)}
    return Saved(path, content["step"], content["run"], stored[TRAINED], stored[OPTIMIZER])


def _files(content: Mapping[str, Any]) -> Listing | None:
    """The listing of a checkpoint, also of the first version; None for a later one."""
    if content["version"] == _VERSION:
        files: Listing = content["files"]
        return files
    if content["version"] != 1:
        return None
    return {
        kind: {name: {tensor: {"sha256": digest} for tensor, digest in tensors.items()}}
        for kind in (TRAINED, OPTIMIZER)
        for name, tensors in content["tensors"].items()
        if name == f"{kind}.safetensors"
    }


def load_step(workspace: Path, step: int, world: World | None = None) -> Saved:
    """The same of a step of a run.

    Raises:
        InputError: As `load`.
    """
    return load(_place(workspace, step), world)


def newest(
    workspace: Path, up_to: int | None = None, world: World | None = None
) -> tuple[Saved | None, list[InputError]]:
    """The newest checkpoint that is whole, and what is wrong with those after it.

    Args:
        workspace: The folder of the run.
        up_to: Look at those of later steps not at all.
        world: As for `load`; every rank finds the same.

    Raises:
        InputError: There are checkpoints, and none of them is whole.
    """
    faults: list[InputError] = []
    steps = [_step_of(path) for path in _folders(workspace)]
    if world is not None:
        steps = gather(world, steps)[0]  # one rank's look at the folder counts
    for path in [_place(workspace, step) for step in steps if up_to is None or step <= up_to]:
        try:
            return load(path, world), faults
        except InputError as error:
            faults.append(error)
    if faults:
        raise InputError(
            f"no checkpoint can be read; the newest: {faults[0].what}",
            where=faults[0].where,
            fix=f"remove {workspace / CHECKPOINTS} to begin again",
        )
    return None, faults


def drop_after(workspace: Path, step: int) -> None:
    """Remove checkpoints after a step: `newest` found them damaged, and the run goes by anew.

    Raises:
        InputError: One cannot be removed; it would stand in the place of the one to come.
    """
    for path in _folders(workspace):
        if _step_of(path) > step:
            shutil.rmtree(path, ignore_errors=True)
            if path.exists():
                raise InputError(
                    "is damaged, and could not be removed",
                    where=path,
                    fix=f"remove it yourself; the run goes on from step {step}",
                )


def prune(workspace: Path, keep: int, best: int | None) -> None:
    """Remove all but the newest `keep` checkpoints and that of the step `best`."""
    for path in _folders(workspace)[keep:]:
        if _step_of(path) != best:
            shutil.rmtree(path, ignore_errors=True)


def exists(workspace: Path, step: int) -> bool:
    """Whether there is a checkpoint of a step."""
    return _place(workspace, step).is_dir()


def place_for(workspace: Path, step: int) -> Path:
    """Where the checkpoint of a step is to be written; makes the folder that it lies in.

    Raises:
        InputError: That folder cannot be made.
    """
    path = _place(workspace, step)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"could not be made: {error.strerror}",
            where=path.parent,
            fix="choose a folder that you may write to",
        ) from error
    return path


def with_what_is_left(error: InputError, workspace: Path) -> InputError:
    """The same error, with where the run can go on from."""
    left = _folders(workspace)
    kept = f"{left[0].name} is whole: the run goes on from there" if left else "no step is kept yet"
    fix = f"{error.fix}; {kept}" if error.fix else kept
    return InputError(error.what, where=error.where, fix=fix)


def load_trained(workspace: Path, step: int, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put what a checkpoint has learnt into parameters: the best ones of a run, say.

    A model that is spread over ranks must not have gathered its weights since its last step; after
    `fit` it has not.

    Raises:
        InputError: There is no such checkpoint, it is damaged, or it is of other parameters.
    """
    put(load_step(workspace, step), parameters)


def put(
    saved: Saved, parameters: Mapping[str, Tensor], places: Mapping[str, Piece] | None = None
) -> None:
    """Copy the trained tensors of a checkpoint into parameters of the same names and shapes.

    Args:
        saved: The checkpoint.
        parameters: Whole, or spread over ranks.
        places: Where plain parameters lie that are this rank's part of larger ones.

    Raises:
        InputError: It is of other parameters; none has been changed.
    """
    trained, where = saved.trained, saved.path
    for name in sorted(trained.keys() ^ parameters.keys()):
        whose = "the checkpoint" if name in trained else "the run"
        raise InputError(f"only {whose} has the parameter {name!r}", where=where)
    if places is None:
        places = {name: piece(parameter) for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        shape, dtype = trained.shape(name), trained.dtype(name)
        if shape != places[name].shape or dtype != parameter.dtype:
            raise InputError(
                f"tensor {name!r}: expected {list(places[name].shape)} of {parameter.dtype}, "
                f"found {list(shape)} of {dtype}",
                where=where,
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            local(parameter).copy_(trained.at(name, places[name]))


def own_state(saved: Saved, places: Mapping[str, Piece]) -> dict[str, Tensor]:
    """What an optimizer on this rank had: `NAME/FIELD`, each as far as its tensor lies here."""
    found = {}
    for key in saved.optimizer:
        place = places.get(key.rpartition("/")[0])
        split = place is not None and saved.optimizer.shape(key) == place.shape
        found[key] = saved.optimizer.at(key, place) if split and place else saved.optimizer[key]
    return found


def _place(workspace: Path, step: int) -> Path:
    return workspace / CHECKPOINTS / f"step-{step}"


def _folders(workspace: Path) -> list[Path]:
    """Newest first."""
    found: Iterable[Path] = (workspace / CHECKPOINTS).glob("step-*")
    named = [path for path in found if re.fullmatch(r"step-\d+", path.name)]
    return sorted(named, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
