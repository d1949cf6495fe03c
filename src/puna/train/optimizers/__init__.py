"""Optimizers over named tensors, with their state as named tensors: AdamW, LAMB and Muon.

An optimizer moves the tensors that it is handed along their `.grad`, and knows neither model nor
ranks: masters in float32, or a rank's part of a spread model, are handed in as any others are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from puna.errors import InputError
from puna.train.optimizers.adamw import AdamW
from puna.train.optimizers.base import Optimizer, clip
from puna.train.optimizers.config import LLAMA_OPTIM, OptimConfig
from puna.train.optimizers.lamb import Lamb
from puna.train.optimizers.muon import Muon

__all__ = [
    "LLAMA_OPTIM",
    "AdamW",
    "Lamb",
    "Muon",
    "OptimConfig",
    "Optimizer",
    "clip",
    "make_optimizer",
]


def make_optimizer(
    parameters: Mapping[str, nn.Parameter],
    config: OptimConfig,
    *,
    matrices: Collection[str] = (),
    sharded: bool = False,
) -> Optimizer:
    """The optimizer that a configuration asks for.

    Args:
        parameters: What it moves, by name.
        config: The figures.
        matrices: Names of the blocks' matrices, which Muon turns; AdamW moves the rest.
        sharded: Each tensor is this rank's part of a larger one.

    Raises:
        InputError: The model is sharded, and the optimizer has to see whole matrices.
    """
    sharded = sharded or any(hasattr(tensor, "device_mesh") for tensor in parameters.values())
    if sharded and config.kind != "adamw":
        raise InputError(
            f"{config.kind} takes each matrix as a whole, and the model is spread over the ranks",
            fix="set train.optim.kind to adamw, or keep the model whole on each rank",
        )
    if config.kind == "lamb":
        return Lamb(parameters, config)
    if config.kind == "muon":
        return Muon(parameters, config, matrices)
    return AdamW(parameters, config)
