"""How a model lies on the ranks: as copies, or in shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

from puna.errors import InputError
from puna.scale.world import World

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class SpreadConfig:
    """How several ranks share a model; one rank has all of it in either case."""

    kind: Literal["shards", "copies"] = "shards"
    """shards: each rank keeps its part of weights, gradients and optimizer, and gathers one block
    at a time (FSDP2); copies: each has everything, and gradients alone travel."""
    group_ranks: int | None = None
    """Ranks that share one copy in shards, while each such group has its own; null: all ranks
    share one."""

    def __post_init__(self) -> None:
        if self.group_ranks is None:
            return
        if self.kind == "copies":
            raise InputError("group_ranks goes with shards, not with copies", fix="set it to null")
        if self.group_ranks < 2:
            raise InputError(f"group_ranks must be at least 2, found {self.group_ranks}")


def spread(
    model: M,
    world: World,
    config: SpreadConfig,
    *,
    blocks: Iterable[nn.Module],
    doors: Iterable[str],
    compute_dtype: torch.dtype | None = None,
) -> M:
    """Lay a model out on the ranks, in place; see `puna.scale.shard.shard`.

    Args:
        model: Whole on every rank, with the same values.
        world: The ranks.
        config: How; copies, and a world of one rank, leave the model as it is.
        blocks: The modules to gather one at a time.
        doors: Names of the methods that callers use beside `forward`.
        compute_dtype: Of gathered parameters; their own by default.

    Raises:
        InputError: The ranks do not make up whole groups of `group_ranks`.
    """
    if world.size == 1 or config.kind == "copies":
        return model
    from puna.scale.shard import shard  # FSDP takes half a second that one process need not spend

    return shard(
        model,
        world,
        blocks=blocks,
        doors=doors,
        compute_dtype=compute_dtype,
        hybrid=config.group_ranks,
    )
