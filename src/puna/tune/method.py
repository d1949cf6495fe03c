"""What a recipe says about a tuning method, and what a method must be able to do.

A method turns a model into places: modules to put in the place of others. Nothing here knows how
a method computes; `registry` knows which class belongs to which configuration.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import nn

from puna.config import from_dict
from puna.errors import InputError
from puna.model import LlamaModel

ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_TARGETS = ("gate_proj", "up_proj", "down_proj")


def _check_layers(layers: int | None) -> None:
    if layers is not None and layers < 1:
        raise InputError(f"layers must be at least 1, not {layers}", fix="leave it out for all")


def _check_scale(name: str, value: float) -> None:
    if not math.isfinite(value) or value == 0:
        raise InputError(f"{name} must be a finite number other than 0, not {value}")


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise InputError(f"dropout is a share of at least 0 and below 1, not {dropout}")


@dataclass(frozen=True)
class FullConfig:
    """Every parameter learns."""

    method: Literal["full"] = "full"
    """Which method this is."""


@dataclass(frozen=True)
class TopLayersConfig:
    """The last blocks and the final norm learn; the head and the trunk stay as they are."""

    method: Literal["top_layers"] = "top_layers"
    """Which method this is."""
    layers: int = 4
    """How many of the last blocks learn."""

    def __post_init__(self) -> None:
        _check_layers(self.layers)


@dataclass(frozen=True)
class LowRankConfig:
    """What LoRA and DoRA have in common."""

    method: str = ""
    """Which method this is."""
    rank: int = 8
    """Columns of the down-projection."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank, or with `rslora` by alpha / sqrt(rank)."""
    dropout: float = 0.0
    """Share of the inputs of the update that is zeroed while training."""
    rslora: bool = False
    """Rank-stabilized scaling (Kalajdzievski 2023, arXiv 2312.03732)."""
    targets: tuple[str, ...] = (*ATTENTION_TARGETS, *MLP_TARGETS)
    """Linear layers, by the end of their path (`q_proj`) or the whole of it."""
    layers: int | None = None
    """Only the last so many blocks; all when null."""
    rank_pattern: dict[str, int] = field(default_factory=dict)
    """Another rank for some targets, by the end of their path; the first that fits counts."""
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    """Another alpha for some targets, in the same way."""

    def __post_init__(self) -> None:
        _check_layers(self.layers)
        _check_dropout(self.dropout)
        for alpha in (self.alpha, *self.alpha_pattern.values()):
            _check_scale("alpha", alpha)
        for rank in (self.rank, *self.rank_pattern.values()):
            if rank < 1:
                raise InputError(f"rank must be at least 1, not {rank}")
        if not self.targets:
            raise InputError("targets is empty", fix="name at least one, such as q_proj")


@dataclass(frozen=True)
class LoraConfig(LowRankConfig):
    """Low-rank updates of linear layers (Hu et al. 2021, arXiv 2106.09685)."""

    method: Literal["lora"] = "lora"
    """Which method this is."""
    bias: bool = False
    """The update has a bias of its own (PEFT's `lora_bias`)."""


@dataclass(frozen=True)
class DoraConfig(LowRankConfig):
    """LoRA on the direction of each weight row, its length learned apart (arXiv 2402.09353)."""

    method: Literal["dora"] = "dora"
    """Which method this is."""


@dataclass(frozen=True)
class AdapterConfig:
    """Bottlenecks: a projection down, a nonlinearity, a projection up, added to the stream."""

    method: Literal["adapter"] = "adapter"
    """Which method this is."""
    style: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby"
    """`houlsby`: after attention and after the MLP (arXiv 1902.00751). `pfeiffer`: after the MLP
    only (arXiv 2005.00052). `parallel`: beside the MLP, on its input (arXiv 2110.04366)."""
    reduction: int = 16
    """The bottleneck is hidden_size / reduction wide."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """The nonlinearity between the projections."""
    scale: float = 1.0
    """Factor on what a bottleneck adds."""
    dropout: float = 0.0
    """Share of a bottleneck's inputs that is zeroed while training."""
    layers: int | None = None
    """Only the last so many blocks; all when null."""

    def __post_init__(self) -> None:
        _check_layers(self.layers)
        _check_dropout(self.dropout)
        _check_scale("scale", self.scale)
        if self.reduction < 1:
            raise InputError(f"reduction must be at least 1, not {self.reduction}")


MethodConfig: TypeAlias = FullConfig | TopLayersConfig | LoraConfig | DoraConfig | AdapterConfig

_CONFIGS: Mapping[str, type[MethodConfig]] = {
    "full": FullConfig,
    "top_layers": TopLayersConfig,
    "lora": LoraConfig,
    "dora": DoraConfig,
    "adapter": AdapterConfig,
}


def method_config(data: Mapping[str, Any], where: str = "method") -> MethodConfig:
    """Build the configuration that the key `method` of plain data names.

    Raises:
        InputError: There is no such method, or a key or value is wrong.
    """
    name = data.get("method")
    if not isinstance(name, str) or name not in _CONFIGS:
        known = ", ".join(_CONFIGS)
        raise InputError(f"method: {name!r} is not known", where=where, fix=f"known: {known}")
    return from_dict(_CONFIGS[name], data, where)


class Wrapper(nn.Module, ABC):
    """A module that calls the one it was put in the place of, and adds to it."""

    base: nn.Module

    @abstractmethod
    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """What learns here, by the name that it has in a file."""


@dataclass
class Place:
    """One spot of a model: what stands there before, while and after it is tuned."""

    path: str  # such as model.layers.3.self_attn.q_proj
    level: int  # -1 the embedding, then the number of the block; the final norm and head follow
    parent: nn.Module
    base: nn.Module | None  # what stood there; None where a method keeps no copy of it
    tuned: nn.Module
    parameters: dict[str, nn.Parameter]  # what learns, by its name below `path`
    plain: Callable[[], nn.Module] | None = None  # the tuned weights as a module of the model

    def put(self, module: nn.Module) -> None:
        """Let `module` stand in this place."""
        setattr(self.parent, self.path.rpartition(".")[2], module)


class Method(ABC):
    """A way to tune, for one configuration. The battery of tests holds it to what it declares."""

    identity_start: ClassVar[bool]  # before the first step the model computes what the base does
    mergeable: ClassVar[bool]  # what was learned can become plain weights of the model
    detachable: ClassVar[bool]  # taken off, it leaves the base as it was, bit for bit
    prefix: ClassVar[str] = ""  # before the path of every tensor in the file

    def __init__(self) -> None:
        self.notes: list[str] = []  # what a user should know about what `places` found

    @abstractmethod
    def places(self, model: LlamaModel, generator: torch.Generator) -> Iterator[Place]:
        """The surgery, in a fixed order; nothing is put in place yet.

        Args:
            model: Whole and plain.
            generator: Of the CPU; the only source of chance.

        Raises:
            InputError: The model has nothing for this configuration to work on.
        """


def first_layer(model: LlamaModel, layers: int | None) -> int:
    """The first of the last `layers` blocks; 0 for all.

    Raises:
        InputError: The model has fewer.
    """
    count = len(model.model.layers)
    if layers is not None and layers > count:
        raise InputError(f"layers is {layers}, but the model has {count}")
    return 0 if layers is None else count - layers
