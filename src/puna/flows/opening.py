"""From a checkpoint on disk to a model and its tokenizer, ready for use."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.artifact import digest_file, digest_json
from puna.config import to_dict
from puna.errors import InputError
from puna.flows.identity import checkpoint_identity
from puna.flows.products import Asking, checkpoint_asking, find_product, is_tuning, read_asking
from puna.model import LlamaConfig, LlamaModel, build
from puna.scale.prepare import compute_dtype, default_device
from puna.store import Checkpoint, check_finite, open_checkpoint
from puna.store.locate import locate
from puna.tokens import Tokenizer, open_tokenizer
from puna.tune import attached, load_tuned, read_tuned
from puna.tune.files import SavedTuning
from puna.tune.peft_files import PEFT_CONFIG

THREADS_PER_CORE = 4  # more can only be a mistake
MAX_STACKED = 8  # tunings on tunings; more can only be a circle


@dataclass(frozen=True)
class Opened:
    """A model in memory, and where it came from."""

    name: str
    checkpoint: Checkpoint
    """Of the base, where the model is a tuning."""
    model: LlamaModel
    tokenizer: Tokenizer
    seconds: float  # from the name to a ready model
    tunings: tuple[Path, ...] = ()
    """The folders of what was put on the base, in that order."""
    asking: Asking | None = None
    """How it was taught to be asked; None for a model that brings no such file."""

    @cached_property
    def identity(self) -> str:
        """The digest over all values; of a tuning, over those of the base and its own.

        Raises:
            InputError: A file is damaged.
        """
        base = checkpoint_identity(self.checkpoint)
        if not self.tunings:
            return base
        own = [_tuning_identity(read_tuned(folder)) for folder in self.tunings]
        return digest_json({"base": base, "tunings": own})


def open_model(
    name: str, *, device: torch.device, dtype: torch.dtype | None, stacked: int = 0
) -> Opened:
    """Load a model by name or path: a checkpoint, or a run, or a tuning with its base.

    A tuning that can be merged is, so that it runs as fast as its base does.

    Args:
        name: See `puna.store.locate`; or the folder of a run or a tuning.
        device: Where it goes.
        dtype: Of the parameters; the file's own when None (float32 for quantized files).
        stacked: How many tunings stand on this one.

    Raises:
        InputError: There is no such model, or it is damaged.
    """
    start = time.perf_counter()
    path = find_product(locate(name).path)
    if is_tuning(path):
        return _open_tuning(name, path, device, dtype, stacked)
    checkpoint = open_checkpoint(path)
    config = read_config(checkpoint)
    tokenizer = checkpoint_tokenizer(checkpoint, config)
    model = build(config, finite_tensors(checkpoint), dtype=dtype, device=device)
    seconds = time.perf_counter() - start
    asking = checkpoint_asking(checkpoint)
    return Opened(name, checkpoint, model, tokenizer, seconds, asking=asking)


def _open_tuning(
    name: str, path: Path, device: torch.device, dtype: torch.dtype | None, stacked: int
) -> Opened:
    start = time.perf_counter()
    saved = read_tuned(path)
    if stacked >= MAX_STACKED:
        raise InputError(f"stands on more than {MAX_STACKED} other tunings", where=path)
    name_of_base = base_name(saved)
    try:
        base = open_model(name_of_base, device=device, dtype=dtype, stacked=stacked + 1)
    except InputError as error:
        raise InputError(
            f"needs its base {name_of_base!r}: {error.what}", where=path, fix=error.fix
        ) from error
    identity = None if saved.base.identity is None else base.identity
    tuned = load_tuned(base.model, path, check_identity=identity)
    if tuned.method.mergeable:
        tuned.merge()
    base.model.requires_grad_(False)
    return Opened(
        name,
        base.checkpoint,
        base.model,
        base.tokenizer,
        time.perf_counter() - start,
        (*base.tunings, path),
        read_asking(path) or base.asking,
    )


def base_name(saved: SavedTuning) -> str:
    """The name of the base that a tuning stands on.

    Raises:
        InputError: It names none, as PEFT allows.
    """
    if not saved.base.name:
        raise InputError(
            "does not name its base",
            where=saved.folder,
            fix=f"write it into base_model_name_or_path of {PEFT_CONFIG}",
        )
    return saved.base.name


def _tuning_identity(saved: SavedTuning) -> list[Any]:
    """What makes a tuning what it is: its values, and the settings by which they act."""
    plain = to_dict(type(saved.config)())
    said = to_dict(saved.config).items()
    changed = {key: value for key, value in said if key == "method" or value != plain[key]}
    return [changed, digest_file(saved.tensors)]


def check_tunable(base: Opened) -> None:
    """Nothing can be tuned on what does not become part of its base.

    Raises:
        InputError: It is such a tuning.
    """
    if attached(base.model):
        raise InputError(
            "cannot be tuned further: it is a tuning that stays beside its base, and cannot be "
            "merged into it",
            where=base.name,
            fix="tune the base that it stands on, by a method that can be merged: full, "
            "top_layers, lora or dora",
        )


def template_text(template: str | None) -> str | None:
    """A chat template as recipes and the command line name it: a file is read, else as it is.

    Raises:
        InputError: The file cannot be read.
    """
    if template is None or not template.endswith(".jinja"):
        return template
    path = Path(template).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=path) from error


def read_config(checkpoint: Checkpoint) -> LlamaConfig:
    """The shape of the model in a checkpoint.

    Raises:
        InputError: The config asks for something that this model does not do.
    """
    try:
        return LlamaConfig.from_hf(checkpoint.config)
    except InputError as error:
        raise InputError(error.what, where=checkpoint.path, fix=error.fix) from error


def checkpoint_tokenizer(checkpoint: Checkpoint, config: LlamaConfig) -> Tokenizer:
    """The tokenizer of a checkpoint.

    Raises:
        InputError: It has none, or one that contradicts the model.
    """
    return open_tokenizer(
        checkpoint.tokenizer,
        where=checkpoint.path,
        vocab_size=config.vocab_size,
        generation_config=checkpoint.generation_config,
    )


def tokenizer_if_any(checkpoint: Checkpoint) -> Tokenizer | None:
    """The tokenizer of a checkpoint; None where it carries no file of one.

    Raises:
        InputError: It has one that is damaged, or that contradicts the model.
    """
    if not checkpoint.tokenizer.files and not checkpoint.tokenizer.gguf:
        return None
    return checkpoint_tokenizer(checkpoint, read_config(checkpoint))


def finite_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Read every tensor in turn, and refuse NaN and infinity by the name of the tensor."""
    for name, lazy in checkpoint.tensors.items():
        tensor = lazy.load()
        check_finite(name, tensor, checkpoint.path)
        yield name, tensor


