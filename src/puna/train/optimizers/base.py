"""What optimizers have in common: tensors by name, their state by name, and clipping."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from puna.errors import InputError
from puna.train.optimizers.config import OptimConfig

State = dict[str, dict[str, Tensor]]
"""Of each parameter, by the names of its fields."""


class Optimizer(ABC):
    """Moves named tensors along their gradients.

    Args:
        parameters: What it moves, by name; their `.grad` is what it reads, and may overwrite.
        config: The figures.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimConfig) -> None:
        self._parameters, self._config = dict(parameters), config
        self._state: State = {}

    @abstractmethod
    def step(self, learning_rate: float) -> None:
        """Move each parameter that has a gradient."""

    @abstractmethod
    def _still(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """The state of a parameter before its first step."""

    def figures(self) -> dict[str, Any]:
        """What there is to log of the last step, as JSON values."""
        return {}

    def forget_gradients(self) -> None:
        """Let the gradients' memory go."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The state as `PARAMETER/FIELD`; nothing of a parameter that was never moved."""
        return {
            f"{name}/{field}": tensor
            for name, fields in self._state.items()
            for field, tensor in fields.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave; they are copied.

        Raises:
            InputError: They are of other parameters or another optimizer; the state is as it was.
        """
        self._state = self._copied(tensors)

    def _copied(self, tensors: Mapping[str, Tensor]) -> State:
        """The state that tensors describe, checked."""
        names = dict.fromkeys(key.rpartition("/")[0] for key in tensors)
        if not names.keys() <= self._parameters.keys():
            raise _others()
        found = {name: self._still(self._parameters[name]) for name in names}
        wanted = {f"{name}/{field}" for name, fields in found.items() for field in fields}
        if tensors.keys() != wanted:
            raise _others()
        for name, fields in found.items():
            for field, still in fields.items():
                given = tensors[f"{name}/{field}"]
                if given.shape != still.shape:
                    raise InputError(f"the optimizer's state of {name!r} has another shape")
                still.copy_(given)
        return found

    def _state_of(self, name: str) -> dict[str, Tensor]:
        if name not in self._state:
            self._state[name] = self._still(self._parameters[name])
        return self._state[name]


def clip(gradients: list[Tensor], norm: float, max_norm: float | None) -> None:
    """Scale gradients whose common 2-norm is `norm` down to `max_norm`, in place."""
    if max_norm is not None and norm > max_norm:
        torch._foreach_mul_(gradients, max_norm / (norm + 1e-6))


def _others() -> InputError:
    return InputError("the optimizer's state is of other parameters, or of another optimizer")
