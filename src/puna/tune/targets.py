"""Which linear layers of a model a list of names means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import nn

from puna.errors import InputError
from puna.model import LlamaModel
from puna.tune.dense import is_linear
from puna.tune.method import first_layer

T = TypeVar("T")


def fits(name: str, path: str) -> bool:
    """Whether `name` is `path` or the end of it, at a dot."""
    return path == name or path.endswith(f".{name}")


def find_targets(
    model: LlamaModel, targets: Iterable[str], layers: int | None
) -> tuple[dict[str, tuple[int, nn.Module]], list[str]]:
    """The layers that `targets` name in the last `layers` blocks.

    Returns:
        (level, module) by path, in the order of the forward pass, and notes about targets that
        name blocks below. The level is a block's number, or the number of blocks for the head.

    Raises:
        InputError: A target matches nothing, or something that is no linear layer, or the head
            of a model whose head is its embedding.
    """
    first = first_layer(model, layers)
    everything = _everything(model)
    found: dict[str, tuple[int, nn.Module]] = {}
    notes: list[str] = []
    for target in targets:
        matched = [path for path in everything if fits(target, path)]
        if not matched:
            raise _nothing(target, everything)
        for path in matched:
            _check(model, path, everything[path][1])
        kept = [path for path in matched if everything[path][0] >= first]
        found.update((path, everything[path]) for path in kept)
        if not kept:
            notes.append(f"target {target!r} matches nothing in the last {layers} blocks")
    if not found:
        raise InputError(f"no target lies in the last {layers} blocks", fix="give more layers")
    return {path: found[path] for path in everything if path in found}, notes


def by_path(pattern: Mapping[str, T], path: str, default: T) -> T:
    """The value of the first key that fits a path."""
    return next((value for name, value in pattern.items() if fits(name, path)), default)


def check_patterns(pattern: Mapping[str, object], paths: Iterable[str], key: str) -> None:
    """Refuse a key that fits no target: its value would be dropped silently.

    Raises:
        InputError: Names the key.
    """
    known = list(paths)
    for name in pattern:
        if not any(fits(name, path) for path in known):
            raise InputError(f"{key}: {name!r} fits no target", fix=f"targets: {known[0]} ...")


def _everything(model: LlamaModel) -> dict[str, tuple[int, nn.Module]]:
    top = len(model.model.layers)
    embedding: tuple[int, nn.Module] = (-1, model.model.embed_tokens)
    rows = {"model.embed_tokens": embedding}
    for level, block in enumerate(model.model.layers):
        inside = ((name, module) for name, module in block.named_modules() if name)
        rows.update((f"model.layers.{level}.{name}", (level, module)) for name, module in inside)
    return {**rows, "model.norm": (top, model.model.norm), "lm_head": (top, model.lm_head)}


def _check(model: LlamaModel, path: str, module: nn.Module) -> None:
    if path == "lm_head" and model.config.tie_word_embeddings:
        raise InputError(
            "lm_head is the embedding of this model (tie_word_embeddings): an update of it would "
            "be one of both",
            fix="leave lm_head out of targets",
        )
    if not is_linear(module):
        raise InputError(f"target {path} is a {type(module).__name__}, not a linear layer")


def _nothing(target: str, everything: Mapping[str, tuple[int, nn.Module]]) -> InputError:
    names = sorted({path.rpartition(".")[2] for path, (_, m) in everything.items() if is_linear(m)})
    near = difflib.get_close_matches(target, [*names, *everything], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(
        f"target {target!r} matches nothing in this model", fix=f"{hint}known: {', '.join(names)}"
    )
