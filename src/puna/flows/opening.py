"""From a checkpoint on disk to a model and its tokenizer, ready for use."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from puna.errors import InputError
from puna.model import LlamaConfig, LlamaModel, build
from puna.scale.prepare import compute_dtype, default_device
from puna.store import Checkpoint, check_finite, open_checkpoint
from puna.store.locate import locate
from puna.tokens import Tokenizer, open_tokenizer

THREADS_PER_CORE = 4  # more can only be a mistake


@dataclass(frozen=True)
class Opened:
    """A model in memory, and where it came from."""

    name: str
    checkpoint: Checkpoint
    model: LlamaModel
    tokenizer: Tokenizer
    seconds: float  # from the name to a ready model


def open_model(name: str, *, device: torch.device, dtype: torch.dtype | None) -> Opened:
    """Load a model by name or path.

    Args:
        name: See `puna.store.locate`.
        device: Where it goes.
        dtype: Of the parameters; the file's own when None (float32 for quantized files).

    Raises:
        InputError: There is no such model, or it is damaged.
    """
    start = time.perf_counter()
    located = locate(name)
    checkpoint = open_checkpoint(located.path)
    config = read_config(checkpoint)
    tokenizer = checkpoint_tokenizer(checkpoint, config)
    model = build(config, finite_tensors(checkpoint), dtype=dtype, device=device)
    return Opened(name, checkpoint, model, tokenizer, time.perf_counter() - start)


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
            f"device {name!r}: this machine has no CUDA device", fix="use --device cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices",
            fix=f"use --device cuda:0 to cuda:{torch.cuda.device_count() - 1}",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(
            f"device {name!r}: this machine has no Metal device", fix="use --device cpu"
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
