"""What a plan is made for: a preset, a checkpoint or a recipe, and how it is to be trained."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from puna.config import load_recipe
from puna.errors import InputError
from puna.flows.opening import MAX_STACKED, read_config
from puna.flows.plan_hardware import Hardware
from puna.flows.pretrain_recipe import PretrainRecipe
from puna.flows.products import find_product, is_tuning
from puna.flows.tune_recipe import TuneRecipe
from puna.model import PRESETS, LlamaConfig, preset
from puna.store import Checkpoint, open_checkpoint
from puna.store.locate import available, locate
from puna.tokens.shards import open_shards
from puna.train.footprint import Setting
from puna.tune import FullConfig, MethodConfig, TopLayersConfig, method_config, read_tuned

MethodName = Literal["pretrain", "full", "top_layers", "lora", "dora", "adapter"]
# As the LLaMA paper calls its models (arXiv 2302.13971, table 2).
PAPER_NAMES: Mapping[str, str] = MappingProxyType(
    {size: f"llama-{size}" for size in ("7b", "13b", "33b", "65b")}
)
DEFAULT_ROW_TOKENS = 2048
_STORED = MappingProxyType({"F32": "float32", "BF16": "bfloat16"})


@dataclass(frozen=True)
class Training:
    """How a model is trained, where the command line says so.

    None is what the recipe says, or the default.
    """

    method: MethodName | None = None
    """What learns; by default a preset is pretrained, and a checkpoint tuned by LoRA."""
    layers: int | None = None
    """Of top_layers, lora, dora and adapter: only the last so many blocks."""
    rank: int | None = None
    """Of lora and dora; 8 by default."""
    row_tokens: int | None = None
    """Tokens of a row; 2048 by default, or the model's context where that is shorter."""
    batch_rows: int | None = None
    """Rows that a device computes at once; 1 by default."""
    micro_batches: int | None = None
    """Batches of an optimizer step on each device; 1 by default."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of the computation; the fast one of the hardware by default."""
    optimizer: Literal["adamw", "lamb", "muon"] | None = None
    """adamw by default."""
    checkpointing: bool | None = None
    """Whether blocks keep their inputs only, and compute the rest twice."""


@dataclass(frozen=True)
class Subject:
    """What is planned for."""

    name: str
    setting: Setting
    tokens: float | None = None  # of the whole run; None: not said
    context_tokens: float | None = None  # that a token sees on average; None: as in full rows
    notes: tuple[str, ...] = field(default=())


