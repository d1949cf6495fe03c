"""GGUF metadata to the keys of config.json and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from puna.artifact import parse_json
from puna.errors import InputError
from puna.store.config import check_rope, complete_config, default_generation, refuse_fields

ROPE_FREQS = "rope_freqs.weight"
# Ours: the parameters behind `rope_freqs.weight`, which other readers do not need.
ROPE_KEY = "puna.rope_scaling"
# Ours: generation_config.json as it was, since GGUF has one end of text and no sampling settings.
GENERATION_KEY = "puna.generation_config"

_MAX_GENERATION = 1 << 16  # characters

_SIZES = {
    "num_hidden_layers": "llama.block_count",
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_attention_heads": "llama.attention.head_count",
    "max_position_embeddings": "llama.context_length",
}
_TOKENS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}
_EPSILON = "llama.attention.layer_norm_rms_epsilon"
_THETA = "llama.rope.freq_base"
_KEY_HEADS = "llama.attention.head_count_kv"
_KEY_LENGTH = "llama.attention.key_length"
_VALUE_LENGTH = "llama.attention.value_length"
_ROTATED = "llama.rope.dimension_count"


def config_from_metadata(
    metadata: Mapping[str, Any],
    tensors: Iterable[str],
    factors: torch.Tensor | None,
    where: Path,
) -> dict[str, Any]:
    """The config of a GGUF file, completed as `complete_config` does.

    Args:
        metadata: The parsed metadata.
        tensors: Names of the file's tensors: a missing `output.weight` is a tied head.
        factors: Values of `rope_freqs.weight`, [head_dim / 2], if the file has it.
        where: The file, for messages.

    Raises:
        InputError: Another architecture, a missing key, or a field that LLaMA has not.
    """
    _check_architecture(metadata, where)
    names = set(tensors)
    window = _number(metadata, "llama.attention.sliding_window", 0, where)
    raw: dict[str, Any] = {"model_type": "mistral" if window else "llama"}
    raw |= {key: _need(metadata, other, where) for key, other in _SIZES.items()}
    raw["num_key_value_heads"] = metadata.get(_KEY_HEADS, raw["num_attention_heads"])
    for key in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        raw[key] = _one(raw[key], key, where)
    raw["head_dim"] = _head_dim(metadata, where)
    _need(metadata, _EPSILON, where)
    raw["rms_norm_eps"] = shortest_float32(_number(metadata, _EPSILON, 0, where))
    raw["rope_theta"] = shortest_float32(_number(metadata, _THETA, 10000.0, where))
    raw["vocab_size"] = _vocab_size(metadata, where)
    raw["tie_word_embeddings"] = "output.weight" not in names
    raw["attention_bias"] = "blk.0.attn_q.bias" in names
    raw["mlp_bias"] = "blk.0.ffn_gate.bias" in names
    for key, other in _TOKENS.items():
        if other in metadata:
            raw[key] = round(_number(metadata, other, 0, where))
    if window:
        raw["sliding_window"] = window
    config = complete_config(raw, where)
    config["rope_scaling"] = _rope_scaling(metadata, factors, config, where)
    check_rope(config["rope_scaling"], where)
    return config


def generation_to_metadata(generation: Mapping[str, Any] | None, where: Path) -> dict[str, Any]:
    """The metadata that carries a generation config; empty for an empty one.

    Raises:
        InputError: It is over the limit that the reader has.
    """
    if not generation:
        return {}
    text = json.dumps(dict(generation), ensure_ascii=False)
    if len(text) > _MAX_GENERATION:
        raise InputError(
            f"a generation_config of {len(text)} characters is over the limit of {_MAX_GENERATION}",
            where=where,
        )
    return {GENERATION_KEY: text}


def generation_from_metadata(
    metadata: Mapping[str, Any], config: Mapping[str, Any], where: Path
) -> dict[str, Any]:
    """The generation config: the one that our writer noted, else what the token ids say.

    Raises:
        InputError: What was noted is too long, or no JSON object.
    """
    if GENERATION_KEY not in metadata:
        return default_generation(config, where)
    text, place = metadata[GENERATION_KEY], f"{where}: {GENERATION_KEY}"
    if not isinstance(text, str) or len(text) > _MAX_GENERATION:
        raise InputError(f"expected a text of up to {_MAX_GENERATION} characters", where=place)
    noted = parse_json(text.encode(), where=place)
    if not isinstance(noted, dict):
        raise InputError(f"expected an object, found a {type(noted).__name__}", where=place)
    return noted


def metadata_from_config(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The `llama.*` metadata that llama.cpp asks for.

    Args:
        config: A completed config.
        where: The file to be written, for messages.

    Raises:
        InputError: GGUF cannot express a field; the message names it.
    """
    refuse_fields(config, "GGUF", where)
    metadata: dict[str, Any] = {"general.architecture": "llama"}
    metadata |= {other: config[key] for key, other in _SIZES.items()}
    metadata[_KEY_HEADS] = config["num_key_value_heads"]
    metadata[_EPSILON] = float(config["rms_norm_eps"])
    metadata[_THETA] = float(config["rope_theta"])
    metadata[_ROTATED] = config["head_dim"]
    metadata[_KEY_LENGTH] = metadata[_VALUE_LENGTH] = config["head_dim"]
    metadata["llama.vocab_size"] = config["vocab_size"]
    scaling = config.get("rope_scaling")
    kind = scaling["rope_type"] if scaling else None
    if scaling and kind == "linear":
        metadata["llama.rope.scaling.type"] = "linear"
        metadata["llama.rope.scaling.factor"] = float(scaling["factor"])
    elif scaling and kind == "llama3":
        keys = ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL)
        parts = [f'"{key}": {scaling[key]!r}' for key in keys]
        metadata[ROPE_KEY] = "{" + ", ".join(parts) + "}"
    elif scaling:
        raise InputError(f"GGUF cannot express rope_scaling of type {kind!r}", where=where)
    return metadata


