"""Checkpoints of a run: `checkpoints/step-N`, each whole or absent, each proved when read.

A checkpoint holds what learns, the optimizer, the random states of every rank and the position in
the data, as safetensors and JSON. `state.json` carries a digest of itself and of every tensor, so
that damage is found before anything is put back.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from puna.artifact import digest_json, read_json, write_json, writing_folder
from puna.errors import InputError
from puna.store.checkpoint import LazyTensor
from puna.store.safetensors import read_safetensors
from puna.store.safetensors_writer import write_shard
from puna.store.values import digest_lazy

CHECKPOINTS = "checkpoints"
TRAINED, OPTIMIZER, STATE = "trained.safetensors", "optimizer.safetensors", "state.json"
_VERSION = 1


@dataclass(frozen=True)
class Saved:
    """A checkpoint whose every byte has been checked."""

    path: Path
    step: int
    state: Mapping[str, Any]
    """What `save` was given."""
    trained: Mapping[str, Tensor]
    """Views of the file: copy, do not write."""
    optimizer: Mapping[str, Tensor]
    """Views of the file: copy, do not write."""


def save(
    workspace: Path,
    step: int,
    state: Mapping[str, Any],
    *,
    trained: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
) -> Path:
    """Write the checkpoint of a step, whole or not at all.

    Args:
        workspace: The folder of the run.
        step: Optimizer steps done.
        state: Plain data.
        trained: What learns, by name.
        optimizer: Its state.

    Raises:
        InputError: The disk refused, or a value is not finite. Older checkpoints are as they were.
    """
    path = workspace / CHECKPOINTS / f"step-{step}"
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"could not be made: {error.strerror}",
            where=path.parent,
            fix="choose a folder that you may write to",
        ) from error
    try:
        with writing_folder(path) as folder:
            digests = {}
            for name, tensors in ((TRAINED, trained), (OPTIMIZER, optimizer)):
                rows = write_shard(folder / name, [_described(*item) for item in tensors.items()])
                digests[name] = {row.name: row.sha256 for row in rows}
            content = {"version": _VERSION, "step": step, "run": dict(state), "tensors": digests}
            write_json(folder / STATE, {"content": content, "digest": digest_json(content)})
    except InputError as error:
        raise _with_what_is_left(error, workspace) from error
    return path


def _with_what_is_left(error: InputError, workspace: Path) -> InputError:
    """The same error, with where the run can go on from."""
    left = _folders(workspace)
    kept = f"{left[0].name} is whole: the run goes on from there" if left else "no step is kept yet"
    fix = f"{error.fix}; {kept}" if error.fix else kept
    return InputError(error.what, where=error.where, fix=fix)


def load(path: Path) -> Saved:
    """Read a checkpoint and check all of it.

    Raises:
        InputError: Something is missing, cut short or changed.
    """
    told = read_json(path / STATE)
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, dict) or told.get("digest") != digest_json(content):
        raise InputError("is not as it was written", where=path / STATE)
    if content["version"] != _VERSION:
        raise InputError(
            f"has the version {content['version']!r}, expected {_VERSION}",
            where=path / STATE,
            fix="go on with the version of puna that began the run",
        )
    tensors = {name: _read(path / name, content["tensors"][name]) for name in (TRAINED, OPTIMIZER)}
    return Saved(path, content["step"], content["run"], tensors[TRAINED], tensors[OPTIMIZER])


def load_step(workspace: Path, step: int) -> Saved:
    """The same of a step of a run.

    Raises:
        InputError: As `load`.
    """
    return load(workspace / CHECKPOINTS / f"step-{step}")


def newest(workspace: Path) -> tuple[Saved | None, list[InputError]]:
    """The newest checkpoint that is whole, and what is wrong with those after it.

    Raises:
        InputError: There are checkpoints, and none of them is whole.
    """
    faults: list[InputError] = []
    for path in _folders(workspace):
        try:
            return load(path), faults
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
    """Remove checkpoints after a step: `newest` found them damaged, and the run goes by anew."""
    for path in _folders(workspace):
        if _step_of(path) > step:
            shutil.rmtree(path, ignore_errors=True)


def prune(workspace: Path, keep: int, best: int | None) -> None:
    """Remove all but the newest `keep` checkpoints and that of the step `best`."""
    for path in _folders(workspace)[keep:]:
        if _step_of(path) != best:
            shutil.rmtree(path, ignore_errors=True)


def exists(workspace: Path, step: int) -> bool:
    """Whether there is a checkpoint of a step."""
    return (workspace / CHECKPOINTS / f"step-{step}").is_dir()


def load_trained(workspace: Path, step: int, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put what a checkpoint has learnt into parameters: the best ones of a run, say.

    Raises:
        InputError: There is no such checkpoint, it is damaged, or it is of other parameters.
    """
    put(load_step(workspace, step), parameters)


def put(saved: Saved, parameters: Mapping[str, nn.Parameter]) -> None:
    """Copy the trained tensors of a checkpoint into parameters of the same names and shapes.

    Raises:
        InputError: It is of other parameters; none has been changed.
    """
    where = saved.path / TRAINED
    for name in sorted(saved.trained.keys() ^ parameters.keys()):
        whose = "the checkpoint" if name in saved.trained else "the run"
        raise InputError(f"only {whose} has the parameter {name!r}", where=where)
    for name, parameter in parameters.items():
        found = saved.trained[name]
        if found.shape != parameter.shape or found.dtype != parameter.dtype:
            raise InputError(
                f"tensor {name!r}: expected {list(parameter.shape)} of {parameter.dtype}, "
                f"found {list(found.shape)} of {found.dtype}",
                where=where,
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved.trained[name])


def _folders(workspace: Path) -> list[Path]:
    """Newest first."""
    found: Iterable[Path] = (workspace / CHECKPOINTS).glob("step-*")
    named = [path for path in found if re.fullmatch(r"step-\d+", path.name)]
    return sorted(named, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _described(name: str, tensor: Tensor) -> LazyTensor:
    load = partial(_on_cpu, tensor)
    return LazyTensor(name, tuple(tensor.shape), tensor.dtype, str(tensor.dtype), load)


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


def _read(path: Path, digests: Mapping[str, str]) -> dict[str, Tensor]:
    lazy = read_safetensors(path)
    if lazy.keys() != digests.keys():
        raise InputError("holds other tensors than were written", where=path)
    for name, tensor in lazy.items():
        if digest_lazy(tensor).sha256 != digests[name]:
            raise InputError(f"tensor {name!r} is not as it was written", where=path)
    return {name: tensor.load() for name, tensor in lazy.items()}
