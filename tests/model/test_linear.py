"""The linear layer gives torch's results on either path, and takes the fast one when it may."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.tolerances import assert_close
from puna.model.linear import Linear
from puna.model.products import swiglu

WIDTHS = [(16, 24), (33, 7), (1, 1), (64, 1), (1, 64), (576, 192)]
SHAPES = [(), (1,), (5,), (1, 1), (2, 3), (1, 300), (0,), (2, 0), (0, 3)]
FAST = pytest.mark.skipif(not torch._C._has_mkldnn, reason="this torch has no oneDNN")


class Calls(TorchDispatchMode):
    """Notes the names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))

    @property
    def fast(self) -> bool:
        return any("mkldnn" in name for name in self.names)


def layer_and_input(
    widths: tuple[int, int] = (16, 24), shape: tuple[int, ...] = (2, 3), bias: bool = True
) -> tuple[Linear, Tensor]:
    generator = torch.Generator().manual_seed(3)
    layer = Linear(*widths, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer, torch.randn(*shape, widths[0], generator=generator)


def expected(layer: Linear, x: Tensor) -> Tensor:
    """In float64, so that neither path is its own judge."""
    bias = None if layer.bias is None else layer.bias.double()
    return F.linear(x.double(), layer.weight.double(), bias).detach()


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_shape_of_input(widths: tuple[int, int], bias: bool, guard: Any) -> None:
    for shape in SHAPES:
        layer, x = layer_and_input(widths, shape, bias)
        with guard():
            out = layer(x)
        assert out.shape == (*shape, widths[1])
        assert out.dtype == torch.float32
        assert_close(out, expected(layer, x), "linear")


LAYOUTS = {
    "transposed": lambda x: x.transpose(0, 1),
    "strided rows": lambda x: x[:, ::2],
    "sliced columns": lambda x: torch.cat((x, x), -1)[..., 3 : 3 + x.shape[-1]],
    "expanded": lambda x: x[:1].expand(5, -1, -1),
    "every second column": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "odd address": lambda x: torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_any_layout_of_input(name: str) -> None:
    layer, x = layer_and_input(shape=(4, 6))
    x = LAYOUTS[name](x)
    before = x.clone()
    with torch.inference_mode():
        assert_close(layer(x), expected(layer, x), "linear")
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["transposed", "odd address", "sliced columns"])
def test_any_layout_of_weights(name: str) -> None:
    """Mapped files put weights at any address; quantized ones may come transposed."""
    layer, x = layer_and_input()
    weight = layer.weight.detach()
    if name == "transposed":
        layer.weight = torch.nn.Parameter(weight.t().contiguous().t())
    else:
        layer.weight = torch.nn.Parameter(LAYOUTS[name](weight))
    with torch.inference_mode():
        assert_close(layer(x), expected(layer, x), "linear")


@FAST
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_the_fast_path_without_gradients(guard: Any) -> None:
    layer, x = layer_and_input()
    with guard(), Calls() as calls:
        layer(x)
    assert calls.fast


@FAST
@pytest.mark.parametrize("widths", [(16, 24), (33, 7), (64, 1), (576, 192)])
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("learns", [("x",), ("bias",), ("weight", "bias"), ("x", "weight", "bias")])
def test_the_fast_path_has_the_gradients_of_the_plain_one(
    widths: tuple[int, int], name: str, learns: tuple[str, ...]
) -> None:
    layer, x = layer_and_input(widths, shape=(4, 6))
    gradients = []
    for has_kernel in (True, False):
        leaf = x.clone().requires_grad_("x" in learns)
        for key, parameter in layer.named_parameters():
            parameter.requires_grad_(key in learns)
            parameter.grad = None
        with patch.object(torch._C, "_has_mkldnn", has_kernel), Calls() as calls:
            out = layer(LAYOUTS[name](leaf))
            (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
        assert calls.fast == has_kernel
        gradients.append([leaf.grad, layer.weight.grad, layer.bias.grad])
    for fast, plain in zip(*gradients, strict=True):
        assert (fast is None) == (plain is None)
        if fast is not None:
            assert_close(fast, plain, "gradient")


@FAST
def test_the_gradients_of_a_single_vector() -> None:
    layer, x = layer_and_input(shape=())
    gradients = []
    for has_kernel in (True, False):
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        with patch.object(torch._C, "_has_mkldnn", has_kernel):
            layer(leaf).square().sum().backward()
        gradients.append([leaf.grad, layer.weight.grad, layer.bias.grad])
    for fast, plain in zip(*gradients, strict=True):
        assert_close(fast, plain, "gradient")


@FAST
def test_a_frozen_layer_keeps_no_input_for_the_backward_pass() -> None:
    layer, x = layer_and_input(shape=(50, 60))
    layer.requires_grad_(False)
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x.requires_grad_())
    assert saved == [layer.weight.numel()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_take_the_plain_path(dtype: torch.dtype) -> None:
    layer, x = layer_and_input()
    layer, x = layer.to(dtype), x.to(dtype)
    with torch.no_grad(), Calls() as calls:
        out = layer(x)
    assert not calls.fast
    assert_close(out, expected(layer, x), "linear", dtype)


def test_a_torch_without_onednn_takes_the_plain_path() -> None:
    layer, x = layer_and_input()
    with patch.object(torch._C, "_has_mkldnn", False), torch.no_grad(), Calls() as calls:
        out = layer(x)
    assert not calls.fast
    assert_close(out, expected(layer, x), "linear")


@pytest.mark.parametrize("wrong", ["width", "dtype"])
def test_what_torch_refuses_is_refused(wrong: str) -> None:
    """A kernel that reads beyond its weights, or reads them as another dtype, must not run."""
    layer, x = layer_and_input()
    if wrong == "width":
        x = x[..., :-1]
    else:
        layer = layer.bfloat16()
    with torch.inference_mode(), pytest.raises(RuntimeError):
        layer(x)


def test_swiglu_has_the_gradients_of_its_formula_and_keeps_two_tensors() -> None:
    gate, up = (torch.randn(5, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = swiglu(gate, up)
    assert len(saved) == 2
    assert torch.equal(out, F.silu(gate) * up)
    assert torch.autograd.gradcheck(swiglu, (gate, up))
    with torch.no_grad():
        assert torch.equal(swiglu(gate, up), out)
