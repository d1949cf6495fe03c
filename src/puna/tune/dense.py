"""What surgery asks of a linear layer, whatever it keeps its weights in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from puna.errors import InputError
from puna.model.linear import Linear


def is_linear(module: nn.Module) -> bool:
    """Whether a module says that it maps `in_features` to `out_features`."""
    sizes = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    return all(isinstance(size, int) for size in sizes)


def features(module: nn.Module) -> tuple[int, int]:
    """The `in_features` and `out_features` of a linear layer."""
    ins, outs = module.in_features, module.out_features
    assert isinstance(ins, int)
    assert isinstance(outs, int)
    return ins, outs


def check_dense(module: nn.Module) -> None:
    """Refuse a module that `dense_weight` cannot ask.

    Raises:
        InputError: It is neither torch's linear layer nor has a method `dense_weight()`.
    """
    if not is_linear(module) or not (
        isinstance(module, nn.Linear) or callable(getattr(module, "dense_weight", None))
    ):
        raise InputError(
            f"a {type(module).__name__} cannot give its weight as one matrix",
            fix="use a method that needs none (lora without merging), or dense weights",
        )


def dense_weight(module: nn.Module) -> Tensor:
    """The weight [out, in] of a linear layer, in the dtype that it computes in.

    A layer that keeps it in another form (quantized, say) has a method `dense_weight()`.

    Raises:
        InputError: The layer can do neither.
    """
    check_dense(module)
    method = getattr(module, "dense_weight", None)
    weight = module.weight if method is None else method()
    assert isinstance(weight, Tensor)
    return weight.detach()


def dense_bias(module: nn.Module) -> Tensor | None:
    """The bias [out] of a linear layer; None where it has none."""
    bias = getattr(module, "bias", None)
    return bias.detach() if isinstance(bias, Tensor) else None


def plain_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """The model's own linear layer around a weight [out, in] and a bias [out], not copied."""
    with torch.device("meta"):
        linear = Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear.eval()


def device_of(module: nn.Module) -> torch.device:
    """Where the first parameter or buffer of a module lies; the CPU if it has none."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")
