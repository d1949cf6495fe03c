"""What the optimizer moves of a model that is spread over the ranks: what lies on this one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from puna.errors import InputError
from puna.scale.pieces import copies, is_spread, let_go, local, piece
from puna.scale.world import World
from puna.train.masters import Moved
from puna.train.ranks import gather


class Shards(Moved):
    """Plain tensors that share the memory of a spread model's parameters on this rank.

    A step of an optimizer that works element by element moves them as it would move the whole.

    Args:
        model: A model that `puna.scale.shard` has spread.
        parameters: What learns of it, by name.

    Raises:
        InputError: A parameter is not spread, while others are.
    """

    sharded = True

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        for name, parameter in parameters.items():
            if not is_spread(parameter):
                raise InputError(
                    f"the parameter {name!r} is whole on each rank, and others are spread",
                    fix="take the names of parameters after the model was spread",
                )
        super().__init__({name: nn.Parameter(local(p)) for name, p in parameters.items()})
        self._model, self._spread = model, dict(parameters)
        self.places = {name: piece(parameter) for name, parameter in parameters.items()}
        self.copies = copies(next(iter(parameters.values())))

    def __exit__(self, *_: object) -> None:
        self.spread()

    def sum_gradients(self, world: World) -> None:
        """Take the gradients, which the model's backward pass has summed."""
        for name, own in self.parameters.items():
            gradient, self._spread[name].grad = self._spread[name].grad, None
            own.grad = None if gradient is None else local(gradient)

    def gradient_norm(self, world: World) -> float:
        """The 2-norm of all gradients together, over all ranks."""
        own = super().gradient_norm(world)
        return math.sqrt(sum(gather(world, own * own)) / self.copies)

    def spread(self) -> None:
        """Let the next pass through the model gather what was moved."""
        let_go(self._model)