def resolve_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """The dtype for a word: auto, file, float32, bfloat16 or float16; None keeps the file's.

    Raises:
        InputError: The word is not known.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "file":
        return None
    if name == "auto":
        return compute_dtype(device)
    if name not in known:
        raise InputError(
            f"dtype {name!r} is not known", fix=f"known: auto, file, {', '.join(known)}"
        )
    return known[name]


def resolve_device(name: str) -> torch.device:
    """The device for a word: auto, cpu, cuda, cuda:N or mps.

    Raises:
        InputError: The word is not known, or this machine has no such device.
    """
    if name == "auto":
        return default_device()
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", name, flags=re.ASCII):
        raise InputError(f"device {name!r} is not known", fix="auto, cpu, cuda, cuda:N, mps")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device {name!r}: this machine has no CUDA device",
            fix="use --device cpu, or device: cpu in a recipe",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices",
            fix=f"use --device cuda:0 to cuda:{torch.cuda.device_count() - 1}",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(
            f"device {name!r}: this machine has no Metal device",
            fix="use --device cpu, or device: cpu in a recipe",
        )
    return device


def set_threads(threads: int | None) -> None:
    """Let torch compute with this many threads; its own choice when None.

    Raises:
        InputError: `threads` is below 1, or far more than this machine has cores.
    """
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    most = THREADS_PER_CORE * (os.cpu_count() or 1)
    if threads > most:  # the system would refuse them, and torch would end the process
        raise InputError(
            f"threads must be at most {most} on this machine ({THREADS_PER_CORE} per core), "
            f"not {threads}"
        )
    torch.set_num_threads(threads)
