"""What every writer does to a tensor: load it, check it, cast it, and digest what it writes."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from puna.artifact import TensorDigest
from puna.errors import InputError
from puna.store.checkpoint import LazyTensor
from puna.store.checks import check_finite


def load_checked(tensor: LazyTensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Load a tensor for writing.

    Args:
        tensor: What to load.
        dtype: Cast to this; None keeps the tensor's own.

    Returns:
        A contiguous CPU tensor; it may map the source's file, so it is not to be written to.

    Raises:
        InputError: The values are not finite, before or after the cast.
    """
    values = tensor.load().contiguous()
    assert tuple(values.shape) == tensor.shape, (tensor.name, values.shape, tensor.shape)
    check_finite(tensor.name, values, tensor.file)
    if dtype is None or dtype == values.dtype:
        return values
    cast = values.to(dtype)
    if dtype.itemsize < values.dtype.itemsize or dtype == torch.float16:
        try:
            check_finite(tensor.name, cast, tensor.file)
        except InputError as error:
            name = str(dtype).removeprefix("torch.")
            raise InputError(
                f"tensor {tensor.name!r}: its largest magnitude, {values.abs().max().item():.4g}, "
                f"does not fit into {name}, which ends at {torch.finfo(dtype).max:.4g}",
                where=tensor.file,
                fix="write float32 or bfloat16",
            ) from error
    return cast


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The values of a contiguous CPU tensor as bytes, row-major, without a copy."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


def digest_tensor(name: str, tensor: torch.Tensor) -> TensorDigest:
    """Digest a contiguous CPU tensor under a Hugging Face name."""
    return TensorDigest(
        name=name,
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        sha256=hashlib.sha256(raw_bytes(tensor)).hexdigest(),
    )


def digest_lazy(tensor: LazyTensor) -> TensorDigest:
    """Load, digest and release one tensor: its part of a model's identity."""
    digest = digest_tensor(tensor.name, tensor.load().contiguous())
    tensor.release()
    return digest


def with_dtype(tensor: LazyTensor, dtype: torch.dtype | None) -> LazyTensor:
    """The same tensor, described with the dtype that it will be written in."""
    return tensor if dtype is None else replace(tensor, dtype=dtype)