def llama3_factors(config: Mapping[str, Any]) -> torch.Tensor:
    """What Llama 3.1 divides each rotary frequency by: the content of `rope_freqs.weight`.

    Source: Llama 3.1's `apply_scaling`, as in llama.cpp's convert_hf_to_gguf.py.

    Args:
        config: A completed config with `rope_scaling` of type llama3.

    Returns:
        float32 [head_dim / 2].
    """
    scaling, dim = config["rope_scaling"], config["head_dim"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    steps = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    wavelengths = 2 * math.pi * config["rope_theta"] ** steps
    smooth = ((scaling[_ORIGINAL] / wavelengths - low) / (high - low)).clamp(0, 1)
    divisors: torch.Tensor = 1 / ((1 - smooth) / scaling["factor"] + smooth)
    return divisors


def shortest_float32(value: float) -> float:
    """The shortest decimal that rounds to the same float32: 9.999999747378752e-06 is 1e-05."""
    return float(str(np.float32(value)))


_ORIGINAL = "original_max_position_embeddings"


def _check_architecture(metadata: Mapping[str, Any], where: Path) -> None:
    name = metadata.get("general.architecture")
    if name != "llama":
        raise InputError(
            f"unknown architecture {name!r}; supported in GGUF is 'llama'",
            where=where,
            fix="choose a checkpoint of the LLaMA family",
        )
    if _number(metadata, "llama.expert_count", 0, where):
        raise InputError(
            "unknown architecture: a mixture of experts (llama.expert_count = "
            f"{metadata['llama.expert_count']})",
            where=where,
            fix="choose a dense LLaMA",
        )
    if _number(metadata, "split.count", 0, where) > 1:
        raise InputError(
            f"is one of {metadata['split.count']} parts of a split model",
            where=where,
            fix="join them with `llama-gguf-split --merge`",
        )


def _need(metadata: Mapping[str, Any], key: str, where: Path) -> Any:
    if key not in metadata:
        raise InputError(f"the metadata key {key!r} is missing", where=where)
    return metadata[key]


def _number(metadata: Mapping[str, Any], key: str, default: float, where: Path) -> float:
    value: float = metadata.get(key, default)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise InputError(f"{key}: expected a number, found {str(value)[:80]!r}", where=where)
    return value


def _one(value: Any, key: str, where: Path) -> Any:
    """A per-layer array is allowed where all layers agree."""
    if isinstance(value, list):
        if len({str(v) for v in value}) != 1:
            raise InputError(f"{key} differs between layers, which is not supported", where=where)
        return value[0]
    return value


def _head_dim(metadata: Mapping[str, Any], where: Path) -> Any:
    rotated = metadata.get(_ROTATED)
    length = metadata.get(_KEY_LENGTH, rotated)
    for key, other in ((_VALUE_LENGTH, length), (_ROTATED, length)):
        if metadata.get(key, other) != other:
            raise InputError(
                f"{key} = {metadata[key]} differs from {_KEY_LENGTH} = {other}, which LLaMA's "
                "layers do not allow",
                where=where,
            )
    return length


def _vocab_size(metadata: Mapping[str, Any], where: Path) -> Any:
    size = metadata.get("llama.vocab_size")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if size is None and isinstance(tokens, list):
        return len(tokens)
    return _need(metadata, "llama.vocab_size", where)


def _rope_scaling(
    metadata: Mapping[str, Any],
    factors: torch.Tensor | None,
    config: Mapping[str, Any],
    where: Path,
) -> dict[str, Any] | None:
    kind = metadata.get("llama.rope.scaling.type", "none")
    older = _number(metadata, "llama.rope.scale_linear", 0, where)
    factor = _number(metadata, "llama.rope.scaling.factor", older, where)
    if kind == "linear" or (kind == "none" and factor not in (0, 1)):
        return {"rope_type": "linear", "factor": shortest_float32(factor or 1.0)}
    if kind != "none":
        raise InputError(
            f"llama.rope.scaling.type = {kind!r}: expected 'none' or 'linear'", where=where
        )
    if factors is None or bool((factors == 1).all() and ROPE_KEY not in metadata):
        return None
    if factors.shape != (config["head_dim"] // 2,):
        raise InputError(
            f"tensor {ROPE_FREQS!r}: expected shape [{config['head_dim'] // 2}], which is "
            f"(head_dim / 2), found {list(factors.shape)}",
            where=where,
        )
    for scaling in _candidates(metadata, where):
        if torch.allclose(llama3_factors({**config, "rope_scaling": scaling}), factors, rtol=1e-4):
            return scaling
    raise InputError(
        f"tensor {ROPE_FREQS!r}: the factors are those of no known rope scaling; known is "
        "Llama 3.1's with factor 8 or 32",
        where=where,
        fix="take the model as a Hugging Face folder, whose config says what was meant",
    )


def _candidates(metadata: Mapping[str, Any], where: Path) -> list[dict[str, Any]]:
    """Parameters to try: those that our writer noted, else those of the published models."""
    standard = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, _ORIGINAL: 8192}
    if ROPE_KEY not in metadata:
        return [{"rope_type": "llama3", "factor": f, **standard} for f in (8.0, 32.0)]
    noted = parse_json(str(metadata[ROPE_KEY]).encode(), where=f"{where}: {ROPE_KEY}")
    numbers = isinstance(noted, dict) and {
        key: value for key, value in noted.items() if type(value) in (int, float) and value > 0
    }
    if not numbers or set(numbers) != {"factor", *standard}:
        raise InputError(f"{ROPE_KEY} = {str(noted)[:200]} is not usable", where=where)
    return [{"rope_type": "llama3", **numbers}]
