"""The main job: from a recipe to a judged product, in a folder that a killed run goes on in."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from puna.artifact import read_json, write_json, writing_file
from puna.config import to_dict
from puna.errors import InputError
from puna.evaluate import Judgement, judge
from puna.evaluate.cases import choose
from puna.flows.identity import lasting_name
from puna.flows.opening import (
    Opened,
    check_tunable,
    open_model,
    resolve_device,
    resolve_dtype,
    set_threads,
    template_text,
)
from puna.flows.products import PRODUCT, Asking, publish, run_identity
from puna.flows.run_place import (
    AFTER,
    BEFORE,
    REPORT,
    SUMMARY,
    TENSORBOARD,
    RunPlace,
    check_place,
    held,
    open_place,
)
from puna.flows.trunks import Trunks, make_trunks
from puna.flows.tune_checks import check_ready
from puna.flows.tune_data import RawData, TokenData, encode, read_items
from puna.flows.tune_memory import told_memory, tuning_footprint
from puna.flows.tune_recipe import TuneRecipe
from puna.flows.tune_report import tune_page
from puna.flows.tune_summary import Outcome, told_machine, told_model
from puna.flows.watcher import Watcher
from puna.meter import Meter
from puna.report import write
from puna.scale.world import World
from puna.tokens.loader import Loader
from puna.tokens.rendering import Renderer
from puna.train import (
    FitResult,
    Job,
    Reporter,
    Several,
    TensorBoard,
    evaluate_loss,
    fit,
    load_trained,
)
from puna.train.memory import begin_peak
from puna.train.objectives import Objective, objective
from puna.tune import BaseReference, Tuned, attach
from puna.tune.trunk_cache import TrunkCacheConfig

# Keys of a recipe that no bit of a result depends on.
UNHASHED = ("title", "meter", "tensorboard", "compare")
FILLING, TRAINING = "trunk cache", "training"  # the stages that a method is charged with


@dataclass(frozen=True)
class TuneOptions:
    """Where a run goes, and how it begins."""

    out: Path
    """The folder of the run."""
    force: bool = False
    """Remove the run that is there, and begin again."""
    resume: bool = False
    """There must be a run to go on with."""
    command: str = ""
    """What repeats the run, for the report."""
    before: Judgement | None = None
    """Of the base on the same cases, where it is known already."""
    trunk_folder: Path | None = None
    """Where the trunk cache is kept, in place of the recipe's word."""


@dataclass(frozen=True)
class Tuning:
    """What a run published."""

    path: Path
    product: Path
    report: Path
    summary: Mapping[str, Any]
    fresh: bool  # False: all was done already


def tune(recipe: TuneRecipe, options: TuneOptions, watcher: Watcher) -> Tuning:
    """Tune a model, judge it against its base, and publish the result with a report.

    The same call again goes on where a killed one was left, and on CPU ends with the same bits.

    Raises:
        InputError: Something in the recipe, the data, the base or the folder is not right; or the
            training came to nothing.
    """
    check_place(options.out, force=options.force, resume=options.resume)
    set_threads(recipe.threads)
    with Meter(recipe.meter) as meter:
        bench = Workbench(recipe, meter, watcher)
        force, resume = options.force, options.resume
        with held(options.out):
            place = open_place(options.out, bench.identity, force=force, resume=resume)
            if place.finished:
                return _published(place, fresh=False)
            return _Run(bench, place, options).run()