def find_subject(
    model: str,
    overrides: tuple[str, ...],
    training: Training,
    *,
    hardware: Hardware,
    ranks: int,
    sharded: bool,
) -> Subject:
    """From a name to all that memory and time depend on.

    Args:
        model: A preset, 7B to 65B, the path or name of a checkpoint, or a recipe.
        overrides: key=value in place of a recipe's.
        training: What the command line says of the training.
        hardware: Where it is to run.
        ranks: Devices.
        sharded: Whether weights and their like are split over them.

    Raises:
        InputError: There is no such model or recipe, or it is not valid.
    """
    if model.endswith((".yaml", ".yml")):
        found = _of_recipe(Path(model), overrides, hardware, ranks)
    elif overrides:
        raise InputError(
            f"{overrides[0]!r} changes a recipe, and {model!r} is none",
            fix="see puna plan --help for the options",
        )
    else:
        found = _of_model(model, hardware)
    found = _said(found, training, hardware)
    changes = {"ranks": ranks, "sharded": sharded and ranks > 1}
    setting = dataclasses.replace(found.setting, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(found, setting=setting)


def resolve_preset(name: str) -> LlamaConfig | None:
    """The preset of this name, or of this size in the LLaMA paper; None where there is none."""
    known = PAPER_NAMES.get(name.lower(), name)
    return preset(known) if known in PRESETS else None


def default_setting(config: LlamaConfig, hardware: Hardware) -> Setting:
    """Pretraining a shape with one row at a time."""
    return Setting(
        config=config,
        row_tokens=min(DEFAULT_ROW_TOKENS, config.max_position_embeddings),
        dtype="bfloat16" if hardware.dtype == "bfloat16" else "float32",
        device="cuda" if hardware.cuda else "cpu",
    )


def _of_model(model: str, hardware: Hardware) -> Subject:
    shape = resolve_preset(model)
    if shape is not None:
        return Subject(PAPER_NAMES.get(model.lower(), model), default_setting(shape, hardware))
    config, checkpoint = _checkpoint(model)
    setting = default_setting(config, hardware)
    method = method_config({"method": "lora"})
    mapped = not hardware.cuda and stays_mapped(checkpoint, setting.dtype)
    return Subject(model, dataclasses.replace(setting, method=method, mapped=mapped))


def _checkpoint(name: str, stacked: int = 0) -> tuple[LlamaConfig, Checkpoint]:
    """The shape of a checkpoint, or of the base of a tuning; no weights are read, or fetched."""
    path = find_product(_path(name))
    if is_tuning(path):
        if stacked >= MAX_STACKED:
            raise InputError(f"stands on more than {MAX_STACKED} other tunings", where=path)
        return _checkpoint(read_tuned(path).base.name, stacked + 1)
    checkpoint = open_checkpoint(path)
    return read_config(checkpoint), checkpoint


def _path(name: str) -> Path:
    on_hub = "/" in name and not Path(name).expanduser().exists()
    if on_hub and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", name):
        here = [found.path for found in available() if found.name == name]
        if here:
            return here[0]
        raise InputError(
            f"{name!r} is not on this machine, and a plan fetches nothing",
            fix="name a preset of its shape; or fetch it: puna show " + name,
        )
    try:
        return locate(name).path
    except InputError as error:
        names = [*PRESETS, *PAPER_NAMES]
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        fix = f"nearest presets: {', '.join(near)}" if near else error.fix
        raise InputError(f"{error.what}; nor is it a preset", where=error.where, fix=fix) from error


def stays_mapped(checkpoint: Checkpoint, dtype: str) -> bool:
    """Whether its weights stay mapped from their file instead of being copied."""
    stored = {_STORED.get(tensor.stored) for tensor in checkpoint.tensors.values()}
    return stored == {dtype}


# --- recipes --------------------------------------------------------------------------------------


def _of_recipe(path: Path, overrides: tuple[str, ...], hardware: Hardware, ranks: int) -> Subject:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=path) from error
    if re.search(r"^[\s{]*['\"]?shards['\"]?\s*:", text, re.MULTILINE):
        recipe = load_recipe(path, PretrainRecipe, overrides)
        return _pretraining(path.stem, recipe, hardware, ranks)
    if re.search(r"^[\s{]*['\"]?sources['\"]?\s*:", text, re.MULTILINE):
        raise InputError(
            "is a recipe of puna tokenize, which no plan is made for",
            where=path,
            fix="name a recipe of puna pretrain or puna tune, a preset or a checkpoint",
        )
    return _tuning(path.stem, load_recipe(path, TuneRecipe, overrides), hardware)


def _pretraining(name: str, recipe: PretrainRecipe, hardware: Hardware, ranks: int) -> Subject:
    rows = recipe.rows.settled(ranks, "cuda" if hardware.cuda else "cpu")
    vocabulary, lengths, notes = _vocabulary(recipe)
    config = recipe.shape.config(vocabulary, rows.row_tokens)
    plain = default_setting(config, hardware)
    documents = None
    context = None
    if lengths is not None and rows.separate_documents:
        per_row = rows.row_tokens / lengths + 1  # a cut one at an end
        documents = max(rows.rows_at_once, round(rows.rows_at_once * per_row))
        context = (min(lengths, rows.row_tokens) + 1) / 2
    setting = dataclasses.replace(
        plain,
        rows=rows.rows_at_once,
        row_tokens=rows.row_tokens,
        documents=documents,
        dtype=plain.dtype if recipe.dtype == "auto" else recipe.dtype,
        micro_batches=rows.micro_batches(ranks),
        activation_checkpointing=recipe.train.activation_checkpointing,
        optimizer=recipe.train.optim.kind,
    )
    steps = recipe.train.max_steps
    tokens = recipe.tokens if steps is None else steps * recipe.step_tokens
    return Subject(name, setting, tokens, context, notes)


