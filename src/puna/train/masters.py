"""What the optimizer moves: the model's parameters, or masters of them in float32.

A weight in bfloat16 has 8 bits: a step shorter than 1/256 of it would leave it where it is. So a
model that computes in bfloat16 learns through copies in float32, which take the steps, and are
what is kept and published (Micikevicius et al. 2018, arXiv 1710.03740, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from puna.errors import InputError
from puna.scale.pieces import is_spread, piece
from puna.scale.world import World
from puna.train.ranks import sum_gradients

ComputeDtype = Literal["bfloat16"]


class Moved:
    """What the optimizer moves, checkpoints keep and gradients are summed for; as a context.

    Args:
        parameters: What learns, by name.

    Attributes:
        parameters: What is moved, by the same names; gradients are in their `.grad`.
        places: Which rows of the whole tensors these are.
        sharded: Whether each is only this rank's part of a larger tensor.
    """

    sharded = False

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters: Mapping[str, nn.Parameter] = dict(parameters)
        self.places = {name: piece(parameter) for name, parameter in parameters.items()}

    def __enter__(self) -> Moved:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def sum_gradients(self, world: World) -> None:
        """Replace each gradient by its sum over the ranks."""
        sum_gradients(world, list(self.parameters.values()))

    def gradient_norm(self, world: World) -> float:
        """The 2-norm of all gradients together, as they are after `sum_gradients`."""
        gradients = self.gradients()
        return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0

    def gradients(self) -> list[Tensor]:
        """Those that there are."""
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def spread(self) -> None:
        """Let the model have what was moved; here it has it already."""


class Masters(Moved):
    """Copies in float32 of parameters that compute in another dtype.

    Within the context the parameters are in `dtype`, and each micro-batch's gradient is added to
    the master's in float32 as soon as it is there. After it they are in float32 again, with the
    masters' values. A parameter keeps being the same object, so whatever is tied stays tied.

    Args:
        model: Whose parameters they are.
        parameters: What learns, by name, in float32.
        dtype: To compute in.

    Raises:
        InputError: What learns is not in float32, or what does not learn is not in `dtype`;
            nothing was changed.
    """

    def __init__(
        self, model: nn.Module, parameters: Mapping[str, nn.Parameter], dtype: torch.dtype
    ) -> None:
        _check(model, parameters, dtype)
        self._model_parameters = dict(parameters)
        # A master takes over the memory of the parameter, which gets a new one, half as large.
        super().__init__({n: nn.Parameter(p.detach()) for n, p in parameters.items()})
        self._dtype = dtype
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Masters:
        for name, parameter in self._model_parameters.items():
            parameter.grad = None
            parameter.data = self.parameters[name].detach().to(self._dtype)
            hook = parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(_collect, self.parameters[name])
            )
            self._hooks.append(hook)
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for name, parameter in self._model_parameters.items():
            parameter.grad = None
            parameter.data = self.parameters[name].data

    @torch.no_grad()
    def spread(self) -> None:
        """Round the masters into the model's parameters."""
        for name, parameter in self._model_parameters.items():
            parameter.copy_(self.parameters[name])


def what_moves(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], dtype: ComputeDtype | None
) -> Moved:
    """What the optimizer of a run moves.

    Args:
        model: The model.
        parameters: What learns of it, by name.
        dtype: To compute in; None for that of the parameters as they are.

    Raises:
        InputError: As `Masters`; or the model is spread over ranks, and a dtype is asked for.
    """
    if any(is_spread(parameter) for parameter in parameters.values()):
        from puna.train.shards import Shards  # which builds on what is here

        if dtype is not None:
            raise InputError(
                "the model is spread over the ranks, which gather it in a dtype of their own",
                fix="give compute_dtype where it is spread, and null to train.compute_dtype",
            )
        return Shards(model, parameters)
    if dtype is None:
        return Moved(parameters)
    return Masters(model, parameters, {"bfloat16": torch.bfloat16}[dtype])


def _collect(master: nn.Parameter, parameter: Tensor) -> None:
    """Add a gradient that has just been formed to the master's."""
    gradient = parameter.grad
    assert gradient is not None, "called after one was accumulated"
    parameter.grad = None
    if master.grad is None:
        master.grad = gradient.to(master.dtype)
    else:
        master.grad += gradient


def _check(model: nn.Module, parameters: Mapping[str, nn.Parameter], dtype: torch.dtype) -> None:
    for name, parameter in parameters.items():
        if parameter.dtype is not torch.float32:
            raise InputError(
                f"the parameter {name!r} learns in {parameter.dtype}; masters are in float32",
                fix="open the model in float32",
            )
    learning = {id(parameter) for parameter in parameters.values()}
    for name, parameter in model.named_parameters():
        frozen = id(parameter) not in learning and parameter.is_floating_point()
        if frozen and parameter.dtype is not dtype:
            raise InputError(
                f"the parameter {name!r} does not learn and is in {parameter.dtype}, which does "
                f"not compute together with {dtype}",
                fix=f"open the model in {str(dtype).removeprefix('torch.')}, or set "
                "train.compute_dtype to null",
            )
