"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) over named parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from puna.train.optimizers.base import Optimizer

_STEP, _MEAN, _SQUARE = "step", "exp_avg", "exp_avg_sq"  # as torch.optim calls them


class AdamW(Optimizer):
    """AdamW with weight decay on tensors of two dimensions and more.

    The update is torch's fused kernel: one pass over each tensor, without copies. It is called
    directly, since the first step of any `torch.optim` optimizer imports torch's compiler: three
    seconds and 75 MB that a run on one CPU has no use for. It works element by element, so a part
    of a tensor moves as it would within the whole.
    """

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move each parameter that has a gradient."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                kind = (parameter.device, parameter.dtype, parameter.dim() >= 2)
                groups.setdefault(kind, []).append(name)
        for (_, _, decays), names in groups.items():
            self._move(names, learning_rate, self._config.weight_decay if decays else 0.0)

    def _move(self, names: list[str], learning_rate: float, weight_decay: float) -> None:
        states = [self._state_of(name) for name in names]
        steps = [state[_STEP] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            [self._parameters[name] for name in names],
            [gradient for name in names if (gradient := self._parameters[name].grad) is not None],
            [state[_MEAN] for state in states],
            [state[_SQUARE] for state in states],
            [],
            steps,
            lr=learning_rate,
            beta1=self._config.beta1,
            beta2=self._config.beta2,
            weight_decay=weight_decay,
            eps=self._config.eps,
            amsgrad=False,
            maximize=False,
        )

    def _still(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        value = parameter.detach()
        return {
            _STEP: torch.zeros((), dtype=torch.float32, device=value.device),
            _MEAN: torch.zeros_like(value),
            _SQUARE: torch.zeros_like(value),
        }
