"""Muon (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982), by torch's own kernel."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.optim._muon import DEFAULT_A, DEFAULT_B, DEFAULT_C, DEFAULT_NS_STEPS, EPS, muon

from puna.train.optimizers.adamw import AdamW
from puna.train.optimizers.base import Optimizer
from puna.train.optimizers.config import OptimConfig

_MOMENTUM = "momentum_buffer"  # as torch.optim calls it
_COEFFICIENTS = (DEFAULT_A, DEFAULT_B, DEFAULT_C)


class Muon(Optimizer):
    """Orthogonal steps for the matrices of the blocks, AdamW for all else.

    What is computed is `torch.optim.Muon` with Nesterov's momentum, through the function beneath
    it: see `AdamW` for why not through the class. Its iteration runs in bfloat16.

    Args:
        parameters: What it moves, by name.
        config: The figures.
        matrices: The names of those that take orthogonal steps; each has two dimensions.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: OptimConfig,
        matrices: Collection[str],
    ) -> None:
        chosen = set(matrices)
        turned = {name: tensor for name, tensor in parameters.items() if name in chosen}
        assert all(tensor.dim() == 2 for tensor in turned.values()), "matrices only"
        super().__init__(turned, config)
        rest = {name: tensor for name, tensor in parameters.items() if name not in chosen}
        self._rest = AdamW(rest, config)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move each parameter that has a gradient."""
        self._rest.step(learning_rate)
        weights: list[Tensor] = []
        gradients: list[Tensor] = []
        momenta: list[Tensor] = []
        for name, weight in self._parameters.items():
            if weight.grad is not None:
                weights.append(weight)
                gradients.append(weight.grad)
                momenta.append(self._state_of(name)[_MOMENTUM])
        muon(
            weights,
            gradients,
            momenta,
            lr=learning_rate,
            weight_decay=self._config.weight_decay,
            momentum=self._config.muon_momentum,
            nesterov=True,
            ns_coefficients=_COEFFICIENTS,
            ns_steps=DEFAULT_NS_STEPS,
            eps=EPS,
            adjust_lr_fn=self._config.muon_scale,
            has_complex=False,
        )

    def forget_gradients(self) -> None:
        """Let the gradients' memory go."""
        super().forget_gradients()
        self._rest.forget_gradients()

    def tensors(self) -> dict[str, Tensor]:
        """The state as `PARAMETER/FIELD`; nothing of a parameter that was never moved."""
        return {**super().tensors(), **self._rest.tensors()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave; they are copied.

        Raises:
            InputError: They are of other parameters or another optimizer; the state is as it was.
        """
        own = {key: t for key, t in tensors.items() if key.rpartition("/")[0] in self._parameters}
        state = self._copied(own)
        self._rest.load({key: t for key, t in tensors.items() if key not in own})
        self._state = state

    def _still(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        return {_MOMENTUM: torch.zeros_like(parameter.detach())}
