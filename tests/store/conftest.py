"""Tiny random LLaMAs of every shape, as configs, tensors and folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.store import LazyTensor, write_hf
from puna.store.checks import expected_shapes
from puna.store.config import complete_config

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}

Config = dict[str, Any]
Tensors = dict[str, torch.Tensor]


def _config(**changes: Any) -> Config:
    raw = {"model_type": "llama", **SIZES, **changes}
    return complete_config(raw, Path("config.json"))


def _tensors(
    config: Mapping[str, Any], seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in expected_shapes(config):
        sizes = [eval_size(size, config) for size in shape]
        made[name] = (torch.randn(sizes, generator=generator) * 0.1).to(dtype)
    return made


def eval_size(size: str, config: Mapping[str, Any]) -> int:
    product = 1
    for field in size.split(" * "):
        product *= config[field]
    return product


def _value(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _lazy(tensors: Mapping[str, torch.Tensor]) -> list[LazyTensor]:
    return [
        LazyTensor(name, tuple(t.shape), t.dtype, str(t.dtype), partial(_value, t))
        for name, t in tensors.items()
    ]


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """A completed config; keyword arguments replace fields."""
    return _config


@pytest.fixture
def make_tensors() -> Callable[..., Tensors]:
    """Random tensors for a config, by Hugging Face name."""
    return _tensors


@pytest.fixture
def lazy() -> Callable[[Mapping[str, torch.Tensor]], list[LazyTensor]]:
    """Tensors in memory, as the writers take them."""
    return _lazy


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a Hugging Face folder of a tiny LLaMA; keyword arguments replace config fields."""

    def write(name: str = "model", tensors: Tensors | None = None, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = _config(**changes)
        write_hf(folder, config=config, tensors=_lazy(tensors or _tensors(config)), files={})
        return folder

    return write
