"""The config of a checkpoint: Hugging Face's keys, checked and completed with its defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.errors import InputError

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
MODEL_TYPES = ("llama", "mistral")

_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
_WINDOW = "sliding_window"
_ORIGINAL = "original_max_position_embeddings"
_ROPE_FIELDS: Mapping[Any, tuple[str, ...]] = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL),
}
_MAX_SIZE = 2**31  # no size of a published model comes near it


def complete_config(raw: Any, where: Path) -> dict[str, Any]:
    """Check a config.json of the LLaMA family and fill in what transformers would assume.

    The result keeps keys that are not known here. It always has the sizes, `rms_norm_eps`,
    `rope_theta`, `rope_scaling` (None, or a dict with `rope_type`), `tie_word_embeddings`,
    `attention_bias` and `mlp_bias`; transformers 5's `rope_parameters` is folded into the two
    rope keys, which both versions read.

    Args:
        raw: The parsed config.json.
        where: Its file, for messages.

    Raises:
        InputError: The architecture is not supported, or a field is missing or not usable.
    """
    if not isinstance(raw, dict):
        raise InputError(f"expected an object, found a {type(raw).__name__}", where=where)
    _check_architecture(raw, where)
    defaults = _defaults(raw)
    # A null means "as if absent" where something is filled in, and itself anywhere else: without
    # it transformers would put its own default there (`eos_token_id` 2, a window of 4096).
    filled = {*defaults, *_SIZES} - {_WINDOW}
    config = {**defaults, **{k: v for k, v in raw.items() if v is not None or k not in filled}}
    config.pop("rope_parameters", None)
    if config["model_type"] != "mistral":
        config.pop(_WINDOW, None)  # transformers has no window for a model of type llama either
    config["rope_theta"], config["rope_scaling"] = _rope(raw, where)
    config.setdefault("num_key_value_heads", config.get("num_attention_heads"))
    if config.get("head_dim") is None:
        config["head_dim"] = _head_dim(config, where)
    for key in _SIZES:
        check_size(config, key, where)
    for key in ("rms_norm_eps", "rope_theta"):
        if not _is_positive(config[key]):
            raise _bad_field(key, "a positive number", config[key], where)
    for key in ("tie_word_embeddings", "attention_bias", "mlp_bias"):
        if not isinstance(config[key], bool):
            raise _bad_field(key, "true or false", config[key], where)
    _check_heads(config, where)
    window = config.get(_WINDOW)
    if window is not None and (type(window) is not int or not 0 < window < _MAX_SIZE):
        raise _bad_field(_WINDOW, "a positive whole number or null", window, where)
    return config


def check_rope(scaling: Mapping[str, Any] | None, where: Path | str) -> None:
    """Check the fields of a rope scaling whose type is known here; others are kept as they are.

    Args:
        scaling: None, or an object with `rope_type`.
        where: The file, for messages.

    Raises:
        InputError: A field is missing or not a positive number; nothing is assumed for it.
    """
    for key in _ROPE_FIELDS.get(scaling["rope_type"], ()) if scaling else ():
        assert scaling is not None
        name, value = f"rope_scaling.{key}", scaling.get(key)
        if value is None:
            raise InputError(f"the field {name!r} is missing", where=where, fix="add it")
        if key == _ORIGINAL:
            check_size({name: value}, name, where)
        elif not _is_positive(value):
            raise _bad_field(name, "a positive number", value, where)
    if scaling and scaling["rope_type"] == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        if high <= low:
            expected = f"more than low_freq_factor = {low}"
            raise _bad_field("rope_scaling.high_freq_factor", expected, high, where)


def default_generation(config: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """The generation config of a checkpoint that has none: the token ids of its config.

    As transformers derives it; an id that the config does not name is not made up.

    Raises:
        InputError: `eos_token_id` is neither an id nor a list of them.
    """
    ends = config.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(type(index) is int for index in listed):
        raise _bad_field("eos_token_id", "an id, a list of ids or null", ends, where)
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    named = {key: config[key] for key in keys if config.get(key) is not None}
    # Early conversions of LLaMA write -1 for a token that there is not.
    return {key: value for key, value in named.items() if value != -1}


def check_size(config: Mapping[str, Any], key: str, where: Path | str) -> int:
    """The value of a field that must be a positive count.

    Raises:
        InputError: It is missing, not a whole number, not positive, or absurdly large.
    """
    value = config.get(key)
    if value is None:
        raise InputError(f"the field {key!r} is missing", where=where, fix="add it")
    if type(value) is not int or not 0 < value < _MAX_SIZE:
        raise _bad_field(key, f"a whole number from 1 to {_MAX_SIZE - 1}", value, where)
    return value


def refuse_fields(config: Mapping[str, Any], layout: str, where: Path | str) -> None:
    """Refuse a sliding window that a layout has no field for and that would change results.

    Raises:
        InputError: The window is shorter than the context.
    """
    window = config.get("sliding_window")
    if window is not None and window < config["max_position_embeddings"]:
        raise InputError(
            f"{layout} cannot express sliding_window = {window}",
            where=where,
            fix="write a Hugging Face folder, or set sliding_window to null in the source's "
            "config.json if the context will never be longer than the window",
        )


def _check_architecture(raw: Mapping[str, Any], where: Path) -> None:
    found = raw.get("architectures") or []
    kind = raw.get("model_type")
    if not isinstance(found, list):
        raise _bad_field("architectures", "a list of names", found, where)
    wrong = [name for name in found if name not in ARCHITECTURES]
    if wrong or (kind is not None and kind not in MODEL_TYPES):
        what = repr(wrong[0]) if wrong else f"of model_type {kind!r}"
        raise InputError(
            f"unknown architecture {what}; supported are {', '.join(ARCHITECTURES)}",
            where=where,
            fix="choose a checkpoint of the LLaMA family",
        )
    if not found and kind is None:
        raise InputError("has neither 'architectures' nor 'model_type'", where=where)
    if raw.get("quantization_config"):
        raise InputError(
            "'quantization_config': quantized Hugging Face weights are not read",
            where=where,
            fix="take the original checkpoint, or a GGUF file of it",
        )
    if raw.get("hidden_act", "silu") != "silu":
        raise _bad_field("hidden_act", "'silu'", raw["hidden_act"], where)
    if raw.get("partial_rotary_factor", 1) != 1:
        raise _bad_field("partial_rotary_factor", "1", raw["partial_rotary_factor"], where)


def _defaults(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers assumes for a key that config.json leaves out."""
    defaults: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
    }
    named = "mistral" if raw.get("architectures") == ["MistralForCausalLM"] else "llama"
    if (raw.get("model_type") or named) == "mistral":
        defaults |= {"model_type": "mistral", "max_position_embeddings": 131072}
        defaults["architectures"] = ["MistralForCausalLM"]
        if "num_key_value_heads" not in raw:
            defaults["num_key_value_heads"] = 8
        defaults[_WINDOW] = 4096
    return defaults


