"""The work that the sides of the pretraining bench do, and how what comes of it is judged."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bench.tuning_spec import Gauge


@dataclass(frozen=True)
class Spec:
    """One run of one side."""

    shared: str  # a folder with the shape, the fresh weights and the rows
    shards: str
    out: str
    data: str  # digest of the rows
    steps: int = 10
    row_tokens: int = 512
    step_rows: int = 8
    batch_rows: int = 4  # of the peers' micro-batches; ours chooses its own
    separate: bool = False  # ours alone: no attention from one document to another
    learning_rate: float = 1e-3
    final_share: float = 0.1
    warmup_steps: int = 2
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    held_out_tokens: int = 16_384

    PLACES: ClassVar[tuple[str, ...]] = ("shared", "shards", "out")

    @classmethod
    def read(cls, path: str) -> Spec:
        return cls(**json.loads(Path(path).read_text()))

    @property
    def micro_batches(self) -> int:
        return self.step_rows // self.batch_rows

    @property
    def step_tokens(self) -> int:
        return self.step_rows * self.row_tokens

    def shape(self) -> dict[str, Any]:
        """The keys of Hugging Face's config.json."""
        found: dict[str, Any] = json.loads((Path(self.shared) / "config.json").read_text())
        return found

    def weights(self) -> dict[str, Tensor]:
        """The fresh weights that every side begins with."""
        from safetensors.torch import load_file

        return load_file(Path(self.shared) / "fresh.safetensors")

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows in order, and what each token predicts: int32 [N, T], mapped."""
        folder = Path(self.shared)
        ids, targets = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("ids", "targets"))
        return ids, targets

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The micro-batches in order: int64 [B, T]."""
        ids, targets = self.rows()
        for start in range(0, len(ids), self.batch_rows):
            part = slice(start, start + self.batch_rows)
            yield tensor(ids[part]), tensor(targets[part])

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0: warmup, then a cosine down to `final_share`."""
        if step < self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        course = (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * (self.final_share + (1 - self.final_share) * course)


def tensor(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows.astype(np.int64))


class Steps:
    """When the steps of a run ended, and what memory they took."""

    def __init__(self) -> None:
        self._gauge = Gauge()
        self._ends: list[float] = []
        self._grown = 0
        self._whole = 0.0

    def begin(self) -> None:
        """All is loaded; the first step comes next."""
        import gc

        gc.collect()
        self._gauge.mark_loaded()

    def end(self) -> None:
        """A step is done."""
        self._ends.append(time.perf_counter())
        self._gauge.see_mapped()
        self._whole, self._grown = self._gauge.seconds(), self._gauge.grown()

    def told(self, spec: Spec, loss: float, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """What every side prints; the first step is left out of the time, as it wakes libraries."""
        assert len(self._ends) == spec.steps, f"{len(self._ends)} steps, asked for {spec.steps}"
        return {
            "seconds": self._ends[-1] - self._ends[0],
            "tokens": (spec.steps - 1) * spec.step_tokens,
            "whole": self._whole,
            "grown": self._grown,
            "training_loss": loss,
            **judged(spec, weights),
        }


def judged(spec: Spec, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Nats per token and bits per byte on held-out documents: one judge for all sides."""
    from puna.model import LlamaConfig, LlamaModel
    from puna.tokens.shard_loader import RowConfig, held_out_batches
    from puna.tokens.shards import open_shards
    from puna.train import evaluate_loss
    from puna.train.objectives import Embedded, NextToken

    model = LlamaModel(LlamaConfig.from_hf(spec.shape()))
    model.load_state_dict(dict(weights))
    shards = open_shards(Path(spec.shards))
    nats = tokens = text_bytes = 0.0
    for source in shards.sources.values():
        held_out = held_out_batches(
            source.split("held_out"),
            RowConfig(spec.row_tokens, spec.step_rows, spec.batch_rows),
            max_tokens=spec.held_out_tokens,
            bos_id=shards.bos_id,
            eos_id=shards.eos_id,
        )
        found = evaluate_loss(model, NextToken(), held_out.batches, Embedded(model))
        nats += found["validation_loss"] * found["validation_tokens"]
        tokens += found["validation_tokens"]
        text_bytes += held_out.text_bytes
    return {"loss": nats / tokens, "bits_per_byte": nats / math.log(2) / text_bytes}
