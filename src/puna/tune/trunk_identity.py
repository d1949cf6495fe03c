"""Which trunk it is, and which sequence: the two halves of the key of a cache entry."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from puna.artifact import TensorDigest, digest_json, model_identity
from puna.errors import InputError
from puna.model import LlamaConfig, LlamaModel
from puna.store.values import digest_tensor

HASH_THREADS = 4
KEY_BYTES = 16


def trunk_identity(model: LlamaModel, start: int) -> str:
    """What decides the hidden states that enter block `start`, as one SHA-256 in hexadecimal.

    That is: the names, dtypes, shapes and values of all tensors of the embedding and of the blocks
    [0, start), the part of the config that their forward pass reads, and how their modules describe
    themselves (`extra_repr`), so that a wrapper around a layer makes another trunk. Every byte
    is read once, by a few threads.

    Raises:
        InputError: The model has no block `start`.
    """
    named = list(_tensors(model, start))
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        digests = list(pool.map(_digest, named))
    modules = [
        [f"{part}.{name}", type(module).__name__, module.extra_repr()]
        for part, root in _parts(model, start)
        for name, module in root.named_modules()
    ]
    return digest_json(
        {
            "tensors": model_identity(digests),
            "config": _computing(model.config),
            "modules": modules,
            "start": start,
        }
    )


def check_frozen(model: LlamaModel, start: int) -> None:
    """Refuse a trunk that learns: what is kept of it would be stale after one step.

    Raises:
        InputError: A parameter below block `start` takes gradients; the message names it.
    """
    for name, tensor in _tensors(model, start):
        if tensor.requires_grad:
            raise InputError(
                f"the parameter {name!r} learns, but it lies below block {start}, where the trunk "
                "is taken to be frozen",
                fix="train without the trunk cache, or limit the method to the last layers",
            )


def sequence_key(ids: NDArray[np.int32]) -> bytes:
    """The 16-byte key of token ids [N], independent of the machine's byte order."""
    data = np.ascontiguousarray(ids, dtype="<i4")
    return hashlib.blake2b(data.data, digest_size=KEY_BYTES, usedforsecurity=False).digest()


def _parts(model: LlamaModel, start: int) -> Iterator[tuple[str, nn.Module]]:
    layers = model.model.layers
    if not 0 <= start <= len(layers):
        raise InputError(f"a trunk of {start} blocks, of a model that has {len(layers)}")
    yield "embed_tokens", model.model.embed_tokens
    for layer in range(start):
        yield f"layers.{layer}", layers[layer]


def _tensors(model: LlamaModel, start: int) -> Iterator[tuple[str, Tensor]]:
    for part, root in _parts(model, start):
        for named in (root.named_parameters(), root.named_buffers()):
            for name, tensor in named:
                yield f"{part}.{name}", tensor


def _digest(named: tuple[str, Tensor]) -> TensorDigest:
    name, tensor = named
    return digest_tensor(name, tensor.detach().cpu().contiguous())


def _computing(config: LlamaConfig) -> dict[str, Any]:
    """The config without what changes no hidden state, or shows in the tensors' shapes."""
    idle = (
        "vocab_size",
        "num_hidden_layers",
        "max_position_embeddings",
        "tie_word_embeddings",
        "initializer_range",
    )
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in idle}