class Workbench:
    """A recipe made real: data as tokens, and the base in memory. The first part of every run."""

    def __init__(self, recipe: TuneRecipe, meter: Meter, watcher: Watcher) -> None:
        self.recipe, self.meter, self.watcher = recipe, meter, watcher
        with meter.stage("data"):
            self.raw: RawData = read_items(recipe.data, recipe.wording)
        with meter.stage("opening the base"):
            device = resolve_device(recipe.device)
            self.base: Opened = open_model(
                recipe.model, device=device, dtype=resolve_dtype(recipe.dtype, device)
            )
            check_tunable(self.base)
            self.base_identity = self.base.identity
            self.device = self.base.model.model.norm.weight.device
            self.told_model = told_model(self.base, self.base_identity)
        taught = None if self.base.asking is None else self.base.asking.template
        self.template = template_text(recipe.template) or taught
        self.renderer = Renderer(self.base.tokenizer, self.template)
        with meter.stage("data") as cost:
            self.data: TokenData = encode(
                self.raw, self.renderer, recipe.examples, everything=self.everything
            )
            cost.tokens += sum(mask.tokens for mask in self.data.masks.values())
        self._tell_data()
        check_ready(recipe, self.data, self.base.model.config.max_position_embeddings)

    @property
    def everything(self) -> bool:
        """Whether every token is learnt, not only what the model should say."""
        return self.recipe.objective == "next_token"

    @cached_property
    def identity(self) -> str:
        """Of recipe, data and base together."""
        return self.identity_with(self.recipe)

    def identity_with(self, recipe: TuneRecipe) -> str:
        """The same with a recipe that differs in its method and its training only."""
        recipe = dataclasses.replace(recipe, template=self.template)  # not the name of its file
        return run_identity(recipe, self.raw.identity, self.base_identity, UNHASHED)

    @cached_property
    def objective(self) -> Objective:
        """What a step is."""
        return objective(self.recipe.objective)

    def attach(self) -> Tuned:
        """Put the method on the base."""
        recipe = self.recipe
        tuned = attach(self.base.model, recipe.method, seed=recipe.method_seed)
        for note in tuned.notes:
            self.watcher.note(note)
        return tuned

    def loader(self, name: str) -> Loader:
        """The batches of training, or those of validation, once."""
        recipe, training = self.recipe, name == "train"
        tokenizer = self.base.tokenizer
        return Loader(
            self.data.examples[name],
            recipe.batches,
            seed=recipe.train.seed,
            pad_id=next((i for i in (tokenizer.pad_id, tokenizer.eos_id) if i is not None), 0),
            shuffle=training,
            epochs=recipe.train.epochs if training else 1,
        )

    def _tell_data(self) -> None:
        tell = self.watcher.lines
        tell("data", self.raw.lines())
        tell("what is trained", self.data.masks["train"].lines())
        for name, mask in self.data.masks.items():
            if name != "train" and mask.dropped:
                tell(f"left out of {name}", [f"{n:,} x {why}" for why, n in mask.dropped.items()])


