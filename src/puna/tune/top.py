"""Tuning whole layers: the last blocks and the final norm, or everything.

What learns is a float32 copy of what stood there. Where the model computes in another dtype, the
copy is cast as it is used, and gradients are float32 again (a master weight).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from puna.model import Block, LlamaConfig, LlamaModel
from puna.model.linear import Embedding, Linear
from puna.model.norm import RMSNorm
from puna.tune.dense import check_dense, dense_bias, dense_weight, plain_linear
from puna.tune.method import Method, Place, TopLayersConfig, first_layer


class Master(nn.Module):
    """A layer whose parameters are float32 and which computes in `dtype`."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner, dtype
        self.train(inner.training)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives with its parameters cast."""
        cast = {name: p.to(self.dtype) for name, p in self.inner.named_parameters()}
        out: Tensor = torch.func.functional_call(self.inner, cast, (x,))
        return out

    def plain(self) -> nn.Module:
        """The layer by itself, in `dtype`."""
        return _copy(self.inner, self.dtype)


class TunedLayer:
    """A module that learns, and what it is once learning is over.

    Args:
        module: A block, or a single layer.
        config: Of the model.
    """

    def __init__(self, module: nn.Module, config: LlamaConfig) -> None:
        self.config = config
        self.layers = {path: _learning(layer) for path, layer in _layers(module, config).items()}
        self.module = _assembled(module, config, self.layers)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by the name that it has in the model."""
        return {
            f"{path}.{name}".lstrip("."): parameter
            for path, layer in self.layers.items()
            for name, parameter in _inside(layer).named_parameters()
        }

    def plain(self) -> nn.Module:
        """The module with plain layers only; itself where it has no others."""
        if not any(isinstance(layer, Master) for layer in self.layers.values()):
            return self.module
        layers = {
            path: layer.plain() if isinstance(layer, Master) else layer
            for path, layer in self.layers.items()
        }
        return _assembled(self.module, self.config, layers)


class TopLayersMethod(Method):
    """The last k blocks and the final norm learn, and the originals are kept beside them."""

    identity_start = True
    mergeable = True
    detachable = True

    def __init__(self, config: TopLayersConfig) -> None:
        super().__init__()
        self.config = config

    def places(self, model: LlamaModel, generator: torch.Generator) -> Iterator[Place]:
        """One place for each block, and one for the norm."""
        layers = model.model.layers
        for level in range(first_layer(model, self.config.layers), len(layers)):
            path = f"model.layers.{level}"
            yield _place(model, path, level, layers, keep=True)
        yield _place(model, "model.norm", len(layers), model.model, keep=True)


class FullMethod(Method):
    """Everything learns. The originals are let go: a second copy of a model is too much to keep."""

    identity_start = True
    mergeable = True
    detachable = False

    def places(self, model: LlamaModel, generator: torch.Generator) -> Iterator[Place]:
        """The embedding, every block, the norm and the head."""
        for module in (model.model.embed_tokens, *model.model.layers, model.lm_head):
            for layer in _layers(module, model.config).values():
                if not isinstance(layer, RMSNorm | Embedding | Linear):
                    check_dense(layer)  # before the first original is gone
        inside = model.model
        top = len(inside.layers)
        embedding = _place(model, "model.embed_tokens", -1, inside, keep=False)
        yield embedding
        for level in range(top):
            yield _place(model, f"model.layers.{level}", level, inside.layers, keep=False)
        yield _place(model, "model.norm", top, inside, keep=False)
        if model.config.tie_word_embeddings:
            yield _tied_head(model, embedding.parameters["weight"])
        else:
            yield _place(model, "lm_head", top, model, keep=False)


def _place(model: LlamaModel, path: str, level: int, parent: nn.Module, *, keep: bool) -> Place:
    base = model.get_submodule(path)
    layer = TunedLayer(base, model.config)
    kept = base if keep else None
    return Place(path, level, parent, kept, layer.module, layer.parameters(), layer.plain)


def _tied_head(model: LlamaModel, weight: nn.Parameter) -> Place:
    """The head around the embedding's parameter, which is counted there."""
    dtype = model.lm_head.weight.dtype
    with torch.device("meta"):
        inner = Linear(weight.shape[1], weight.shape[0], bias=False)
    inner.weight = weight
    layer = inner if dtype is torch.float32 else Master(inner, dtype)
    plain = layer.plain if isinstance(layer, Master) else inner.eval
    return Place("lm_head", len(model.model.layers), model, None, layer, {}, plain)


def _layers(module: nn.Module, config: LlamaConfig) -> dict[str, nn.Module]:
    """The layers of a block by their path in it; a single layer by the empty path."""
    if not isinstance(module, Block):
        return {"": module}
    with torch.device("meta"):
        paths = [path for path, inner in Block(config).named_modules() if not [*inner.children()]]
    return {path: module.get_submodule(path) for path in paths}


def _assembled(
    module: nn.Module, config: LlamaConfig, layers: Mapping[str, nn.Module]
) -> nn.Module:
    """Another module like `module`, around the given layers."""
    if not isinstance(module, Block):
        return layers[""]
    with torch.device("meta"):
        block = Block(config)
    for path, layer in layers.items():
        parent, _, key = path.rpartition(".")
        setattr(block.get_submodule(parent), key, layer)
    block.cross_attention = module.cross_attention  # is tuned by itself
    return block.train(module.training)


def _inside(layer: nn.Module) -> nn.Module:
    return layer.inner if isinstance(layer, Master) else layer


def _learning(layer: nn.Module) -> nn.Module:
    """A float32 copy of a layer that learns, and computes in the dtype of the layer."""
    if not isinstance(layer, RMSNorm | Embedding | Linear):
        layer = plain_linear(dense_weight(layer), dense_bias(layer))
    dtype = layer.weight.dtype
    learning = _copy(layer, torch.float32).requires_grad_(True)
    return learning if dtype is torch.float32 else Master(learning, dtype)


def _copy(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a single layer in another dtype; it shares no memory with the first."""
    new = copy.copy(layer)
    new._parameters = {
        name: None if p is None else nn.Parameter(p.detach().to(dtype, copy=True), False)
        for name, p in layer._parameters.items()
    }
    return new
