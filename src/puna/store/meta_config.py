"""Meta's params.json to the keys of config.json and back.

params.json cannot say whether the head is tied, how long the context is, or which tokens begin
and end a text, and Meta's readers refuse keys that they do not know. What it cannot say goes into
a side file, puna.json, which they do not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from puna.errors import InputError
from puna.store.config import check_size, complete_config, refuse_fields

SIDE_FILE: Final = "puna.json"

_KNOWN = frozenset(
    [
        *("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "norm_eps"),
        *("multiple_of", "ffn_dim_multiplier", "max_seq_len", "max_batch_size"),
        *("rope_theta", "use_scaled_rope", "rope_scaling_factor"),
    ]
)
_EMBEDDING, _GATE = "tok_embeddings.weight", "layers.0.feed_forward.w1.weight"
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_ORIGINAL = "original_max_position_embeddings"


def config_from_params(
    params: Any,
    shapes: Mapping[str, tuple[int, ...]],
    side: Any,
    is_tied: Callable[[], bool],
    where: Path,
) -> dict[str, Any]:
    """The config of a Meta folder, completed as `complete_config` does.

    Without a side file the context length is that of the release whose other numbers these are.

    Args:
        params: The parsed params.json.
        shapes: Merged shapes by Meta's names; sizes that params.json leaves open come from them.
        side: The parsed puna.json, or None.
        is_tied: Compares head and embedding; asked only when no side file says.
        where: The folder, for messages.

    Raises:
        InputError: A field is missing, unknown, or contradicts the weights or the side file.
    """
    file = where / "params.json"
    if not isinstance(params, dict):
        raise InputError(f"expected an object, found a {type(params).__name__}", where=file)
    if unknown := sorted(set(params) - _KNOWN):
        raise InputError(
            f"unknown architecture: the field {unknown[0]!r} is not one of a LLaMA",
            where=file,
            fix="choose a text-only, dense, unquantized LLaMA",
        )
    noted = _noted(side, where / SIDE_FILE)
    raw = _sizes(params, shapes, file)
    raw["rms_norm_eps"] = params.get("norm_eps", 1e-5)
    raw["rope_theta"] = params.get("rope_theta", 10000.0)
    tied = noted["tie_word_embeddings"] if noted else is_tied()
    raw["tie_word_embeddings"] = tied
    if params.get("use_scaled_rope"):
        # Llama 3.2's small models are tied and stretched 32 times, which their params.json does
        # not say; Llama 3.1 and 3.3 are untied and stretched 8 times.
        factor = params.get("rope_scaling_factor") or (32.0 if tied else 8.0)
        raw["rope_scaling"] = {"rope_type": "llama3", "factor": factor, **_LLAMA3, _ORIGINAL: 8192}
    raw["max_position_embeddings"] = _context(params)
    return complete_config(raw | _agreed(raw, noted, where), file)


def params_from_config(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The params.json of a config; keys that older readers refuse are left out where possible.

    Args:
        config: A completed config.
        where: The folder to be written, for messages.

    Raises:
        InputError: Meta's layout cannot express a field; the message names it.
    """
    refuse_fields(config, "Meta's layout", where)
    for key in ("attention_bias", "mlp_bias"):
        if config[key]:
            raise _refused(key, config[key], "its modules have no biases", where)
    dim, heads = config["hidden_size"], config["num_attention_heads"]
    if config["head_dim"] * heads != dim:
        why = f"its heads have hidden_size / num_attention_heads = {dim / heads:g} dimensions"
        raise _refused("head_dim", config["head_dim"], why, where)
    params: dict[str, Any] = {"dim": dim, "n_layers": config["num_hidden_layers"], "n_heads": heads}
    if config["num_key_value_heads"] != heads:
        params["n_kv_heads"] = config["num_key_value_heads"]
    params["vocab_size"] = config["vocab_size"]
    params |= _feed_forward_params(dim, config["intermediate_size"])
    params["norm_eps"] = config["rms_norm_eps"]
    if config["rope_theta"] != 10000:
        params["rope_theta"] = config["rope_theta"]
    if scaling := config.get("rope_scaling"):
        _check_scaling(scaling, where)
        params["use_scaled_rope"] = True
    return params


