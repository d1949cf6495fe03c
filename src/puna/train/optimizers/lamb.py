"""LAMB (You et al. 2020, arXiv 1904.00962, algorithm 2) over named parameters."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from puna.train.optimizers.base import Optimizer
from puna.train.optimizers.config import OptimConfig

_STEP, _MEAN, _SQUARE = "step", "exp_avg", "exp_avg_sq"


class Lamb(Optimizer):
    """Adam's direction, in each tensor as long as the tensor's weights are.

    Each tensor is a layer of the paper's, its phi is the identity, and both of Adam's means are
    corrected for their start. A tensor whose weights or whose direction are zero takes Adam's step
    as it is: the trust ratio is 1, as in the authors' code. Weight decay is on tensors of two
    dimensions and more. A step overwrites the gradients.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimConfig) -> None:
        super().__init__(parameters, config)
        self._ratios: dict[str, Tensor] = {}  # of the last step

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move each parameter that has a gradient."""
        self._ratios = {
            name: self._move(name, parameter, parameter.grad, learning_rate)
            for name, parameter in self._parameters.items()
            if parameter.grad is not None
        }

    def figures(self) -> dict[str, Any]:
        """`trust_ratio` (min, median, max over the tensors), and on request `trust_ratios`."""
        ratios = {name: float(ratio) for name, ratio in self._ratios.items()}
        if not ratios:
            return {}
        values = list(ratios.values())
        spread = {"min": min(values), "median": statistics.median(values), "max": max(values)}
        every = {"trust_ratios": ratios} if self._config.log_trust_ratios else {}
        return {"trust_ratio": spread, **every}

    def _move(
        self, name: str, weight: nn.Parameter, gradient: Tensor, learning_rate: float
    ) -> Tensor:
        """Move one tensor; returns its trust ratio."""
        config, state = self._config, self._state_of(name)
        mean, square = state[_MEAN], state[_SQUARE]
        state[_STEP] += 1
        count = float(state[_STEP])
        mean.lerp_(gradient, 1 - config.beta1)
        square.mul_(config.beta2).addcmul_(gradient, gradient, value=1 - config.beta2)
        # Nobody reads the gradient any more: its memory takes the direction.
        torch.div(square, 1 - config.beta2**count, out=gradient).sqrt_().add_(config.eps)
        direction = torch.div(mean, gradient, out=gradient).div_(1 - config.beta1**count)
        if weight.dim() >= 2 and config.weight_decay:
            direction.add_(weight, alpha=config.weight_decay)
        ratio = _trust_ratio(weight, direction)
        weight.sub_(direction.mul_(ratio * learning_rate))
        return ratio

    def _still(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        value = parameter.detach()
        return {
            _STEP: torch.zeros((), dtype=torch.float32),  # on the CPU, where it is read
            _MEAN: torch.zeros_like(value),
            _SQUARE: torch.zeros_like(value),
        }


def _trust_ratio(weight: Tensor, direction: Tensor) -> Tensor:
    """|weight| / |direction|, 1 where one of them is zero; a scalar, on their device."""
    own, other = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(direction)
    return torch.where((own > 0) & (other > 0), own / other, torch.ones_like(own))
