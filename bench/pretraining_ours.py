"""Our side of the pretraining bench: `python -m bench.pretraining_ours SPEC` prints JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.pretraining_spec import Spec, Steps
from puna.flows.matrix_rate import matrix_rate
from puna.model import LlamaConfig, LlamaModel, count
from puna.scale.world import World
from puna.tokens.batches import Batch
from puna.tokens.mixture import MixtureConfig
from puna.tokens.shard_loader import RowConfig, ShardLoader
from puna.tokens.shards import open_shards
from puna.train import Job, OptimConfig, ScheduleConfig, Silent, StepMetrics, TrainConfig, fit
from puna.train.objectives import Embedded, NextToken


class TimedLoader(ShardLoader):
    """The loader, and the seconds that the loop waited for each batch."""

    waited: list[float]

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited.append(time.perf_counter() - began)
            if batch is None:
                return
            yield batch


class Watch(Silent):
    """Notes when the run begins, and when each step is done."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.losses: list[float] = []

    def begin(self, step: int, total: int | None) -> None:
        self._steps.begin()

    def step(self, metrics: StepMetrics) -> None:
        self.losses.append(metrics.loss)
        self._steps.end()


def main() -> None:
    spec, steps = Spec.read(sys.argv[1]), Steps()
    torch.set_num_threads(2)
    shape = LlamaConfig.from_hf(spec.shape())
    model = LlamaModel(shape)
    model.load_state_dict(spec.weights())
    loader, watch = opened(spec), Watch(steps)
    job = Job(
        model,
        dict(model.named_parameters()),
        NextToken(),
        loader,
        Embedded(model),
        "the pretraining bench",
    )
    fit(job, config(spec, loader.micro_batches), Path(spec.out), world=World.single(), report=watch)
    told = steps.told(spec, statistics.fmean(watch.losses), model.state_dict())
    timed = loader.waited[loader.micro_batches : spec.steps * loader.micro_batches]
    told |= {
        "loader_seconds": sum(timed),
        "matrix_flops": matrix_rate(torch.device("cpu"), torch.float32),
        "flops_per_token": count(shape).training_flops_per_token((spec.row_tokens + 1) // 2),
    }
    print(json.dumps(told))


def opened(spec: Spec) -> TimedLoader:
    """The loader on the shards; the other sides were given what comes of it."""
    shards = open_shards(Path(spec.shards))
    loader = TimedLoader(
        {name: source.split("train") for name, source in shards.sources.items()},
        MixtureConfig(),
        RowConfig(spec.row_tokens, spec.step_rows, separate_documents=spec.separate),
        seed=0,
        steps=spec.steps,
    )
    loader.waited = []
    return loader


def config(spec: Spec, micro_batches: int) -> TrainConfig:
    return TrainConfig(
        epochs=None,
        max_steps=spec.steps,
        micro_batches=micro_batches,
        optim=OptimConfig(
            learning_rate=spec.learning_rate,
            beta1=spec.beta1,
            beta2=spec.beta2,
            weight_decay=spec.weight_decay,
            max_grad_norm=spec.max_grad_norm,
        ),
        schedule=ScheduleConfig(warmup_steps=spec.warmup_steps, final_share=spec.final_share),
    )


if __name__ == "__main__":
    main()
