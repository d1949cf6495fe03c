"""The shape of a LLaMA: one frozen dataclass, read from and written to Hugging Face's keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from puna.errors import InputError

RopeKind = Literal["default", "linear", "llama3"]


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies are stretched for contexts longer than the pretrained one.

    `linear` divides every frequency by `factor` (Chen et al. 2023, arXiv 2306.15595). `llama3`
    divides the low ones, keeps the high ones and blends between (Llama 3.1 model card).
    """

    kind: RopeKind = "default"
    factor: float = 1.0  # stretch of the context, a ratio
    low_freq_factor: float = 1.0  # llama3: wavelengths above original / this are divided
    high_freq_factor: float = 4.0  # llama3: wavelengths below original / this are kept
    original_max_positions: int = 8192  # llama3: context of pretraining, tokens

    def __post_init__(self) -> None:
        if self.kind not in ("default", "linear", "llama3"):
            raise InputError(
                f"rope scaling {self.kind!r} is not known",
                fix="known are default, linear and llama3",
            )
        if self.factor <= 0:
            raise InputError(f"rope scaling factor must be positive, not {self.factor}")
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise InputError("rope scaling llama3 needs high_freq_factor > low_freq_factor")


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a LLaMA. Sizes are counts of scalars, heads, layers or tokens."""

    vocab_size: int  # rows of the embedding
    hidden_size: int  # width of the residual stream
    intermediate_size: int  # width inside the SwiGLU
    num_hidden_layers: int  # blocks
    num_attention_heads: int  # query heads
    num_key_value_heads: int  # key/value heads; fewer than query heads is grouped-query attention
    head_dim: int  # scalars per head; need not be hidden_size / num_attention_heads
    max_position_embeddings: int = 2048  # context of training, tokens
    rms_norm_eps: float = 1e-5  # added to the mean square
    rope_theta: float = 10000.0  # base of the rotary frequencies
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    tie_word_embeddings: bool = False  # the head is the embedding
    attention_bias: bool = False  # biases on q, k, v and o
    mlp_bias: bool = False  # biases on gate, up and down
    window_tokens: int | None = None  # sliding window of the checkpoint, tokens seen incl. itself
    initializer_range: float = 0.02  # standard deviation of fresh weights

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be a positive integer, not {value!r}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise InputError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim must be even for rotary embeddings, not {self.head_dim}")
        window = self.window_tokens
        if window is not None and (type(window) is not int or window < 1):
            raise InputError(
                f"window_tokens (sliding_window) must be at least 1 or null, not {window!r}"
            )

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> LlamaConfig:
        """Read the keys of a Hugging Face `config.json`, of transformers 4 or 5.

        Raises:
            InputError: A key is missing, or asks for something that this model does not do.
        """
        for key in _POSITIVE[:5]:
            if key not in config:
                raise InputError(f"the config lacks {key!r}")
        activation = config.get("hidden_act", "silu")
        if activation not in ("silu", "swish"):
            raise InputError(f"hidden_act {activation!r} is not known; a LLaMA uses 'silu'")
        theta, scaling = _read_rope(config)
        absent = {name: getattr(cls, name) for name in _PLAIN} | {"rms_norm_eps": 1e-6}
        heads = groups = config["num_attention_heads"]
        window = None  # transformers has none for a model of type llama, whatever the config says
        if config.get("model_type") == "mistral":
            window, groups = config.get("sliding_window", 4096), 8
            absent["max_position_embeddings"] = 131072
        given = {key: value for key, value in config.items() if value is not None}
        width = given.get("head_dim")
        if width is None:
            width = _divided(config, "hidden_size", "num_attention_heads")
        return cls(
            **{key: config[key] for key in _POSITIVE[:5]},
            num_key_value_heads=given.get(_GROUPS, heads if _GROUPS in config else groups),
            head_dim=width,
            rope_theta=theta,
            rope_scaling=scaling,
            window_tokens=window,
            **{name: given.get(name, value) for name, value in absent.items()},
        )

    def to_hf(self) -> dict[str, Any]:
        """The keys of Hugging Face's `config.json`, as transformers 4 and 5 read them.

        Raises:
            InputError: transformers has no model of this shape.
        """
        scaling = self.rope_scaling
        rope: dict[str, Any] | None = None
        if scaling.kind == "linear":
            rope = {"rope_type": "linear", "factor": scaling.factor}
        elif scaling.kind == "llama3":
            rope = {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            }
        windowed = self.window_tokens is not None
        for key in ("attention_bias", "mlp_bias"):
            if windowed and getattr(self, key):  # Mistral's would be read without them
                raise InputError(f"a window together with {key} has no name in transformers")
        return {
            "architectures": ["MistralForCausalLM" if windowed else "LlamaForCausalLM"],
            "model_type": "mistral" if windowed else "llama",
            "hidden_act": "silu",
            **{name: getattr(self, name) for name in (*_POSITIVE, *_PLAIN)},
            "rope_theta": self.rope_theta,
            "rope_scaling": rope,
            **({"sliding_window": self.window_tokens} if windowed else {}),
        }


_GROUPS = "num_key_value_heads"
_POSITIVE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
_PLAIN = (
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "initializer_range",
)


def _divided(config: Mapping[str, Any], key: str, by: str) -> int:
    """A size over a count; what is no count is left for the constructor to refuse by name."""
    size, count = config[key], config[by]
    if type(size) is not int or type(count) is not int or size < 1 or count < 1:
        return 2
    if size % count:
        raise InputError(f"{key} = {size} is no multiple of {by} = {count}, without a head_dim")
    return size // count


def _read_rope(config: Mapping[str, Any]) -> tuple[float, RopeScaling]:
    # transformers 5 keeps the base inside `rope_parameters`; 4 has `rope_theta` + `rope_scaling`.
    source = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    rope = config.get(source) or {}
    if not isinstance(rope, Mapping):
        raise InputError(f"{source} must be an object or null, not {rope!r}")
    given = {key: value for key, value in config.items() if value is not None}
    theta = _positive({"rope_theta": given.get("rope_theta", 10000.0), **rope}, "rope_theta", "")
    kind = rope.get("rope_type", rope.get("type", "default"))
    partial = rope.get("partial_rotary_factor", given.get("partial_rotary_factor", 1.0))
    if partial != 1.0:
        raise InputError(f"partial_rotary_factor {partial} is not supported; a LLaMA rotates all")
    place = f"{source}."
    match kind:
        case "default":
            return theta, RopeScaling()
        case "linear":
            return theta, RopeScaling("linear", _positive(rope, "factor", place))
        case "llama3":
            context = _positive(rope, "original_max_position_embeddings", place)
            if context != int(context):
                raise InputError(
                    f"{place}original_max_position_embeddings must be a whole number, not {context}"
                )
            names = ("factor", "low_freq_factor", "high_freq_factor")
            factor, low, high = (_positive(rope, name, place) for name in names)
            return theta, RopeScaling("llama3", factor, low, high, int(context))
    return theta, RopeScaling(kind=cast(RopeKind, kind))  # refuses it by its name


def _positive(rope: Mapping[str, Any], key: str, place: str) -> float:
    value = rope.get(key)
    if value is None:
        raise InputError(f"the config lacks {place + key!r}")
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise InputError(f"{place}{key} must be a positive number, not {value!r}")
    return float(value)
