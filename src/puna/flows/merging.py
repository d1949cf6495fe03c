"""From a base with a tuning on it to one plain checkpoint, proved to be the same model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.artifact import check_free, find_manifest, parse_json, read_manifest
from puna.errors import InputError
from puna.flows.convert import (
    Converted,
    ConvertOptions,
    DtypeChoice,
    Origin,
    Target,
    write_product,
)
from puna.flows.opening import Opened, open_model
from puna.flows.products import (
    Asking,
    find_product,
    is_tuning,
    read_asking,
    whole_tensors,
)
from puna.flows.verify import KL_BOUNDS, Distance, distance, prompt_ids
from puna.model import AttentionSpec, LlamaModel
from puna.store import Checkpoint, TokenizerFiles
from puna.store.locate import locate
from puna.tokens.gguf_vocab import TEMPLATE
from puna.tokens.rendering import Renderer
from puna.tokens.sidecar import CHAT_TEMPLATE, CONFIG, OLD_CHAT_TEMPLATE
from puna.tune import Tuned, load_tuned, read_tuned
from puna.tune.files import SavedTuning
from puna.tune.registry import method_of

ROUNDING = "float32"  # merging and its check are done in it; its bound is in KL_BOUNDS


@dataclass(frozen=True)
class MergeOptions:
    """What is written."""

    to: Target = "hf"
    """Format of the product: hf (Hugging Face folder), meta (Meta's folder) or gguf (one file)."""
    dtype: DtypeChoice = "keep"
    """Of the product's matrices; keep is that of the base's, float32 for a quantized base."""
    verify: bool = True
    """Compare the product, as written, with the merged model before saying done."""
    force: bool = False
    """Replace what is at the target."""


@dataclass(frozen=True)
class Merged:
    """What was written, and how it compares."""

    product: Converted
    method: str
    base: str
    gap: Distance  # of the merged model from the unmerged one
    tokens: int  # that they were compared over
    template: bool  # the tokenizer got the chat template of the recipe, in place of the base's

    def sentence(self) -> str:
        """What the comparison of merged and unmerged found, for people."""
        return (
            f"merged in float32: mean KL from the unmerged model {self.gap.mean_kl:.2g} nats over "
            f"{self.tokens} tokens (at most {KL_BOUNDS[ROUNDING]:g} is allowed), largest "
            f"difference of a logit {self.gap.largest_difference:.2g}"
        )


def merge(
    name: str,
    target: Path,
    options: MergeOptions,
    *,
    progress: Callable[[str, int, int], None],
) -> Merged:
    """Write a tuning and its base as one plain checkpoint.

    The weights are merged in float32, 4 bytes of memory for each, and rounded once, to `dtype`.

    Args:
        name: A run or a tuning; see `puna.store.locate`.
        target: A folder (hf, meta) or file (gguf) to make.
        options: The format and dtype.
        progress: Called with (what, done, total).

    Raises:
        InputError: It is no tuning, or one of a method that is no change of weights; its base is
            not here; the target is taken; or what was written is not the same model.
    """
    check_free(target, force=options.force, folder=options.to != "gguf")
    located = locate(name)
    place = find_product(located.path)
    saved = _mergeable(place)
    opened = open_model(saved.base.name, device=torch.device("cpu"), dtype=torch.float32)
    progress("merging", 0, 1)
    identity = None if saved.base.identity is None else opened.identity
    tuned = load_tuned(opened.model, place, check_identity=identity)
    gap, tokens = _merge(tuned, opened, place)
    progress("merging", 1, 1)
    asking = read_asking(place) or opened.asking
    source, changed = _checkpoint(opened, asking, located.path, options.to)
    origin = Origin(
        "merge",
        {"method": saved.config.method, "base": saved.base.name},
        parents=(
            _digest(place) or f"tuning {_identity(opened, place)}",
            f"model {opened.identity}",
        ),
        measured={"merging": gap._asdict(), "ancestors": ancestors(place)},
        asking=asking,
    )
    wanted = ConvertOptions(
        options.to, _dtype(opened.checkpoint, options), verify=options.verify, force=options.force
    )
    product = write_product(source, target, wanted, origin, progress=progress)
    return Merged(product, saved.config.method, saved.base.name, gap, tokens, changed)


def ancestors(place: Path) -> list[dict[str, Any]]:
    """What the manifests of a tuning, and of those that it stands on, say; the nearest first."""
    found = []
    for folder in _stack(place):
        told = _told(folder)
        if told is not None:
            found.append({"digest": told["digest"], **told["identity"], **told["measured"]})
    return [{key: one[key] for key in one if key != "files"} for one in found]


def _mergeable(place: Path) -> SavedTuning:
    """The tuning in a folder, after all that it stands on has been looked at, too."""
    if not is_tuning(place):
        raise InputError(
            "is a whole model: there is nothing to merge",
            where=place,
            fix=f"puna convert {place} OUT --to hf, to write it in another format",
        )
    for folder in _stack(place):
        method = read_tuned(folder).config
        if not method_of(method).mergeable:
            raise InputError(
                f"is a tuning by the method {method.method!r}, which adds layers of its own and "
                "is no change of weights, so that no plain checkpoint can hold it",
                where=folder,
                fix="use it as it is, with puna generate --model; or tune by lora, dora or "
                "top_layers",
            )
    return read_tuned(place)


def _stack(place: Path) -> Iterator[Path]:
    """The folders of a tuning and of the tunings that it stands on; opening bounds their number."""
    seen: set[Path] = set()
    while is_tuning(place) and place.resolve() not in seen:
        seen.add(place.resolve())
        yield place
        try:
            place = find_product(locate(read_tuned(place).base.name).path)
        except InputError:
            return  # the base is not here, which `open_model` tells better


def _merge(tuned: Tuned, opened: Opened, place: Path) -> tuple[Distance, int]:
    """Merge in place; how far that moves the logits, and over how many tokens.

    Raises:
        InputError: By more than float32 rounding explains.
    """
    ids, valid = prompt_ids(opened.tokenizer, opened.model.config.vocab_size)
    tuned.set_train(False)
    before = _logits(opened.model, ids, valid)
    tuned.merge()
    gap = distance(before, _logits(opened.model, ids, valid))
    if not gap.mean_kl <= KL_BOUNDS[ROUNDING]:
        raise InputError(
            f"merging changes the logits by a mean KL of {gap.mean_kl:.3g} nats; "
            f"{KL_BOUNDS[ROUNDING]:g} is allowed",
            where=place,
            fix="nothing was written; this is a defect of the method, please report it",
        )
    return gap, int(valid.sum())


@torch.inference_mode()
def _logits(model: LlamaModel, ids: Tensor, valid: Tensor) -> Tensor:
    """[N, V] of the tokens that are no padding."""
    hidden = model.run(model.embed(ids), attention=AttentionSpec(valid=valid))
    return model.head(hidden)[valid].float()


def _checkpoint(
    opened: Opened, asking: Asking | None, path: Path, to: Target
) -> tuple[Checkpoint, bool]:
    """The merged model as a checkpoint in memory, and whether its chat template is a new one."""
    base = opened.checkpoint
    tensors = {}
    for tensor in whole_tensors(opened.model):
        if tensor.name not in base.tensors:
            raise InputError(
                f"has learnt {tensor.name}, for which a plain checkpoint has no place",
                where=path,
                fix="use the tuning as it is",
            )
        # The base's file is named so that a target that would replace it is refused.
        file = base.tensors[tensor.name].file
        tensors[tensor.name] = dataclasses.replace(tensor, file=file)
    template = None if asking is None else asking.template
    changed = template is not None and template != opened.tokenizer.chat_template
    files, generation = base.tokenizer, dict(base.generation_config)
    if template is not None and changed:
        files = _with_template(files, template)
        if to != "gguf":  # which has no place for several ends; its readers know them by name
            stops = Renderer(opened.tokenizer, template).stop_ids
            generation["eos_token_id"] = sorted(stops)
    return Checkpoint(path, "hf", base.config, tensors, files, generation), changed


def _with_template(files: TokenizerFiles, template: str) -> TokenizerFiles:
    """The same tokenizer with another chat template; those of other names stay."""
    if files.gguf:
        return dataclasses.replace(files, gguf={**files.gguf, TEMPLATE: template})
    kept = {name: data for name, data in files.files.items() if name != OLD_CHAT_TEMPLATE}
    config: Any = parse_json(kept.get(CONFIG, b"{}"), where=CONFIG)
    named = config.get("chat_template")
    if isinstance(named, list) and CHAT_TEMPLATE not in kept:
        others = [one for one in named if one.get("name") != "default"]
        config["chat_template"] = [{"name": "default", "template": template}, *others]
    else:
        config.pop("chat_template", None)
        kept[CHAT_TEMPLATE] = template.encode()
    if config:
        kept[CONFIG] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    return dataclasses.replace(files, files=kept)


def _dtype(base: Checkpoint, options: MergeOptions) -> DtypeChoice:
    """What to write: as asked for, or what the base's matrices are in."""
    if options.dtype != "keep":
        return options.dtype
    kinds = {tensor.dtype for tensor in base.tensors.values() if len(tensor.shape) > 1}
    only = kinds.pop() if len(kinds) == 1 else torch.float32
    names: Mapping[torch.dtype, DtypeChoice] = {
        torch.float16: "float16",
        torch.bfloat16: "bfloat16",
    }
    return names.get(only, "float32")


def _told(place: Path) -> dict[str, Any] | None:
    manifest = find_manifest(place)
    return None if manifest is None else read_manifest(manifest)


def _digest(place: Path) -> str | None:
    told = _told(place)
    return None if told is None else str(told["digest"])


def _identity(opened: Opened, place: Path) -> str:
    return dataclasses.replace(opened, tunings=(*opened.tunings, place)).identity
