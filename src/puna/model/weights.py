"""Filling a model with tensors, strictly: every name and shape is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from puna.errors import InputError
from puna.model.config import LlamaConfig
from puna.model.llama import LlamaModel


def build(
    config: LlamaConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> LlamaModel:
    """A model whose parameters are the given tensors; none is allocated twice.

    Args:
        config: The shape.
        tensors: (Hugging Face name, values); read one at a time, so a generator keeps one alive.
        dtype: Cast to this; the tensors' own by default. A tensor that needs no cast is not copied.
        device: Where the parameters go.

    Raises:
        InputError: A tensor is missing, unknown, of another shape, or comes twice.
    """
    with torch.device("meta"):
        model = LlamaModel(config)
    load_weights(model, tensors, cast=lambda t: t.to(device=device, dtype=dtype or t.dtype))
    return model.eval().requires_grad_(False)


def load_weights(
    model: LlamaModel,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    cast: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Replace every parameter of `model` by the tensor of its name.

    Raises:
        InputError: A tensor is missing, unknown, of another shape, or comes twice.
    """
    tied = model.config.tie_word_embeddings
    wanted = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, tensor in tensors:
        if tied and name == "lm_head.weight":
            continue
        if name not in wanted:
            raise InputError(f"tensor {name!r} has no place in this model, or came twice")
        expected = wanted.pop(name)
        if tuple(tensor.shape) != expected:
            raise InputError(
                f"tensor {name!r}: expected the shape {list(expected)}, found {list(tensor.shape)}"
            )
        _assign(model, name, tensor if cast is None else cast(tensor))
    if wanted:
        first = ", ".join(sorted(wanted)[:3])
        raise InputError(f"{len(wanted)} tensors are missing, among them {first}")
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    setattr(module, leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
