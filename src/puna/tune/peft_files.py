"""PEFT's adapter_config.json for LoRA and DoRA, read and written (peft 0.21, `tuners/lora`).

Reading is strict: an option that changes what the adapter computes and that is not done here is
refused by name, and so is an option that this program has never heard of. Which layers an adapter
has, and of which rank, is read off the tensors: they are what PEFT's patterns came to. So no
regular expression of a file is ever run; it could take for ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.errors import InputError
from puna.store import LazyTensor
from puna.tune.lora import low_rank
from puna.tune.method import DoraConfig, LoraConfig, LowRankConfig
from puna.tune.targets import fits

PEFT_CONFIG = "adapter_config.json"
PEFT_TENSORS = "adapter_model.safetensors"
PREFIX = "base_model.model."

MAX_RANK = 65536

_READ = {"r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "lora_bias"}
_READ |= {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
_READ |= {"rank_pattern", "alpha_pattern", "base_model_name_or_path"}
_ONLY: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    # The others take their start from the base and change it, so that the file alone says little.
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
_WITHOUT_EFFECT = {"auto_mapping", "inference_mode", "revision", "peft_version", "megatron_core"}
_WITHOUT_EFFECT |= {"qalora_group_size", "runtime_config", "eva_config", "ensure_weight_tying"}


def to_peft(
    config: LowRankConfig, paths: Sequence[str], layers: int, base_name: str
) -> dict[str, Any]:
    """The content of adapter_config.json.

    Args:
        config: Of the method.
        paths: The layers that it wraps.
        layers: Blocks of the model.
        base_name: Of the model.
    """
    first = layers - (config.layers or layers)
    by_suffix = not any(target in paths or target == "lm_head" for target in config.targets)
    limited = by_suffix and config.layers is not None
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": config.rank,
        "lora_alpha": _number(config.alpha),
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "use_dora": isinstance(config, DoraConfig),
        "lora_bias": isinstance(config, LoraConfig) and config.bias,
        "target_modules": list(config.targets if by_suffix else paths),
        "layers_to_transform": list(range(first, layers)) if limited else None,
        "layers_pattern": "layers" if limited else None,
        "rank_pattern": config.rank_pattern,
        "alpha_pattern": {name: _number(alpha) for name, alpha in config.alpha_pattern.items()},
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def from_peft(data: Any, tensors: Mapping[str, LazyTensor], where: Path) -> LoraConfig | DoraConfig:
    """The configuration that a folder of PEFT means; its targets are whole paths.

    Args:
        data: The content of adapter_config.json, not trusted.
        tensors: Of adapter_model.safetensors.
        where: The config file, for messages.

    Raises:
        InputError: An option is not supported (named by its key), or contradicts the tensors.
    """
    if not isinstance(data, dict):
        raise InputError(f"expected an object, found a {type(data).__name__}", where=where)
    _check_options(data, where)
    paths = _paths(tensors, where)
    for path in paths:
        if not _is_target(data, path, where):
            raise InputError(
                f"target_modules does not name {path}, of which {PEFT_TENSORS} has tensors",
                where=where,
            )
    dora, bias = (_typed(data, key, bool, False, where) for key in ("use_dora", "lora_bias"))
    if dora and bias:
        raise InputError("lora_bias and use_dora exclude each other", where=where)
    shared: dict[str, Any] = {
        "rank": _typed(data, "r", int, 8, where),
        "alpha": _typed(data, "lora_alpha", float, 8, where),
        "dropout": _typed(data, "lora_dropout", float, 0.0, where),
        "rslora": _typed(data, "use_rslora", bool, False, where),
        "targets": tuple(paths),
        "rank_pattern": _ranks(data, tensors, paths, where),
        "alpha_pattern": _alphas(data, paths, where),
    }
    try:
        config = DoraConfig(**shared) if dora else LoraConfig(**shared, bias=bias)
    except InputError as error:
        raise InputError(error.what, where=where, fix=error.fix) from error
    check_ranks(config, tensors, where)
    return config


def peft_base_name(data: Mapping[str, Any]) -> str:
    """The base that a config of PEFT names; empty where it names none."""
    name = data.get("base_model_name_or_path")
    return name if isinstance(name, str) else ""


def peft_contradiction(config: LowRankConfig, data: Any) -> str | None:
    """The first key about which a config of PEFT says another thing than ours."""
    if not isinstance(data, dict):
        return "peft_type"
    expected = to_peft(config, (), 0, "")
    keys = ["r", "lora_alpha", "use_rslora", "use_dora", "lora_bias", "rank_pattern"]
    for key in [*keys, "alpha_pattern"]:
        if data.get(key, expected[key]) != expected[key]:
            return key
    return None


def check_ranks(config: LowRankConfig, tensors: Mapping[str, LazyTensor], where: Path) -> None:
    """Compare ranks with the shapes in the file, before anything of that size is made.

    Raises:
        InputError: Names the tensor.
    """
    for name, tensor in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        path = name.removesuffix(".lora_A.weight").removeprefix(PREFIX)
        rank = low_rank(config, path).rank
        if not tensor.shape or tensor.shape[0] != rank:
            raise InputError(
                f"tensor {name!r}: expected the rank {rank}, found the shape {list(tensor.shape)}",
                where=where,
            )
    ranks = [config.rank, *config.rank_pattern.values()]
    if max(ranks) > MAX_RANK:
        raise InputError(f"a rank of {max(ranks)} is more than any model is wide", where=where)


def _check_options(data: Mapping[str, Any], where: Path) -> None:
    for key, value in data.items():
        if key in _READ or key in _WITHOUT_EFFECT:
            continue
        if key in _ONLY:
            if not any(value is allowed or value == allowed for allowed in _ONLY[key]):
                raise _unsupported(key, value, where)
        elif value not in (None, False, "", [], {}):
            raise _unsupported(key, value, where)
    if data.get("peft_type") != "LORA":
        raise _unsupported("peft_type", data.get("peft_type"), where)


def _paths(tensors: Mapping[str, LazyTensor], where: Path) -> list[str]:
    """The layers that have a down-projection, in the file's order; every name must be PEFT's."""
    found = []
    for name in tensors:
        path, mark, _ = name.partition(".lora_")
        if not mark or not path.startswith(PREFIX):
            raise InputError(f"tensor {name!r} is not one of LoRA's", where=where)
        if name.endswith(".lora_A.weight"):
            found.append(path.removeprefix(PREFIX))
    if not found:
        raise InputError(f"{PEFT_TENSORS} beside it has no tensor of LoRA", where=where)
    return found


def _is_target(data: Mapping[str, Any], path: str, where: Path) -> bool:
    """PEFT's rule (`tuners_utils.check_target_module_exists`), where it is one of names."""
    targets, excluded = data.get("target_modules"), data.get("exclude_modules")
    if isinstance(excluded, list) and _named(excluded, "exclude_modules", path, where):
        return False
    if isinstance(targets, str):
        return True
    if not isinstance(targets, list) or not _named(targets, "target_modules", path, where):
        return False
    layers = data.get("layers_to_transform")
    if path in targets or layers is None or layers == []:
        return True
    layers = layers if isinstance(layers, list) else [layers]
    number = re.match(r"model\.layers\.(\d{1,6})\.", path)
    return number is not None and int(number[1]) in layers


