"""What a manifest of a checkpoint tells: what it was made from, how, and what is in it."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.artifact import (
    TensorDigest,
    digest_file,
    find_manifest,
    manifest,
    model_identity,
    read_manifest,
)
from puna.flows.verify import Verdict
from puna.store import Checkpoint
from puna.store.values import digest_lazy


def parents(source: Checkpoint, written: Sequence[TensorDigest], *, exact: bool) -> list[str]:
    """The identities that a product of `source` descends from.

    That is the digest of the source's manifest, where it is one of ours and speaks of the tensors
    that are there; otherwise the identity of the tensors themselves.

    Args:
        source: What was read.
        written: Digests of the product's tensors.
        exact: Whether the product holds the source's values, so that its digests may serve.
    """
    own = {
        tensor.name: str(tensor.dtype).removeprefix("torch.") for tensor in source.tensors.values()
    }
    same = exact and own == {digest.name: digest.dtype for digest in written}
    model = model_identity(written if same else map(digest_lazy, source.tensors.values()))
    place = find_manifest(source.path)
    told = None if place is None else read_manifest(place)
    if told is not None and told["identity"]["config"].get("model") == model:
        return [str(told["digest"])]
    return [f"model {model}"]


def describe(
    place: Path,
    *,
    config: dict[str, Any],
    parents: Sequence[str],
    verdict: Verdict | None,
    began: float,
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Build the manifest of a checkpoint that was just written.

    Args:
        place: The folder or file.
        config: What was asked for, and the identity of the model.
        parents: Identities of what it was made from.
        verdict: What its comparison with the source found; None without one.
        began: `time.perf_counter()` at the start of the work, seconds.
        measured: Further figures.
    """
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    names = {file: "weights" if place.is_file() else str(file.relative_to(place)) for file in files}
    return manifest(
        "checkpoint",
        config=config,
        parents=parents,
        files={names[file]: digest_file(file) for file in files},
        measured={
            "seconds": round(time.perf_counter() - began, 3),
            "host": f"{platform.system()} {platform.machine()}",
            "comparison": None if verdict is None else verdict.to_dict(),
            **measured,
        },
    )
