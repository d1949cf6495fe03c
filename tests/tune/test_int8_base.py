"""A base whose linear layers keep int8: tunable, since a wrapper only calls `base(x)`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.tolerances import assert_close
from puna.errors import InputError
from puna.model import LlamaModel
from puna.model.linear import Linear
from puna.tune import BaseReference, LoraConfig, attach, attached, load_tuned, method_of, save_tuned
from tune.battery import METHODS, base, logits, loss, perturb, perturbed


class Int8Linear(nn.Module):
    """A linear layer that keeps int8 and a scale per row, and has no parameter at all."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        scales = weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("scales", scales)
        self.register_buffer("values", (weight / scales).round().to(torch.int8))

    def dense_weight(self) -> Tensor:
        return self.values.float() * self.scales

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.dense_weight().t()


class Opaque(nn.Module):
    """A linear layer that can be called, and nothing else."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.call = [linear]

    def forward(self, x: Tensor) -> Tensor:
        return self.call[0](x)


def quantized(kind: type[nn.Module] = Int8Linear) -> LlamaModel:
    """A model with every linear layer of its blocks replaced."""
    model = base()
    for block in model.model.layers:
        for parent in (block.self_attn, block.mlp):
            for name, module in list(parent.named_children()):
                setattr(parent, name, kind(module))
    return model


@pytest.mark.parametrize("name", METHODS)
def test_every_method_tunes_an_int8_base(name: str, tmp_path: Path) -> None:
    model = quantized()
    plain = logits(model)
    tuned = attach(model, METHODS[name])
    assert_close(logits(model), plain, "logits")
    perturb(tuned)
    assert (logits(model) - plain).abs().max() > 1e-3
    loss(model).backward()
    assert all(p.grad is not None for p in tuned.parameters().values())
    expected = logits(model)
    if name != "full":
        save_tuned(tmp_path, tuned, base=BaseReference("int8"))
        again = load_tuned(quantized(), tmp_path, check_identity=None)
        assert torch.equal(logits(again.model), expected)
        with tuned.disabled():
            assert torch.equal(logits(model), plain)
    if method_of(METHODS[name]).mergeable:
        tuned.merge()
        assert_close(logits(model), expected, "logits")
        merged = {
            type(place.parent.get_submodule(place.path.rpartition(".")[2]))
            for place in tuned.places
            if place.path.endswith("proj")
        }
        assert merged <= {Linear}


def test_lora_needs_no_weight_until_it_is_merged() -> None:
    model = quantized(Opaque)
    tuned = perturbed(LoraConfig(rank=2), model)
    expected = logits(model)
    with pytest.raises(InputError, match="a Opaque cannot give its weight as one matrix"):
        tuned.merge()
    assert torch.equal(logits(model), expected)
    with pytest.raises(InputError, match="cannot give its weight"):
        attach(quantized(Opaque), METHODS["dora"])


def test_full_refuses_before_it_changes_anything() -> None:
    model = quantized(Opaque)
    modules = dict(model.named_modules())
    with pytest.raises(InputError, match="cannot give its weight"):
        attach(model, METHODS["full"])
    assert dict(model.named_modules()) == modules
    assert attached(model) == ()
    assert not any(parameter.requires_grad for parameter in model.parameters())
