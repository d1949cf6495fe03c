"""What a tuning run would take, found by doing a little of it: nothing is kept or written."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import torch

from puna.artifact import format_bytes
from puna.evaluate import Case, choose, judge
from puna.flows.opening import set_threads
from puna.flows.recipe_lines import recipe_lines
from puna.flows.trunks import make_trunks
from puna.flows.tune_recipe import TuneRecipe
from puna.flows.tuning import Workbench
from puna.flows.watcher import Watcher
from puna.meter import Meter
from puna.model import count
from puna.tokens.batches import Batch
from puna.train import TrainConfig
from puna.train.memory import peak_bytes
from puna.train.objectives import Objective, Term, Trunk
from puna.tune import Tuned
from puna.tune.trunk_cache import TrunkCacheConfig
from puna.tune.trunk_codec import Codec
from puna.tune.trunk_plan import run_trunk

TRIED_BATCHES = 3
TRIED_CASES = 8


def rehearse(recipe: TuneRecipe, origins: Mapping[str, str], watcher: Watcher) -> Iterator[str]:
    """Lines that tell the resolved recipe, the parameters, and the time and memory it would take.

    Times are measured here and now, on a few batches and questions, and multiplied.

    Args:
        recipe: The recipe.
        origins: Where each value comes from, by dotted key.
        watcher: Is shown the data and the mask report.

    Raises:
        InputError: What the run itself would refuse.
    """
    yield from recipe_lines(recipe, origins)
    set_threads(recipe.threads)
    with Meter(dataclasses.replace(recipe.meter, use_codecarbon=False)) as meter:
        bench = Workbench(recipe, meter, watcher)
        judging = _judging_seconds(bench)
        tuned = bench.attach()
        total = count(bench.base.model.config).parameters
        learning = tuned.trainable_count()
        yield ""
        yield f"parameters        {total:,}, of which {learning:,} learn ({learning / total:.2%})"
        yield from _costs(bench, tuned, judging)


def _costs(bench: Workbench, tuned: Tuned, judging: float) -> Iterator[str]:
    recipe, model = bench.recipe, bench.base.model
    trunks = make_trunks(model, tuned, bench.data.examples, TrunkCacheConfig(enabled=False))
    trunk = trunks.of["train"]
    cached = trunk.start > 0 and recipe.trunk_cache.enabled
    loader = bench.loader("train")
    steps = math.ceil(loader.batches_in_epoch(0) / recipe.train.micro_batches)
    tokens = sum(map(len, bench.data.examples["train"]))
    held_out = sum(map(len, bench.data.examples["validation"]))
    batches = [batch for _, batch in islice(loader, TRIED_BATCHES)]
    fill = _trunk_seconds(bench, trunk.start) * (tokens + held_out)
    rate = _training_seconds(bench.objective, bench, tuned, trunk, batches)
    if cached:
        rate -= fill / (tokens + held_out)
    epoch = max(rate, 1e-9) * (tokens + held_out / 3)
    epochs = _epochs(recipe.train, steps, epoch, fill if cached else 0.0)
    training = epoch * epochs
    state = 2 * 4 * tuned.trainable_count()
    yield f"steps             {steps:,.0f} an epoch, {steps * epochs:,.0f} in all"
    yield f"tokens            {tokens:,} an epoch"
    if cached:
        codec = Codec.choose(recipe.trunk_cache.dtype, model.model.norm.weight.dtype)
        disk = (tokens + held_out) * codec.token_bytes(model.config.hidden_size)
        yield f"trunk cache       about {fill:,.0f} s once, {format_bytes(disk)} in {codec.name}"
    elif trunk.start:
        yield f"trunk             about {fill * epochs:,.0f} s of the training (no cache)"
    yield f"training          about {training:,.0f} s"
    if bench.data.cases["test"]:
        yield f"judging           about {2 * judging:,.0f} s, base and result"
    yield f"memory            about {format_bytes(peak_bytes(bench.device) + state)} at the most"


def _epochs(config: TrainConfig, steps: float, seconds: float, before: float) -> float:
    """How many there will be: the nearest limit counts.

    Args:
        config: The limits.
        steps: Of an epoch.
        seconds: Of an epoch.
        before: Seconds that are spent before the first one.
    """
    limits: list[float] = [] if config.epochs is None else [config.epochs]
    if config.max_steps is not None:
        limits.append(config.max_steps / max(steps, 1))
    if config.max_seconds is not None:
        limits.append(max(config.max_seconds - before, 0.0) / seconds)
    return min(limits)


def _judging_seconds(bench: Workbench) -> float:
    """Of one model: its figures, and the answers that are only shown."""
    config = bench.recipe.evaluation
    cases = choose(bench.data.cases["test"], config.limit)
    if not cases:
        return 0.0
    tried = min(len(cases), TRIED_CASES)
    alone = _seconds_to_judge(bench, cases, samples=0)
    seconds = alone * len(cases) / tried
    shown = min(config.samples, sum(bool(len(case.prompt_ids)) for case in cases))
    if shown and not config.needs("outputs"):
        answers = min(shown, tried)
        more = _seconds_to_judge(bench, cases, samples=answers) - alone
        seconds += max(more, 0.0) * shown / answers
    return seconds


def _seconds_to_judge(bench: Workbench, cases: Sequence[Case], *, samples: int) -> float:
    """Of a few cases, with so many answers where no metric needs any."""
    config = dataclasses.replace(bench.recipe.evaluation, limit=TRIED_CASES, samples=samples)
    stops = bench.renderer.stop_ids
    began = time.perf_counter()
    judge(bench.base.model, bench.base.tokenizer, cases, config, stop_ids=stops)
    return time.perf_counter() - began


def _trunk_seconds(bench: Workbench, start: int) -> float:
    """Per token."""
    if not start:
        return 0.0
    examples = bench.data.examples["train"][:32]
    run_trunk(bench.base.model, start, [examples[0].ids])
    began = time.perf_counter()
    run_trunk(bench.base.model, start, [example.ids for example in examples])
    return (time.perf_counter() - began) / sum(map(len, examples))


def _training_seconds(
    objective: Objective, bench: Workbench, tuned: Tuned, trunk: Trunk, batches: list[Batch]
) -> float:
    """Per token, forward and backward; the first batch is not counted."""

    def backward(term: Term) -> None:
        term.sum.backward()  # type: ignore[no-untyped-call]

    seconds, tokens = 0.0, 0
    for number, batch in enumerate([batches[0], *batches]):
        began = time.perf_counter()
        with torch.enable_grad():
            objective.step(bench.base.model, batch.to(bench.device), trunk, backward)
        for parameter in tuned.parameters().values():
            parameter.grad = None
        if number:
            seconds, tokens = seconds + time.perf_counter() - began, tokens + batch.tokens
    return seconds / tokens
