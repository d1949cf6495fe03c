"""From shards of tokens to a base model, in a folder that a killed run goes on in."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from puna.artifact import read_json, write_json, writing_file
from puna.config import to_dict
from puna.errors import InputError
from puna.flows.matrix_rate import matrix_rate
from puna.flows.opening import set_threads
from puna.flows.pretrain_bench import PretrainBench, learning
from puna.flows.pretrain_pace import Pace
from puna.flows.pretrain_product import publish_pretrained
from puna.flows.pretrain_ranks import Unwatched, check_free, joined, laid_out, opened
from puna.flows.pretrain_recipe import PretrainRecipe
from puna.flows.pretrain_report import pretrain_page
from puna.flows.pretrain_samples import Samples
from puna.flows.pretrain_told import Raised
from puna.flows.products import PRODUCT
from puna.flows.run_place import (
    PRETRAINING,
    REPORT,
    SUMMARY,
    TENSORBOARD,
    RunPlace,
)
from puna.flows.tune_summary import told_machine
from puna.flows.watcher import Watcher
from puna.meter import Meter
from puna.model import LlamaModel
from puna.report import write
from puna.scale.world import World
from puna.train import FitResult, Job, Reporter, Several, TensorBoard, fit, load_trained
from puna.train.checkpoints import load_step
from puna.train.memory import begin_peak
from puna.train.objectives import Embedded, NextToken
from puna.train.ranks import gather

TRAINING, SAMPLING = "training", "sampling"


@dataclass(frozen=True)
class PretrainOptions:
    """Where a run goes, and how it begins."""

    out: Path
    """The folder of the run."""
    force: bool = False
    """Remove the run that is there, and begin again."""
    resume: bool = False
    """There must be a run to go on with."""
    command: str = ""
    """What repeats the run, for the report."""


@dataclass(frozen=True)
class Pretraining:
    """What a run published."""

    path: Path
    product: Path
    report: Path
    summary: Mapping[str, Any]
    fresh: bool  # False: all was done already
    first: bool = True  # whether this is the rank that speaks


def pretrain(recipe: PretrainRecipe, options: PretrainOptions, watcher: Watcher) -> Pretraining:
    """Raise a model from fresh weights, and publish it with a report.

    The same call again goes on where a killed one was left, and on CPU, with one rank, ends with
    the same bits. Under `torchrun` every rank calls it; the first one tells and writes.

    Raises:
        InputError: Something in the recipe, the shards or the folder is not right; or the training
            came to nothing.
        KeyboardInterrupt: The user asked to stop; the same call goes on.
    """
    with joined(recipe.device) as world:
        if world.is_first:
            return _pretrain(recipe, options, watcher, world)
        alone = dataclasses.replace(recipe.meter, use_codecarbon=False)  # one rank measures
        recipe = dataclasses.replace(recipe, meter=alone)
        return _pretrain(recipe, options, Unwatched(), world)


def _pretrain(
    recipe: PretrainRecipe, options: PretrainOptions, watcher: Watcher, world: World
) -> Pretraining:
    how = {"force": options.force, "resume": options.resume}
    check_free(options.out, world, **how)
    set_threads(recipe.threads)
    with Meter(recipe.meter) as meter:
        bench = PretrainBench(recipe, meter, watcher, world)
        with opened(options.out, bench.identity, world, **how) as place:
            fresh = not place.finished
            if fresh:
                _Run(bench, place, options).run()
        return _published(place, fresh=fresh, first=world.is_first)


class _Run:
    """One run, from an opened place to the product."""

    def __init__(self, bench: PretrainBench, place: RunPlace, options: PretrainOptions) -> None:
        self.bench, self.place, self.options = bench, place, options
        self.recipe, self.meter, self.watcher = bench.recipe, bench.meter, bench.watcher

    def run(self) -> None:
        bench, world = self.bench, self.bench.world
        peak, peak_from = self._peak()
        resident = begin_peak(bench.device)
        with self.meter.stage("fresh weights"):
            dtype = torch.bfloat16 if bench.compute_dtype else None
            model = laid_out(bench.fresh_model(), world, self.recipe.spread, dtype)
        parameters = learning(model)
        samples = Samples(
            model,
            bench.material.tokenizer,
            self.recipe.samples,
            self.place.path,
            writes=world.is_first,
        )
        result = self._fit(model, parameters, samples, peak)
        if gather(world, samples.last_step())[0] != result.steps:  # where time alone ended it
            with self.meter.stage(SAMPLING):
                samples.take(result.steps)
        if world.is_first:
            self._finish(parameters, result, samples, (peak, peak_from, resident))

    def _finish(
        self,
        parameters: Mapping[str, nn.Parameter],
        result: FitResult,
        samples: Samples,
        machine: tuple[float, str, int],
    ) -> None:
        """What one rank does alone; other ranks may have parts of the model."""
        bench, (peak, peak_from, resident) = self.bench, machine
        weights: Mapping[str, Tensor] = parameters
        if bench.in_shards:
            weights = load_step(self.place.path, result.best_step).trained
        else:
            load_trained(self.place.path, result.best_step, parameters)
        raised = Raised(bench, result, samples.rows(), peak, peak_from, resident)
        summary = self._summary(raised)
        told = self._publish(weights, summary)
        summary["lineage"] = self._lineage(told)
        with writing_file(self.place.path / SUMMARY, force=True) as temporary:
            write_json(temporary, summary)
        write(pretrain_page(summary), self.place.path / REPORT, force=True)
        self.place.finish()

    # --- stages -----------------------------------------------------------------------------------

    def _peak(self) -> tuple[float, str]:
        """What the devices do at best, FLOP per second, and where that is known from."""
        stated, world = self.recipe.peak_flops_per_second, self.bench.world
        ranks = f", times {world.size} ranks" if world.size > 1 else ""
        if stated is not None:
            return stated * world.size, f"as stated{ranks}"
        with self.meter.stage("measuring the machine"):
            own = matrix_rate(self.bench.device, self.bench.dtype)
        rate: float = gather(world, own)[0]
        return rate * world.size, f"measured on a product of two matrices{ranks}"

    def _fit(
        self,
        model: LlamaModel,
        parameters: Mapping[str, nn.Parameter],
        samples: Samples,
        peak: float,
    ) -> FitResult:
        bench = self.bench
        loader = bench.loader()
        job = Job(
            model,
            parameters,
            NextToken(z_loss=self.recipe.z_loss),
            loader,
            Embedded(model),
            bench.identity,
            evaluate=(lambda: bench.judge(model)) if bench.held_out else None,
            everywhere=samples,
            any_ranks=True,
        )
        pace = Pace(bench.flops_per_token, peak, self.watcher)
        reporters: list[Reporter] = [self.watcher, pace]
        if self.recipe.tensorboard and bench.world.is_first:
            reporters.append(TensorBoard(self.place.path / TENSORBOARD))
        with self.meter.stage(TRAINING) as cost:
            result = fit(
                job,
                bench.train_config(loader),
                self.place.path,
                world=bench.world,
                report=Several(reporters),
            )
            cost.tokens += result.tokens
        return result

    # --- what is told -----------------------------------------------------------------------------

    def _publish(self, weights: Mapping[str, Tensor], summary: Mapping[str, Any]) -> dict[str, Any]:
        return publish_pretrained(
            self.place.path / PRODUCT,
            self.bench.config,
            weights,
            self.bench.material,
            recipe=self.bench.identity,
            ledger=summary["ledger"],
        )

    def _summary(self, raised: Raised) -> dict[str, Any]:
        return {
            "kind": PRETRAINING,
            "title": self.recipe.named(self.place.path),
            "asked": to_dict(self.recipe),
            "command": self.options.command,
            **raised.told(begun=self.place.begun),
            "ledger": self.meter.to_dict(),
            "machine": told_machine(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _lineage(self, told: Mapping[str, Any]) -> list[dict[str, Any]]:
        shards = [
            {"kind": "shards", "name": str(one.path), "identity": one.identity}
            for one in self.bench.material.shards
        ]
        own = {"kind": "pretraining", "name": self.place.path.name, "digest": told["digest"]}
        return [*shards, own]


def _published(place: RunPlace, *, fresh: bool, first: bool) -> Pretraining:
    summary = read_json(place.path / SUMMARY)
    if not isinstance(summary, dict):
        raise InputError("is damaged", where=place.path / SUMMARY, fix="begin again with --force")
    product, report = place.path / PRODUCT, place.path / REPORT
    return Pretraining(place.path, product, report, summary, fresh, first)