def feed_forward_size(dim: int, multiple_of: int, multiplier: float | None) -> int:
    """Meta's formula for the width inside the SwiGLU (`FeedForward.__init__` in model.py)."""
    size = int(2 * 4 * dim / 3)
    if multiplier is not None:
        size = int(multiplier * size)
    return multiple_of * ((size + multiple_of - 1) // multiple_of)


def is_llama3(config: Mapping[str, Any]) -> bool:
    """Whether Meta's Llama 3 code will read it, which cuts the embedding by rows."""
    return bool(config.get("rope_scaling")) or config["rope_theta"] >= 500_000


def _feed_forward_params(dim: int, wanted: int) -> dict[str, Any]:
    """`multiple_of` and `ffn_dim_multiplier` that give exactly `wanted`."""
    steps = [256, 1024, 4096, 512, 128, 64, 32, 16, 8, 4, 2, 1]
    for step in steps:
        if feed_forward_size(dim, step, None) == wanted:
            return {"multiple_of": step}
    base = int(2 * 4 * dim / 3)
    for digits in (1, 2, 3, 4, 6):
        multiplier = round(wanted / base, digits)
        for step in steps:
            if wanted % step == 0 and feed_forward_size(dim, step, multiplier) == wanted:
                return {"multiple_of": step, "ffn_dim_multiplier": multiplier}
    # Rounding up to a multiple of the size itself gives the size, from anything up to it.
    return {"multiple_of": wanted, "ffn_dim_multiplier": min(1.0, wanted / base)}


def _sizes(
    params: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], file: Path
) -> dict[str, Any]:
    dim = check_size(params, "dim", file)
    embedding, gate = (
        shapes.get("tok_embeddings.weight"),
        shapes.get("layers.0.feed_forward.w1.weight"),
    )
    if embedding is None or gate is None or len(embedding) != 2 or len(gate) != 2:
        raise InputError(
            f"expected matrices {_EMBEDDING} and {_GATE}",
            where=file.parent,
            fix="the checkpoint is incomplete",
        )
    vocab = params.get("vocab_size", -1)
    if vocab not in (-1, embedding[0]):
        raise _contradiction("vocab_size", vocab, _EMBEDDING, embedding, file)
    multiple = params.get("multiple_of")
    if multiple is not None:
        multiplier = params.get("ffn_dim_multiplier")
        check_size(params, "multiple_of", file)
        if type(multiplier) not in (int, float, type(None)) or not 0 < (multiplier or 1) < 1e4:
            raise InputError(f"ffn_dim_multiplier: {multiplier!r} is not usable", where=file)
        if (size := feed_forward_size(dim, multiple, multiplier)) != gate[0]:
            what = "multiple_of and ffn_dim_multiplier give a width that"
            raise _contradiction(what, size, _GATE, gate, file)
    return {
        "model_type": "llama",
        "hidden_size": dim,
        "num_hidden_layers": check_size(params, "n_layers", file),
        "num_attention_heads": check_size(params, "n_heads", file),
        "num_key_value_heads": params.get("n_kv_heads") or params["n_heads"],
        "vocab_size": embedding[0],
        "intermediate_size": gate[0],
    }


def _noted(side: Any, where: Path) -> dict[str, Any] | None:
    if side is None:
        return None
    noted = side.get("config") if isinstance(side, dict) else None
    if not isinstance(noted, dict):
        raise InputError("expected an object with a 'config'", where=where)
    return complete_config(noted, where)


def _agreed(raw: Mapping[str, Any], noted: Mapping[str, Any] | None, where: Path) -> dict[str, Any]:
    """What the side file adds; where params.json says it too, they must agree."""
    if noted is None:
        return {}
    open_keys = {"max_position_embeddings", "rope_scaling"}
    for key in set(raw) - open_keys - {"model_type"}:
        if noted.get(key) != raw[key]:
            raise InputError(
                f"params.json and the weights say {key} = {raw[key]}, {SIDE_FILE} says "
                f"{noted.get(key)}",
                where=where,
                fix=f"remove {SIDE_FILE} if params.json is right",
            )
    if bool(noted.get("rope_scaling")) != ("rope_scaling" in raw):
        raise InputError(
            f"use_scaled_rope in params.json contradicts rope_scaling in {SIDE_FILE}", where=where
        )
    return dict(noted)


def _context(params: Mapping[str, Any]) -> int:
    """The context, in tokens, of the release that these numbers are of."""
    if params.get("use_scaled_rope"):
        return 131072  # Llama 3.1 and later
    if params.get("rope_theta", 10000.0) == 500_000:
        return 8192  # Llama 3
    return 2048 if params.get("norm_eps") == 1e-6 else 4096  # LLaMA 1, Llama 2


def _check_scaling(scaling: Mapping[str, Any], where: Path) -> None:
    known: dict[str, tuple[Any, ...]] = {
        "rope_type": ("llama3",),
        "factor": (8, 32),
        _ORIGINAL: (8192,),
    }
    known |= {key: (value,) for key, value in _LLAMA3.items()}
    for key, allowed in known.items():
        if scaling.get(key) not in allowed:
            raise _refused(
                f"rope_scaling.{key}",
                scaling.get(key),
                f"it knows {' and '.join(map(str, allowed))} only",
                where,
            )


def _refused(key: str, value: Any, why: str, where: Path) -> InputError:
    return InputError(
        f"Meta's layout cannot express {key} = {value}: {why}",
        where=where,
        fix="write a Hugging Face folder or GGUF",
    )


def _contradiction(
    key: str, value: Any, name: str, shape: tuple[int, ...], file: Path
) -> InputError:
    return InputError(
        f"{key} = {value} contradicts the weights: tensor {name!r} has shape {list(shape)}",
        where=file,
        fix="params.json is of another model",
    )
