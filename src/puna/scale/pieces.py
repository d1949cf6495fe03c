"""What of a tensor lies on this rank: of a spread one its rows here, of a plain one all.

Importing this costs nothing: a tensor that is spread says so itself, and only then does one more
module of torch come in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from puna.errors import InputError


@dataclass(frozen=True)
class Piece:
    """A run of rows (of the first dimension) of a tensor."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    start: int
    """The first row that is here."""
    rows: int
    """How many are here, perhaps none; of a tensor without dimensions 1."""
    owned: bool = True
    """Whether this rank is the first of those that hold these rows. A plain tensor is whole on
    every rank, so of these the first rank of the world has to be asked for."""

    @property
    def stop(self) -> int:
        """One past the last row that is here."""
        return self.start + self.rows

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the tensor lies elsewhere."""
        return self.rows == (self.shape[0] if self.shape else 1)

    @property
    def local_shape(self) -> tuple[int, ...]:
        """Of what is here."""
        return (self.rows, *self.shape[1:]) if self.shape else ()


def is_spread(tensor: Tensor) -> bool:
    """Whether the tensor is spread over ranks by `puna.scale.shard`."""
    return hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """What lies on this rank: a plain tensor that shares its memory with the one given.

    A plain tensor is given back as it is. Of a spread one, the rows here, outside autograd:
    changed in place, they change the spread tensor.
    """
    if not is_spread(tensor):
        return tensor
    with torch.no_grad():
        spread: Any = tensor
        found: Tensor = spread.to_local()
        return found.detach()


def piece(tensor: Tensor) -> Piece:
    """Which rows of a tensor lie on this rank.

    Raises:
        InputError: It is spread in another way than `puna.scale.shard` spreads.
    """
    shape = tuple(tensor.shape)
    if not is_spread(tensor):
        return Piece(shape, 0, shape[0] if shape else 1)
    spread: Any = tensor
    mesh, start, rows, owned = spread.device_mesh, 0, shape[0], True
    place = mesh.get_coordinate()
    for dimension, placement in enumerate(spread.placements):
        if placement.is_replicate():
            owned = owned and place[dimension] == 0
        elif placement.is_shard(0) and rows == shape[0]:
            each = -(-shape[0] // mesh.size(dimension))  # as torch.chunk deals rows out
            start = min(place[dimension] * each, shape[0])
            rows = min(each, shape[0] - start)
        else:
            raise InputError(f"a tensor is spread as {placement}, expected rows or copies")
    assert rows == len(local(tensor)), "rows are dealt out as torch.chunk does"
    return Piece(shape, start, rows, owned)


def copies(tensor: Tensor) -> int:
    """How many ranks hold each row of a spread tensor; 1 for a plain one."""
    if not is_spread(tensor):
        return 1
    spread: Any = tensor
    found = 1
    for dimension, placement in enumerate(spread.placements):
        found *= spread.device_mesh.size(dimension) if placement.is_replicate() else 1
    return found


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on each rank; for a spread one every rank has to call this."""
    if not is_spread(tensor):
        return tensor
    with torch.no_grad():
        spread: Any = tensor
        gathered: Tensor = spread.full_tensor()
        return gathered.detach()


def refuse_spread(parameters: Iterable[Tensor], who: str) -> None:
    """Refuse tensors that are spread over ranks, where the mathematics needs whole ones.

    Args:
        parameters: What is asked about.
        who: Who needs them, for the message.

    Raises:
        InputError: One is spread.
    """
    if any(is_spread(parameter) for parameter in parameters):
        raise InputError(
            f"{who} needs whole matrices, and these are spread over the ranks",
            fix="choose adamw, or keep a copy of the model on each rank (spread.kind: copies)",
        )


def sync_gradients(model: nn.Module, on: bool) -> None:
    """Say whether the next backward pass of a spread model sums its gradients over the ranks.

    Until one does, each rank adds up its own, whole: as much memory as the weights once more.
    For a model that is not spread this does nothing.
    """
    switch = getattr(model, "set_requires_gradient_sync", None)
    if switch is not None:
        switch(on)


def let_go(model: nn.Module) -> None:
    """Drop what a spread model has gathered of its weights: later changes of them would not show.

    For a model that is not spread this does nothing.
    """
    switch = getattr(model, "reshard", None)
    if switch is not None:
        switch()
