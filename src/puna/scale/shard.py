"""FSDP2 applied from outside to a finished model (torchtitan's `parallelize.py` shows the way)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from puna.errors import InputError
from puna.scale.world import World

M = TypeVar("M", bound=nn.Module)


def shard(
    model: M,
    world: World,
    *,
    blocks: Iterable[nn.Module],
    doors: Iterable[str],
    compute_dtype: torch.dtype | None = None,
    hybrid: int | None = None,
) -> M:
    """Split every parameter over the ranks of `world`, in place; returns the model.

    Each block is gathered when it runs and let go after it; what is outside the blocks (embedding,
    norm, head: a tied weight belongs to two of them) is one more group, gathered at any door.
    Gradients arrive as their sum over the ranks, not as the mean: who divides knows by what.
    Method: Zhao et al. 2023 (arXiv 2304.11277), Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054).

    Args:
        model: Whole on every rank, with the same values.
        world: A world of one rank leaves the model as it is.
        blocks: The modules to gather one at a time.
        doors: Names of the methods that callers use beside `forward`.
        compute_dtype: Of gathered parameters; their own by default. Gradients are reduced in
            float32.
        hybrid: So many neighbouring ranks share one copy of the model, and each such group has
            its own: weights then travel within a group only. None: all ranks share one.

    Raises:
        InputError: The ranks do not make up whole groups of `hybrid`.
    """
    if world.size == 1:
        return model
    mesh = _mesh(world, hybrid)
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    modules: list[nn.Module] = [*blocks, model]
    for module in modules:
        fully_shard(module, mesh=mesh, mp_policy=policy)
        _summing(module)
    for door in doors:
        register_fsdp_forward_method(model, door)
    return model


def _mesh(world: World, hybrid: int | None) -> DeviceMesh:
    kind, size = world.device.type, world.size
    if hybrid is None or hybrid == size:
        return init_device_mesh(kind, (size,))
    if hybrid < 2 or size % hybrid:
        fits = [str(n) for n in range(2, size + 1) if size % n == 0]
        raise InputError(
            f"{size} ranks do not make up groups of {hybrid}", fix=f"choose {' or '.join(fits)}"
        )
    return init_device_mesh(kind, (size // hybrid, hybrid), mesh_dim_names=("copy", "shard"))


def _summing(module: nn.Module) -> None:
    assert isinstance(module, FSDPModule)
    module.set_gradient_divide_factor(1.0)
    # Without this, a factor of one would be multiplied within the reduction, which gloo cannot.
    module.set_force_sum_reduction_for_comms(True)