def _rope(raw: Mapping[str, Any], where: Path) -> tuple[Any, dict[str, Any] | None]:
    new, old = raw.get("rope_parameters"), raw.get("rope_scaling")
    for key, value in (("rope_parameters", new), ("rope_scaling", old)):
        if value is not None and not isinstance(value, dict):
            raise _bad_field(key, "an object or null", value, where)
    scaling = dict(new or old or {})
    thetas = (scaling.pop("rope_theta", None), raw.get("rope_theta"), 10000.0)
    theta = next(value for value in thetas if value is not None)
    kind = scaling.pop("type", None)  # the older name of rope_type
    kind = scaling.pop("rope_type", None) or kind or "default"
    if scaling.get("partial_rotary_factor", 1) != 1:
        raise _bad_field("partial_rotary_factor", "1", scaling["partial_rotary_factor"], where)
    if not isinstance(kind, str):
        raise _bad_field("rope_scaling.rope_type", "a name", kind, where)
    checked = None if kind == "default" else {"rope_type": kind, **scaling}
    check_rope(checked, where)
    return theta, checked


def _head_dim(config: Mapping[str, Any], where: Path) -> int:
    hidden = check_size(config, "hidden_size", where)
    heads = check_size(config, "num_attention_heads", where)
    if hidden % heads:
        raise InputError(
            f"hidden_size = {hidden} is no multiple of num_attention_heads = {heads}, and there "
            "is no head_dim",
            where=where,
        )
    return hidden // heads


def _check_heads(config: Mapping[str, Any], where: Path) -> None:
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    if heads % groups:
        raise InputError(
            f"num_attention_heads = {heads} is no multiple of num_key_value_heads = {groups}",
            where=where,
        )
    if config["head_dim"] % 2:
        raise _bad_field("head_dim", "an even number", config["head_dim"], where)


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def _bad_field(key: str, expected: str, found: Any, where: Path | str) -> InputError:
    return InputError(f"field {key!r}: expected {expected}, found {str(found)[:80]!r}", where=where)
