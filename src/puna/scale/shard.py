"""FSDP2 applied from outside to a finished model (torchtitan's `parallelize.py` shows the way)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from puna.scale.world import World

M = TypeVar("M", bound=nn.Module)


def shard(
    model: M,
    world: World,
    *,
    blocks: Iterable[nn.Module],
    doors: Iterable[str],
    compute_dtype: torch.dtype | None = None,
) -> M:
    """Split every parameter over the ranks of `world`, in place; returns the model.

    Each block is gathered when it runs and let go after it; what is outside the blocks (embedding,
    norm, head: a tied weight belongs to two of them) is one more group, gathered at any door.

    Args:
        model: Whole on every rank, with the same values.
        world: A world of one rank leaves the model as it is.
        blocks: The modules to gather one at a time.
        doors: Names of the methods that callers use beside `forward`.
        compute_dtype: Of gathered parameters; their own by default. Gradients are reduced in
            float32.
    """
    if world.size == 1:
        return model
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for door in doors:
        register_fsdp_forward_method(model, door)
    return model