def _vocabulary(recipe: PretrainRecipe) -> tuple[int, float | None, tuple[str, ...]]:
    """Its size, the mean length of a document, and what should be known of them."""
    folders = [folder for folder in recipe.folders if folder.exists()]
    if folders:
        shards = open_shards(folders[0])
        splits = [source.split("train") for source in shards.sources.values()]
        documents = sum(split.count for split in splits)
        tokens = sum(split.tokens for split in splits)
        return shards.vocabulary_size, tokens / documents if documents else None, ()
    named = recipe.shape.preset
    if named is None:
        raise InputError(
            "the shards are not there, so the size of the vocabulary is not known",
            where=recipe.folders[0],
            fix="make them with puna tokenize, or name a preset in model",
        )
    size = preset(named).vocab_size
    note = f"there are no shards at {recipe.folders[0]} yet: the preset's vocabulary is taken"
    return size, None, (note,)


def _tuning(name: str, recipe: TuneRecipe, hardware: Hardware) -> Subject:
    config, checkpoint = _checkpoint(recipe.model)
    plain = default_setting(config, hardware)
    dtype = plain.dtype
    if recipe.dtype in ("float32", "bfloat16"):
        dtype = "bfloat16" if recipe.dtype == "bfloat16" else "float32"
    batches, longest = recipe.batches, recipe.examples.max_tokens
    bounds = [batches.batch_tokens]
    if batches.batch_examples is not None:
        bounds.append(batches.batch_examples * longest)
    most = min(bound for bound in bounds if bound is not None)
    setting = dataclasses.replace(
        plain,
        method=recipe.method,
        rows=1,
        row_tokens=most,
        documents=batches.batch_examples if batches.packing else None,
        dtype=dtype,
        micro_batches=recipe.train.micro_batches,
        activation_checkpointing=recipe.train.activation_checkpointing,
        optimizer=recipe.train.optim.kind,
        mapped=not hardware.cuda and stays_mapped(checkpoint, dtype),
    )
    note = (
        f"a batch is taken to have {most:,} tokens, the most that the recipe allows; "
        "--row-tokens says what yours have (puna tune --dry-run measures it)"
    )
    return Subject(name, setting, None, (min(longest, most) + 1) / 2, (note,))


# --- what the command line says -------------------------------------------------------------------


def _said(subject: Subject, training: Training, hardware: Hardware) -> Subject:
    setting = subject.setting
    changes: dict[str, object] = {
        name: value
        for name, value in (
            ("row_tokens", training.row_tokens),
            ("rows", training.batch_rows),
            ("micro_batches", training.micro_batches),
            ("dtype", training.dtype),
            ("optimizer", training.optimizer),
            ("activation_checkpointing", training.checkpointing),
        )
        if value is not None
    }
    method = _method(setting.method, training)
    changes["method"] = method
    if training.dtype is not None and training.dtype != setting.dtype:
        changes["mapped"] = False
    if training.dtype == "bfloat16" and hardware.bfloat16_flops is None and hardware.cuda:
        raise InputError(
            f"{hardware.name} has no fast bfloat16", fix="leave --dtype out, or take float32"
        )
    if {"rows", "row_tokens"} & changes.keys() and subject.setting.documents is not None:
        share = setting.documents / setting.tokens if setting.documents else 0.0
        rows = training.batch_rows or setting.rows
        tokens = training.row_tokens or setting.row_tokens
        changes["documents"] = max(rows, round(share * rows * tokens))
    context = subject.context_tokens
    if training.row_tokens is not None and context is not None:
        context = min(context, (training.row_tokens + 1) / 2)
    new = dataclasses.replace(setting, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(subject, setting=new, context_tokens=context)


def _method(found: MethodConfig | None, training: Training) -> MethodConfig | None:
    name = training.method or ("pretrain" if found is None else found.method)
    if name == "pretrain":
        if training.layers is not None or training.rank is not None:
            raise InputError("--layers and --rank belong to a tuning", fix="add --method lora")
        return None
    keep = found is not None and found.method == name
    method = found if keep and found is not None else method_config({"method": name})
    changes: dict[str, int] = {}
    if training.layers is not None:
        if isinstance(method, FullConfig):
            raise InputError("full tuning takes no --layers", fix="add --method top_layers")
        changes["layers"] = training.layers
    if training.rank is not None:
        if isinstance(method, FullConfig | TopLayersConfig) or not hasattr(method, "rank"):
            raise InputError(f"{name} has no --rank", fix="lora and dora have one")
        changes["rank"] = training.rank
    return dataclasses.replace(method, **changes)  # type: ignore[arg-type]
