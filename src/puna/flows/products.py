"""What a tuning run publishes, and how it is opened: a base with a tuning on it, asked as taught.

A product is a folder: the tuning (or, after full tuning, the whole checkpoint), `asking.json`,
which says how a question is put to it, and the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from puna.artifact import (
    MANIFEST,
    digest_file,
    digest_json,
    manifest,
    parse_json,
    read_json,
    write_json,
    writing_folder,
)
from puna.config import from_dict, to_dict
from puna.errors import InputError
from puna.model import LlamaModel
from puna.records import Wording
from puna.store import Checkpoint, LazyTensor, write_hf
from puna.tokens import Tokenizer
from puna.tokens.rendering import Renderer
from puna.tune import BaseReference, Tuned, save_tuned
from puna.tune.files import TUNING_FILE
from puna.tune.peft_files import PEFT_CONFIG

ASKING, RUN_FILE, PRODUCT = "asking.json", "run.json", "model"
ASKING_KEY = "tokenizer.puna.asking"  # of a GGUF file, which is one file


@dataclass(frozen=True)
class Asking:
    """How a question is put to a model, as its training data put it."""

    template: str | None = None
    """The chat template as text; null: none, the model continues texts."""
    wording: Wording = field(default_factory=Wording)
    """Around the question."""
    converses: bool = True
    """Whether it learnt from conversations, rather than from texts to be continued."""

    def renderer(self, tokenizer: Tokenizer) -> Renderer:
        """From messages to ids."""
        return Renderer(tokenizer, self.template)


def read_asking(folder: Path) -> Asking | None:
    """How the model in a folder is asked; None where it does not say.

    Raises:
        InputError: The file is damaged.
    """
    place = folder / ASKING
    return from_dict(Asking, read_json(place), str(place)) if place.is_file() else None


def checkpoint_asking(checkpoint: Checkpoint) -> Asking | None:
    """How the model of an opened checkpoint is asked; None where it does not say.

    Raises:
        InputError: What it says is damaged.
    """
    if checkpoint.format != "gguf":
        path = checkpoint.path
        return read_asking(path if path.is_dir() else path.parent)
    told = checkpoint.tokenizer.gguf.get(ASKING_KEY)
    if told is None:
        return None
    where = f"{checkpoint.path}, {ASKING_KEY}"
    return from_dict(Asking, parse_json(str(told).encode(), where=where), where)


def asking_files(asking: Asking | None) -> dict[str, bytes]:
    """How a model is asked, as files beside its weights."""
    if asking is None:
        return {}
    return {ASKING: (json.dumps(to_dict(asking), indent=2, ensure_ascii=False) + "\n").encode()}


def asking_metadata(asking: Asking | None) -> dict[str, str]:
    """How a model is asked, as metadata of a GGUF file, which other programs pass over."""
    return {} if asking is None else {ASKING_KEY: json.dumps(to_dict(asking), ensure_ascii=False)}


def find_product(path: Path) -> Path:
    """The product of the run in a folder; the path itself where it is no run.

    Raises:
        InputError: It is a run that has published nothing yet.
    """
    if not (path / RUN_FILE).is_file():
        return path
    product = path / PRODUCT
    if not product.is_dir():
        raise InputError(
            "is a run that is not finished: it has no model yet",
            where=path,
            fix="give the command that began it again; it goes on where it was left",
        )
    return product


def is_tuning(path: Path) -> bool:
    """Whether a folder holds a tuning, which needs its base, rather than a whole model."""
    return (path / TUNING_FILE).is_file() or (path / PEFT_CONFIG).is_file()


def publish(
    place: Path,
    tuned: Tuned,
    *,
    base: BaseReference,
    source: Checkpoint,
    tokenizer: Tokenizer,
    asking: Asking,
    config: Mapping[str, Any],
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the product of a run: whole or absent.

    Args:
        place: The folder to make; one that was there is replaced.
        tuned: What was learnt.
        base: What it stands on.
        source: The base's checkpoint, for what a full model needs beside its weights.
        tokenizer: The base's, for the same.
        asking: How it is asked.
        config: What was asked for; part of the identity.
        measured: What it cost, for the manifest.

    Returns:
        The manifest.
    """
    parents = [f"model {base.identity}"]
    with writing_folder(place, force=True) as folder:
        if tuned.config.method == "full":
            with tuned.merged():  # plain modules, in the dtype that was judged
                _write_whole(folder, tuned.model, source, tokenizer)
        else:
            save_tuned(folder, tuned, base=base)
        write_json(folder / ASKING, to_dict(asking))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        told = manifest(
            "model" if tuned.config.method == "full" else "tuning",
            config={**config, "base": base.name},
            parents=parents,
            files={str(path.relative_to(folder)): digest_file(path) for path in files},
            measured=measured,
        )
        write_json(folder / MANIFEST, told)
    return told


def whole_tensors(model: LlamaModel) -> list[LazyTensor]:
    """The parameters of a plain model, a tied head left out, for a writer."""
    tied = model.config.tie_word_embeddings
    return [
        LazyTensor(name, tuple(p.shape), p.dtype, str(p.dtype), p.detach().cpu().contiguous)
        for name, p in model.named_parameters()
        if not (tied and name == "lm_head.weight")
    ]


def _write_whole(folder: Path, model: LlamaModel, source: Checkpoint, tokenizer: Tokenizer) -> None:
    write_hf(
        folder,
        config=source.config,
        tensors=whole_tensors(model),
        files={**tokenizer.to_files(), **source.tokenizer.files},  # of GGUF it has none
        generation_config=source.generation_config,
    )


def run_identity(recipe: Any, data: str, base: str, unhashed: Sequence[str] = ()) -> str:
    """A digest over what decides the bits of a run: recipe, data and base."""
    told = {key: value for key, value in to_dict(recipe).items() if key not in unhashed}
    return digest_json({"recipe": told, "data": data, "base": base})
