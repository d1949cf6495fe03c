"""What the ranks of a run tell each other: counts, gradients, and that they agree."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from puna.errors import InputError
from puna.scale.pieces import is_spread
from puna.scale.world import World

_BUCKET_SCALARS = 1 << 22  # of gradients that travel together: 16 MiB in float32


def gather(world: World, value: Any) -> list[Any]:
    """The JSON value of every rank, by rank, on each of them."""
    if world.size == 1:
        return [value]
    data = json.dumps(value).encode()
    lengths = torch.zeros(world.size, dtype=torch.int64, device=world.device)
    lengths[world.rank] = len(data)
    sizes = world.sum(lengths).tolist()
    rows = torch.zeros(world.size, max(sizes), dtype=torch.uint8)
    rows[world.rank, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    told = world.sum(rows.to(world.device)).cpu().numpy()
    return [json.loads(told[rank, :size].tobytes()) for rank, size in enumerate(sizes)]


@contextlib.contextmanager
def together(world: World) -> Iterator[None]:
    """A block that every rank leaves well, or every rank by an error.

    In the block a rank does what it has to do by itself, and talks to no other.

    Raises:
        InputError: That of the first rank which had one.
    """
    fault: InputError | None = None
    try:
        yield
    except InputError as error:
        fault = error
    told = None if fault is None else [fault.what, fault.where and str(fault.where), fault.fix]
    rows = gather(world, told)
    if fault is not None:
        raise fault
    for row in rows:
        if row is not None:
            raise InputError(row[0], where=row[1], fix=row[2])


def sum_gradients(world: World, parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its sum over the ranks; a rank without one counts as zero."""
    if world.size == 1:
        return
    rows = gather(world, [parameter.grad is not None for parameter in parameters])
    moved = [p for p, *has in zip(parameters, *rows, strict=True) if any(has)]
    for bucket in _buckets(moved):
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        total = world.sum(torch.cat([part.flatten() for part in parts]))
        pieces = torch.split(total, [p.numel() for p in bucket])
        for parameter, piece in zip(bucket, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one dtype, up to the size of a bucket."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        scalars = sum(p.numel() for p in bucket) + parameter.numel()
        if bucket and (scalars > _BUCKET_SCALARS or bucket[0].dtype != parameter.dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def check_parameters(world: World, parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse what the loop could not train: nothing, twice the same, or ranks that differ.

    Raises:
        InputError: The parameters are none, shared, frozen, or not the same on each rank.
    """
    if not parameters:
        raise InputError("there is nothing to train", fix="choose a method that trains something")
    if len({id(p) for p in parameters.values()}) < len(parameters):
        raise InputError("a parameter has two names", fix="name a tied weight once")
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            raise InputError(f"the parameter {name!r} takes no gradient")
    check_same(world, parameters)


def check_same(world: World, tensors: Mapping[str, Tensor]) -> None:
    """Refuse ranks that differ in what they hold; ask before a model is spread over them.

    Of what is spread already, names and shapes are compared: each rank has its own rows.

    Raises:
        InputError: A name, a shape or a value differs.
    """
    if world.size > 1 and len(set(gather(world, _checksum(tensors)))) > 1:
        raise InputError("the ranks start from different parameters", fix="give them one seed")


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    found = 0
    for name, tensor in tensors.items():
        found = zlib.crc32(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), found)
        if is_spread(tensor):
            continue
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        found = zlib.crc32(values.data, found)
    return found
