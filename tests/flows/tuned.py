"""Tunings made without training: a method put on a tiny base, moved by chance, and published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.flows.opening import Opened, open_model
from puna.flows.products import Asking, publish
from puna.model import LlamaModel
from puna.records import Wording
from puna.tune import BaseReference, attach, load_tuned
from puna.tune.method import method_config

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 33, 60, 12, 80, 7, 41]])
WORDING = Wording(prompt="Say: {source}")


def opened(name: str | Path) -> Opened:
    """In float32 on the CPU."""
    return open_model(str(name), device=CPU, dtype=torch.float32)


def make_tuning(
    folder: Path, base: Path, method: Mapping[str, Any], template: str | None = None
) -> Path:
    """A product as a run publishes it; the same one each time."""
    found = opened(base)
    tuned = attach(found.model, method_config(method))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in tuned.parameters().values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    publish(
        folder,
        tuned,
        base=BaseReference(str(base), found.identity),
        source=found.checkpoint,
        tokenizer=found.tokenizer,
        asking=Asking(template or found.tokenizer.chat_template, WORDING),
        config={"made by": "tune", "method": method["method"]},
        measured={"seconds": 1.5},
    )
    return folder


@torch.inference_mode()
def logits(model: LlamaModel) -> Tensor:
    """Of a few ids."""
    return model.head(model.run(model.embed(IDS)))


def unmerged_logits(folder: Path, base: Path) -> Tensor:
    """The base with the tuning beside it, as it was trained."""
    model = opened(base).model
    tuned = load_tuned(model, folder, check_identity=None)
    tuned.set_train(False)
    return logits(model)