def _named(names: Any, key: str, path: str, where: Path) -> bool:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{key}: expected a list of names or one pattern", where=where)
    return any(fits(name, path) for name in names)


def _ranks(
    data: Mapping[str, Any], tensors: Mapping[str, LazyTensor], paths: list[str], where: Path
) -> dict[str, int]:
    """Ranks by whole path, where the file says that they differ."""
    if not _typed(data, "rank_pattern", dict, {}, where):
        return {}
    shapes = {path: tensors[f"{PREFIX}{path}.lora_A.weight"].shape for path in paths}
    return {path: shape[0] for path, shape in shapes.items() if shape}


def _alphas(data: Mapping[str, Any], paths: list[str], where: Path) -> dict[str, float]:
    """Alphas by whole path (PEFT's `utils.other.get_pattern_key`, for plain names)."""
    pattern = _typed(data, "alpha_pattern", dict, {}, where)
    plain = {}
    for name in pattern:
        bare = name.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not re.fullmatch(r"[\w.]+", bare):
            raise InputError(
                f"alpha_pattern: {name[:80]!r} is a pattern; only names are supported",
                where=where,
                fix="write the layers' names one by one",
            )
        plain[name] = (bare, name.startswith("^"))
    found = {}
    for path in paths:
        for name, (bare, whole) in plain.items():
            if path == bare if whole else fits(bare, path):
                found[path] = _typed(pattern, name, float, 0, where)
                break
    return found


def _typed(data: Mapping[str, Any], key: str, kind: type, default: Any, where: Path) -> Any:
    value: Any = data.get(key, default)
    value = default if value is None else value
    kinds: tuple[type, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        raise InputError(
            f"{key}: expected {kind.__name__}, found {type(value).__name__} {str(value)[:60]}",
            where=where,
        )
    if kind is not float:
        return value
    number: Any = value
    try:
        return float(number)
    except OverflowError as error:
        raise InputError(f"{key}: {str(value)[:20]}... is too large", where=where) from error


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def _unsupported(key: str, value: Any, where: Path) -> InputError:
    return InputError(
        f"the option {key!r} is {str(value)[:60]!r}, which is not supported",
        where=where,
        fix="merge the adapter into its base by peft (merge_and_unload) and take that",
    )
