"""What a pretraining run publishes: a Hugging Face folder with its vocabulary and a manifest."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from puna.artifact import (
    MANIFEST,
    digest_file,
    manifest,
    model_identity,
    write_json,
    writing_folder,
)
from puna.config import to_dict
from puna.flows.pretrain_data import Material
from puna.flows.products import ASKING, Asking
from puna.model import LlamaConfig
from puna.store import LazyTensor, write_hf


def publish_pretrained(
    place: Path,
    config: LlamaConfig,
    weights: Mapping[str, Tensor],
    material: Material,
    *,
    recipe: str,
    ledger: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a base model: whole or absent.

    Args:
        place: The folder to make; one that was there is replaced.
        config: The shape.
        weights: By their names, a tied head left out.
        material: What it learnt from: the vocabulary goes along, the shards are the parents.
        recipe: The identity of the run.
        ledger: What it cost.

    Returns:
        The manifest.

    Raises:
        InputError: The disk refused, or a weight is not finite.
    """
    tokenizer = material.tokenizer
    ends = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    lazy = [
        LazyTensor(name, tuple(w.shape), w.dtype, str(w.dtype), w.detach().cpu().contiguous)
        for name, w in weights.items()
    ]
    with writing_folder(place, force=True) as folder:
        digests = write_hf(
            folder,
            config={**config.to_hf(), **ends},
            tensors=lazy,
            files=tokenizer.to_files(),
            generation_config={key: value for key, value in ends.items() if value is not None},
        )
        write_json(folder / ASKING, to_dict(Asking(converses=False)))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        told = manifest(
            "checkpoint",
            config={
                "made by": "pretrain",
                "data": material.identity,
                "recipe": recipe,
                "model": model_identity(digests),
            },
            parents=[f"shards {shards.identity}" for shards in material.shards],
            files={str(path.relative_to(folder)): digest_file(path) for path in files},
            measured={
                "seconds": round(ledger["total"]["wall_seconds"], 3),
                "host": f"{platform.system()} {platform.machine()}",
                "cost": ledger,
                "ancestors": material.ancestors(),
            },
        )
        write_json(folder / MANIFEST, told)
    return told
