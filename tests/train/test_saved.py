"""What a block keeps for its backward pass: predicted, and counted where autograd keeps it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.reference import TINY, tiny_model
from puna.model import AttentionSpec, LlamaModel
from puna.model.llama import Block
from puna.model.lowering import lower
from puna.model.rope import rotation
from puna.train.saved import Scale, kept_of_block
from puna.tune import attach, method_config

WIDE = replace(TINY, hidden_size=48, intermediate_size=80, num_hidden_layers=2, head_dim=12)
UNGROUPED = replace(WIDE, num_key_value_heads=4)
METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "top layers": {"method": "top_layers", "layers": 2},
    "lora": {"method": "lora", "rank": 3},
    "lora of two": {"method": "lora", "rank": 5, "targets": ["q_proj", "down_proj"]},
    "lora with dropout": {"method": "lora", "rank": 3, "dropout": 0.2},
    "dora": {"method": "dora", "rank": 3},
    "houlsby": {"method": "adapter", "reduction": 4},
    "pfeiffer": {"method": "adapter", "reduction": 4, "style": "pfeiffer", "activation": "gelu"},
    "parallel": {"method": "adapter", "reduction": 4, "style": "parallel", "activation": "silu"},
    "adapter with dropout": {"method": "adapter", "reduction": 4, "dropout": 0.2},
}


class Counter:
    """Storages that autograd keeps, each once; those of parameters and the rotations apart."""

    def __init__(self, apart: list[Tensor]) -> None:
        self.apart = {tensor.untyped_storage().data_ptr() for tensor in apart}
        self.found: dict[int, tuple[int, Tensor]] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.apart:
            self.found[storage.data_ptr()] = (storage.nbytes(), tensor)  # alive: no other takes it
        return tensor

    @property
    def total(self) -> int:
        return sum(nbytes for nbytes, _ in self.found.values())

    def shapes(self) -> str:
        return ", ".join(f"{nbytes}: {list(t.shape)}" for nbytes, t in self.found.values())


def counted(
    model: LlamaModel, rows: int, tokens: int, *, spec: AttentionSpec, first: bool = False
) -> Counter:
    """Run the last block with gradients."""
    block = model.model.layers[-1]
    plan = lower(spec, batch=rows, tokens=tokens, device=torch.device("cpu"))
    angles = rotation(model.frequencies, plan.positions, torch.float32)
    x = torch.randn(rows, tokens, model.config.hidden_size, requires_grad=not first)
    counter = Counter([*model.parameters(), *model.buffers(), *angles])
    with torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda tensor: tensor):
        out = block(x, angles, plan, 1)
    assert out.requires_grad
    return counter


def tuned(method: dict[str, Any] | None, config: Any = WIDE) -> LlamaModel:
    model = tiny_model(config)
    if method is None:
        return model.requires_grad_(True)
    attach(model, method_config(method)).set_train(True)
    return model


def predicted(model: LlamaModel, scale: Scale, *, first: bool = False) -> dict[str, int]:
    block = model.model.layers[-1]
    assert isinstance(block, Block)
    return dict(kept_of_block(block, model.config, scale, first=first))


@pytest.mark.parametrize("config", [WIDE, UNGROUPED], ids=["grouped", "ungrouped"])
@pytest.mark.parametrize("first", [False, True], ids=["inner", "first"])
@pytest.mark.parametrize("name", [None, *METHODS])
def test_every_byte_is_predicted(name: str | None, first: bool, config: Any) -> None:
    model = tuned(None if name is None else METHODS[name], config)
    counter = counted(model, 3, 20, spec=AttentionSpec(), first=first)
    kept = predicted(model, Scale(3, 20, 3, 4, False), first=first)
    assert sum(kept.values()) == counter.total, f"{kept}\ncounted {counter.shapes()}"


@pytest.mark.parametrize("name", [None, "lora", "lora of two", "houlsby"])
def test_documents_in_one_row(name: str | None) -> None:
    model = tuned(None if name is None else METHODS[name])
    documents = torch.tensor([[0] * 7 + [1] * 9 + [2] * 4])
    counter = counted(model, 1, 20, spec=AttentionSpec(document_ids=documents))
    kept = predicted(model, Scale(1, 20, 3, 4, False))
    assert sum(kept.values()) == counter.total, f"{kept}\ncounted {counter.shapes()}"


@pytest.mark.parametrize("config", [WIDE, UNGROUPED], ids=["grouped", "ungrouped"])
@pytest.mark.parametrize("name", [None, "lora"])
def test_documents_in_several_rows(name: str | None, config: Any) -> None:
    model = tuned(None if name is None else METHODS[name], config)
    documents = torch.tensor([[0] * 7 + [1] * 13, [0] * 5 + [1] * 9 + [2] * 6])
    counter = counted(model, 2, 20, spec=AttentionSpec(document_ids=documents))
    kept = predicted(model, Scale(2, 20, 5, 4, False))
    assert sum(kept.values()) == counter.total, f"{kept}\ncounted {counter.shapes()}"


def test_a_gpu_keeps_the_gated_values_and_a_cpu_in_bfloat16_normalised_copies_too() -> None:
    model = tuned(None)
    on_cpu = predicted(model, Scale(3, 20, 3, 4, False))
    on_gpu = predicted(model, Scale(3, 20, 3, 4, True))
    gated = 3 * 20 * WIDE.intermediate_size * 4
    assert sum(on_gpu.values()) - sum(on_cpu.values()) == gated
    composed, fused = (predicted(model, Scale(3, 20, 3, 2, cuda)) for cuda in (False, True))
    copies = 3 * 20 * WIDE.hidden_size * (4 + 2)  # normalised, and the input in float32
    assert sum(composed.values()) - sum(fused.values()) == 2 * copies
    narrow = predicted(model, Scale(3, 20, 3, 2, True))
    assert sum(narrow.values()) < 0.55 * sum(on_gpu.values())


def test_the_parts_have_names() -> None:
    kept = predicted(tuned(METHODS["lora"]), Scale(2, 10, 2, 4, False))
    assert kept["gate"] == kept["up"] == 20 * WIDE.intermediate_size * 4
    assert kept["q_proj: low"] == 20 * 3 * 4
    assert "input_layernorm: normalised" not in kept