class _Run:
    """One run, from an opened place to the product."""

    def __init__(self, bench: Workbench, place: RunPlace, options: TuneOptions) -> None:
        self.bench, self.place, self.options = bench, place, options
        self.recipe, self.meter, self.watcher = bench.recipe, bench.meter, bench.watcher
        self.model = bench.base.model

    def run(self) -> Tuning:
        if self.options.before is not None:
            self._keep(BEFORE, self.options.before)
        before = self._judged(BEFORE, "judging the base")
        self.footprint = tuning_footprint(self.bench)
        self.resident_bytes = begin_peak(self.bench.device)
        tuned = self.bench.attach()
        trunks = make_trunks(self.model, tuned, self.bench.data.examples, self._cache_config())
        self._fill(trunks)
        result = self._fit(tuned, trunks)
        load_trained(self.place.path, result.best_step, tuned.parameters())
        tuned.set_train(False)
        after = self._judged_tuned(tuned)
        summary = self._summary(tuned, trunks, result, (before, after))
        told = self._publish(tuned, summary)
        summary["lineage"] = self._lineage(told)
        with writing_file(self.place.path / SUMMARY, force=True) as temporary:
            write_json(temporary, summary)
        write(tune_page(summary), self.place.path / REPORT, force=True)
        self.place.finish()
        return _published(self.place, fresh=True)

    # --- stages -----------------------------------------------------------------------------------

    def _judged(self, name: str, stage: str) -> Judgement | None:
        """The judgement of the model as it stands; that of an earlier process where it is there."""
        path, cases = self.place.path / name, self.bench.data.cases["test"]
        if not cases:
            return None
        if path.is_file():
            return Judgement.from_dict(read_json(path), str(path))
        with self.meter.stage(stage) as cost:
            found = judge(
                self.model,
                self.bench.base.tokenizer,
                cases,
                self.recipe.evaluation,
                stop_ids=self.bench.renderer.stop_ids,
                progress=lambda what, done, total: self.watcher.progress(
                    f"{stage}: {what}", done, total
                ),
            )
            cost.tokens += found.tokens
        self._keep(name, found)
        return found

    def _keep(self, name: str, judgement: Judgement) -> None:
        with writing_file(self.place.path / name, force=True) as temporary:
            write_json(temporary, judgement.to_dict())

    def _judged_tuned(self, tuned: Tuned) -> Judgement | None:
        if not tuned.method.mergeable:
            return self._judged(AFTER, "judging the result")
        with tuned.merged():
            return self._judged(AFTER, "judging the result")

    def _cache_config(self) -> TrunkCacheConfig:
        config, folder = self.recipe.trunk_cache, self.options.trunk_folder
        return config if folder is None else dataclasses.replace(config, folder=folder)

    def _fill(self, trunks: Trunks) -> None:
        if trunks.cache is None:
            return
        with self.meter.stage(FILLING):
            trunks.cache.fill(lambda done, total: self.watcher.progress("trunk cache", done, total))
        for note in trunks.cache.notes:
            self.watcher.note(note)

    def _fit(self, tuned: Tuned, trunks: Trunks) -> FitResult:
        bench, recipe = self.bench, self.recipe
        validating = bool(bench.data.examples["validation"])
        job = Job(
            self.model,
            tuned.parameters(),
            bench.objective,
            bench.loader("train"),
            trunks.of["train"],
            bench.identity,
            evaluate=(lambda: self._watch(tuned, trunks)) if validating else None,
            set_train=tuned.set_train,
            seconds_before=self._filling_seconds(),
        )
        reporters: list[Reporter] = [self.watcher]
        if recipe.tensorboard:
            reporters.append(TensorBoard(self.place.path / TENSORBOARD))
        world = World.single(bench.device)
        with self.meter.stage(TRAINING) as cost:
            result = fit(job, recipe.train, self.place.path, world=world, report=Several(reporters))
            cost.tokens += result.tokens
        return result

    def _filling_seconds(self) -> float:
        cost = self.meter.stages.get(FILLING)
        return 0.0 if cost is None else cost.wall_seconds

    def _watch(self, tuned: Tuned, trunks: Trunks) -> dict[str, float]:
        """The validation loss, and the figures that the recipe wants to be watched."""
        bench, watch = self.bench, self.recipe.watch
        found = evaluate_loss(
            self.model, bench.objective, bench.loader("validation"), trunks.of["validation"]
        )
        if not watch.metrics:
            return found
        config = dataclasses.replace(
            self.recipe.evaluation, metrics=watch.metrics, samples=0, limit=None
        )
        cases = choose(bench.data.cases["validation"], watch.max_examples)
        with tuned.merged() if tuned.method.mergeable else torch.no_grad():
            judged = judge(
                self.model,
                bench.base.tokenizer,
                cases,
                config,
                stop_ids=bench.renderer.stop_ids,
            )
        return found | {f"validation_{k}": value.value for k, value in judged.metrics.items()}

    # --- what is told -----------------------------------------------------------------------------

    def _publish(self, tuned: Tuned, summary: Mapping[str, Any]) -> dict[str, Any]:
        bench = self.bench
        converses = bench.raw.shape != "text"
        asking = Asking(bench.renderer.template, self.recipe.wording, converses)
        base = BaseReference(lasting_name(self.recipe.model), bench.base_identity)
        return publish(
            self.place.path / PRODUCT,
            tuned,
            base=base,
            source=bench.base.checkpoint,
            tokenizer=bench.base.tokenizer,
            asking=asking,
            config={
                "made by": "tune",
                "method": self.recipe.method.method,
                "data": bench.raw.identity,
                "recipe": bench.identity,
            },
            measured={
                "seconds": round(summary["ledger"]["total"]["wall_seconds"], 3),
                "host": f"{platform.system()} {platform.machine()}",
                "cost": summary["ledger"],
            },
        )

    def _summary(
        self,
        tuned: Tuned,
        trunks: Trunks,
        result: FitResult,
        judged: tuple[Judgement | None, Judgement | None],
    ) -> dict[str, Any]:
        bench = self.bench
        outcome = Outcome(tuned, result, *judged, trunks.cache, self.resident_bytes)
        return {
            "title": self.recipe.named(self.place.path),
            "asked": to_dict(self.recipe),
            "command": self.options.command,
            "model": bench.told_model,
            "data": bench.raw.told(),
            "mask": {k: m.to_dict() for k, m in bench.data.masks.items() if m.examples},
            **outcome.told(samples=self.recipe.evaluation.samples, begun=self.place.begun),
            "memory": told_memory(self.footprint, self.resident_bytes, result.peak_bytes),
            "ledger": self.meter.to_dict(),
            "machine": told_machine(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _lineage(self, told: Mapping[str, Any]) -> list[dict[str, Any]]:
        bench = self.bench
        return [
            {"kind": "base", "name": self.recipe.model, "identity": bench.base_identity},
            {"kind": "data", "name": f"{bench.raw.shape} data", "identity": bench.raw.identity},
            {"kind": "tuning", "name": self.place.path.name, "digest": told["digest"]},
        ]


def _published(place: RunPlace, *, fresh: bool) -> Tuning:
    summary = read_json(place.path / SUMMARY)
    if not isinstance(summary, dict):
        raise InputError("is damaged", where=place.path / SUMMARY, fix="begin again with --force")
    return Tuning(place.path, place.path / PRODUCT, place.path / REPORT, summary, fresh)
