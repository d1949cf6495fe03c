"""Tunings on disk: what changed, and which base it belongs to. Safetensors and JSON, no pickle.

A folder holds `tuning.json` (the method and the base) and one file of tensors. For LoRA and DoRA
these are PEFT's two files, which PEFT, transformers and vLLM read as they are; a folder that PEFT
wrote alone is read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from puna.artifact import read_json, write_json
from puna.config import from_dict, to_dict
from puna.errors import InputError
from puna.model import LlamaModel
from puna.store import LazyTensor, check_finite
from puna.store.safetensors import read_safetensors
from puna.store.safetensors_writer import write_shard
from puna.tune.method import FullConfig, LowRankConfig, MethodConfig, method_config
from puna.tune.peft_files import (
    PEFT_CONFIG,
    PEFT_TENSORS,
    check_ranks,
    from_peft,
    peft_base_name,
    peft_contradiction,
    to_peft,
)
from puna.tune.surgery import Tuned, attach

TUNING_FILE = "tuning.json"
VERSION = 1


@dataclass(frozen=True)
class BaseReference:
    """The model that a tuning belongs to."""

    name: str
    """As the user named it."""
    identity: str | None = None
    """Digest over its tensors (`puna.artifact.model_identity`); null where nobody noted it."""
    trunk_identity: str | None = None
    """The same over the part below the first changed block."""


@dataclass(frozen=True)
class SavedTuning:
    """A tuning on disk, opened; its tensors are not read yet."""

    folder: Path
    config: MethodConfig
    base: BaseReference
    tensors: Path  # the safetensors file


@dataclass(frozen=True)
class _Note:
    """The content of tuning.json."""

    version: int
    method: dict[str, Any]
    base: BaseReference


def save_tuned(folder: Path, tuned: Tuned, *, base: BaseReference) -> None:
    """Write a tuning into an existing folder, for the caller to rename when it is complete.

    Args:
        folder: Of the files; `artifact.writing_folder` gives one.
        tuned: Any method but `full`, whose product is a checkpoint.
        base: What it was trained on.

    Raises:
        InputError: The method is `full`, or a value is not finite.
    """
    config = tuned.config
    if isinstance(config, FullConfig):
        raise InputError("a fully tuned model is written as a checkpoint, not as a tuning")
    tensors = [_lazy(name, tensor) for name, tensor in tuned.tensors().items()]
    write_shard(folder / _tensors_name(config), tensors)
    note = _Note(VERSION, to_dict(config), base)
    write_json(folder / TUNING_FILE, {"kind": "tuning", **asdict(note)})
    if isinstance(config, LowRankConfig):
        paths = [place.path for place in tuned.places]
        layers = len(tuned.model.model.layers)
        write_json(folder / PEFT_CONFIG, to_peft(config, paths, layers, base.name))


def read_tuned(folder: Path) -> SavedTuning:
    """Open a tuning: ours, or LoRA or DoRA by PEFT.

    Raises:
        InputError: The folder holds none, its files contradict one another, or PEFT's options are
            among those that are not supported (the message names the key).
    """
    if (folder / TUNING_FILE).is_file():
        return _read_own(folder)
    if not (folder / PEFT_CONFIG).is_file():
        raise InputError(
            f"is no tuning: neither {TUNING_FILE} nor {PEFT_CONFIG} is there", where=folder
        )
    tensors = folder / PEFT_TENSORS
    if not tensors.is_file() and (folder / "adapter_model.bin").is_file():
        raise InputError(
            "adapter_model.bin is a pickle, which can run code; it is not read",
            where=folder,
            fix="save it again by peft's save_pretrained, which writes safetensors",
        )
    data, where = read_json(folder / PEFT_CONFIG), folder / PEFT_CONFIG
    config = from_peft(data, read_safetensors(tensors), where)
    return SavedTuning(folder, config, BaseReference(peft_base_name(data)), tensors)


def load_tuned(
    model: LlamaModel, folder: Path, *, name: str = "default", check_identity: str | None
) -> Tuned:
    """Attach a saved tuning to its base.

    Args:
        model: The base.
        folder: As `save_tuned` or PEFT wrote it.
        name: To switch by.
        check_identity: The identity of `model`; a tuning that names another is refused. None
            checks nothing.

    Raises:
        InputError: See `read_tuned`; or the tuning belongs to another base, or a tensor is
            missing, unknown, of another shape or not finite. The model is as it was then.
    """
    saved = read_tuned(folder)
    named = saved.base.identity
    if check_identity is not None and named is not None and named != check_identity:
        raise InputError(
            f"was tuned on {saved.base.name!r} with the identity {named[:12]}; "
            f"this model has {check_identity[:12]}",
            where=folder,
            fix="load the base that it names",
        )
    tensors = _read_tensors(saved.tensors)
    try:
        tuned = attach(model, saved.config, name=name)
        try:
            tuned.load(tensors)
        except BaseException:
            tuned.detach()
            raise
    except InputError as error:
        raise InputError(error.what, where=saved.tensors, fix=error.fix) from error
    return tuned


def _read_own(folder: Path) -> SavedTuning:
    where = folder / TUNING_FILE
    data = read_json(where)
    if not isinstance(data, Mapping) or data.get("kind") != "tuning":
        raise InputError("does not describe a tuning", where=where)
    if data.get("version") != VERSION:
        raise InputError(
            f"has the version {data.get('version')!r}; this program reads {VERSION}",
            where=where,
            fix="use the program that wrote it, or a newer one",
        )
    rest = {key: value for key, value in data.items() if key != "kind"}
    note = from_dict(_Note, rest, str(where))
    config = method_config(note.method, str(where))
    if isinstance(config, FullConfig):
        raise InputError("a fully tuned model is a checkpoint, not a tuning", where=where)
    tensors = folder / _tensors_name(config)
    if isinstance(config, LowRankConfig):
        check_ranks(config, read_safetensors(tensors), tensors)
        if (folder / PEFT_CONFIG).is_file():
            other = read_json(folder / PEFT_CONFIG)
            key = peft_contradiction(config, other)
            if key is not None:
                raise InputError(
                    f"contradicts {TUNING_FILE} beside it about {key!r}",
                    where=folder / PEFT_CONFIG,
                    fix=f"remove {TUNING_FILE} if PEFT's file is the right one",
                )
    return SavedTuning(folder, config, note.base, tensors)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    tensors = {}
    for name, lazy in read_safetensors(path).items():
        values = lazy.load()
        if values.is_floating_point():
            check_finite(name, values, path)
        tensors[name] = values
    return tensors


def _tensors_name(config: MethodConfig) -> str:
    if isinstance(config, LowRankConfig):
        return PEFT_TENSORS
    return {"top_layers": "top.safetensors", "adapter": "adapter.safetensors"}[config.method]


def _lazy(name: str, tensor: Tensor) -> LazyTensor:
    values = tensor.cpu().contiguous()
    return LazyTensor(name, tuple(values.shape), values.dtype, "", lambda: values)
