"""Do the weights fit their config? Names and shapes from headers alone, NaN from the values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from puna.errors import InputError
from puna.store.checkpoint import Checkpoint, LazyTensor

_PART = 1 << 20  # values
_QUERY = "num_attention_heads * head_dim"
_KEY = "num_key_value_heads * head_dim"
_BLOCK = {
    "input_layernorm.weight": ("hidden_size",),
    "self_attn.q_proj.weight": (_QUERY, "hidden_size"),
    "self_attn.k_proj.weight": (_KEY, "hidden_size"),
    "self_attn.v_proj.weight": (_KEY, "hidden_size"),
    "self_attn.o_proj.weight": ("hidden_size", _QUERY),
    "post_attention_layernorm.weight": ("hidden_size",),
    "mlp.gate_proj.weight": ("intermediate_size", "hidden_size"),
    "mlp.up_proj.weight": ("intermediate_size", "hidden_size"),
    "mlp.down_proj.weight": ("hidden_size", "intermediate_size"),
}
_ATTENTION_BIASES = {
    "self_attn.q_proj.bias": (_QUERY,),
    "self_attn.k_proj.bias": (_KEY,),
    "self_attn.v_proj.bias": (_KEY,),
    "self_attn.o_proj.bias": ("hidden_size",),
}
_MLP_BIASES = {
    "mlp.gate_proj.bias": ("intermediate_size",),
    "mlp.up_proj.bias": ("intermediate_size",),
    "mlp.down_proj.bias": ("hidden_size",),
}


def expected_shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every tensor that a config asks for, with its shape in terms of the config's fields.

    Args:
        config: The completed keys of Hugging Face's config.json for LlamaForCausalLM.

    Yields:
        A name such as `lm_head.weight`, and a shape such as `("vocab_size", "hidden_size")`.
    """
    block = dict(_BLOCK)
    if config["attention_bias"]:
        block |= _ATTENTION_BIASES
    if config["mlp_bias"]:
        block |= _MLP_BIASES
    yield "model.embed_tokens.weight", ("vocab_size", "hidden_size")
    for layer in range(config["num_hidden_layers"]):
        for name, shape in block.items():
            yield f"model.layers.{layer}.{name}", shape
    yield "model.norm.weight", ("hidden_size",)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", ("vocab_size", "hidden_size")


def check_tensors(checkpoint: Checkpoint) -> None:
    """Compare names, shapes and dtypes of a checkpoint with what its config implies.

    Reads no values.

    Raises:
        InputError: A tensor is missing, extra, misshapen or not of a floating dtype.
    """
    config, tensors, path = checkpoint.config, checkpoint.tensors, checkpoint.path
    _check_layers(config, tensors, path)
    expected = dict(expected_shapes(config))
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise InputError(
            f"missing {_listed(missing)}; expected {len(expected)} tensors, found {len(tensors)}",
            where=path,
            fix="the checkpoint is incomplete, or its config is of another model",
        )
    extra = [name for name in tensors if name not in expected]
    if extra:
        raise InputError(
            f"extra {_listed(extra)}, which the config does not ask for"
            + "".join(_hint(name, config) for name in extra[:1]),
            where=tensors[extra[0]].file or path,
            fix="the config is of another model, or the weights hold more than a LLaMA",
        )
    for name, shape in expected.items():
        _check_tensor(tensors[name], shape, config, path)


def check_finite(name: str, tensor: torch.Tensor, where: Path | str | None) -> None:
    """Refuse weights that hold NaN or infinity.

    Args:
        name: The tensor's name, for messages.
        tensor: A floating tensor of any shape.
        where: The file it came from.

    Raises:
        InputError: Names the first bad position and the value found there.
    """
    flat = tensor.reshape(-1)
    # Float32 is summed as it lies; narrower types in parts, since their sums need a wider copy.
    step = max(len(flat), 1) if tensor.itemsize >= 4 else _PART
    if all(_is_finite(flat[start : start + step]) for start in range(0, len(flat), step)):
        return
    bad = ~torch.isfinite(tensor.float())
    index = tuple(bad.nonzero()[0].tolist())
    raise InputError(
        f"tensor {name!r}: {int(bad.sum())} of {tensor.numel()} values are not finite; "
        f"expected a number at {list(index)}, found {tensor[index].item()}",
        where=where,
        fix="the weights are damaged; take another copy or an earlier checkpoint",
    )


def _is_finite(part: torch.Tensor) -> bool:
    # A sum is one pass without memory, and finite only if every term is; but it may overflow.
    part = part if part.itemsize >= 4 else part.float()
    return math.isfinite(part.sum().item()) or bool(torch.isfinite(part).all())


def _check_layers(config: Mapping[str, Any], tensors: Mapping[str, LazyTensor], path: Path) -> None:
    """Say it in one sentence when a config has more or fewer layers than the weights."""
    prefix = "model.layers."
    layers = {
        name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)
    }
    if len(layers) != config["num_hidden_layers"]:
        raise InputError(
            f"the config says num_hidden_layers = {config['num_hidden_layers']}, but the weights "
            f"hold {len(layers)} layers",
            where=path,
            fix="the checkpoint is incomplete, or its config is of another model",
        )


def _check_tensor(
    tensor: LazyTensor, shape: tuple[str, ...], config: Mapping[str, Any], path: Path
) -> None:
    sizes = tuple(math.prod(config[field] for field in size.split(" * ")) for size in shape)
    where = tensor.file or path
    if tensor.shape != sizes:
        raise InputError(
            f"tensor {tensor.name!r}: expected shape {list(sizes)}, which is "
            f"({', '.join(shape)}) in the config, found {list(tensor.shape)}",
            where=where,
            fix="the config contradicts the weights; one of them is of another model",
        )
    if not tensor.dtype.is_floating_point:
        raise InputError(
            f"tensor {tensor.name!r}: expected floating point, found {tensor.stored}", where=where
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"tensor{'s' if len(names) > 1 else ''} {shown}{more}"


def _hint(name: str, config: Mapping[str, Any]) -> str:
    if name.endswith(".bias"):
        key = "attention_bias" if ".self_attn." in name else "mlp_bias"
        return f" ({key} is {config[key]})"
    return ""
