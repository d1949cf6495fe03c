"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) over named parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from puna.errors import InputError

_FIELDS = ("step", "exp_avg", "exp_avg_sq")  # as torch.optim calls them


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and the clipping of its gradients."""

    learning_rate: float = 2e-4
    """At its highest; the schedule scales it."""
    beta1: float = 0.9
    """Decay of the mean of gradients, per step."""
    beta2: float = 0.999
    """Decay of the mean of squared gradients, per step."""
    eps: float = 1e-8
    """Added to the root of the latter."""
    weight_decay: float = 0.0
    """Per step and unit of learning rate; on matrices only, never on norms and biases."""
    max_grad_norm: float | None = 1.0
    """Longer gradients (2-norm over all parameters) are scaled down to this; null: never."""

    def __post_init__(self) -> None:
        for key in ("learning_rate", "eps"):
            if not getattr(self, key) > 0:
                raise InputError(f"{key} must be positive, found {getattr(self, key)}")
        for key in ("beta1", "beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise InputError(f"{key} must lie in [0, 1), found {getattr(self, key)}")
        if self.weight_decay < 0:
            raise InputError(f"weight_decay must not be negative, found {self.weight_decay}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise InputError(
                f"max_grad_norm must be positive, found {self.max_grad_norm}",
                fix="null turns clipping off",
            )


class AdamW:
    """AdamW with weight decay on tensors of two dimensions and more.

    The update is torch's fused kernel: one pass over each tensor, without copies. It is called
    directly, since the first step of any `torch.optim` optimizer imports torch's compiler: three
    seconds and 75 MB that a run on one CPU has no use for.

    Args:
        parameters: What learns, by name.
        config: The figures.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimConfig) -> None:
        self._parameters, self._config = dict(parameters), config
        self._moments: dict[str, tuple[Tensor, Tensor, Tensor]] = {}  # step, mean, mean square

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move each parameter that has a gradient."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                kind = (parameter.device, parameter.dtype, parameter.dim() >= 2)
                groups.setdefault(kind, []).append(name)
        for (_, _, decays), names in groups.items():
            self._step(names, learning_rate, self._config.weight_decay if decays else 0.0)

    def _step(self, names: list[str], learning_rate: float, weight_decay: float) -> None:
        for name in names:
            if name not in self._moments:
                self._moments[name] = _still(self._parameters[name])
        moments = [self._moments[name] for name in names]
        steps, means, squares = (list(column) for column in zip(*moments, strict=True))
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            [self._parameters[name] for name in names],
            [gradient for name in names if (gradient := self._parameters[name].grad) is not None],
            means,
            squares,
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

    def forget_gradients(self) -> None:
        """Let the gradients' memory go."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The state as `PARAMETER/FIELD`; nothing of a parameter that was never moved."""
        return {
            f"{name}/{field}": tensor
            for name, moments in self._moments.items()
            for field, tensor in zip(_FIELDS, moments, strict=True)
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave; they are copied.

        Raises:
            InputError: They are of other parameters; the state is as it was.
        """
        names = {key.rpartition("/")[0] for key in tensors}
        wanted = {f"{name}/{field}" for name in names for field in _FIELDS}
        if not names <= self._parameters.keys() or tensors.keys() != wanted:
            raise InputError("the optimizer's state is of other parameters")
        found = {}
        for name in names:
            still = _still(self._parameters[name])
            given = [tensors[f"{name}/{field}"] for field in _FIELDS]
            if [t.shape for t in given] != [t.shape for t in still]:
                raise InputError(f"the optimizer's state of {name!r} has another shape")
            found[name] = (
                still[0].copy_(given[0]),
                still[1].copy_(given[1]),
                still[2].copy_(given[2]),
            )
        self._moments = found


def _still(parameter: nn.Parameter) -> tuple[Tensor, Tensor, Tensor]:
    """The state of a parameter before its first step."""
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return step, torch.zeros_like(parameter.detach()), torch.zeros_like(parameter.detach())


def clip(gradients: list[Tensor], norm: float, max_norm: float | None) -> None:
    """Scale gradients whose common 2-norm is `norm` down to `max_norm`, in place."""
    if max_norm is not None and norm > max_norm:
        torch._foreach_mul_(gradients, max_norm / (norm + 1e-6))
