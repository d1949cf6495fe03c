"""What a pretraining run would take, found by a few batches of it: nothing is kept or written."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from itertools import islice

import torch

from puna.artifact import format_bytes
from puna.flows.matrix_rate import matrix_rate
from puna.flows.opening import set_threads
from puna.flows.pretrain_bench import PretrainBench, learning
from puna.flows.pretrain_recipe import PretrainRecipe
from puna.flows.recipe_lines import recipe_lines
from puna.flows.watcher import Watcher
from puna.meter import Meter
from puna.model import LlamaModel
from puna.report.words import duration, percent
from puna.train.masters import what_moves
from puna.train.objectives import Embedded, NextToken, Term

TRIED_BATCHES = 3  # one more comes first, and is not counted
_LEAST_BYTES = 8  # of a parameter with its gradient, float32


def rehearse(recipe: PretrainRecipe, origins: Mapping[str, str], watcher: Watcher) -> Iterator[str]:
    """Lines that tell the resolved recipe, the parameters, FLOPs, time and memory of a run.

    The time is that of a few batches here and now, multiplied. A model that cannot fit this
    machine's memory is counted, not tried.

    Args:
        recipe: The recipe.
        origins: Where each value comes from, by dotted key.
        watcher: Is shown the data.

    Raises:
        InputError: What the run itself would refuse.
    """
    yield from recipe_lines(recipe, origins)
    set_threads(recipe.threads)
    with Meter(dataclasses.replace(recipe.meter, use_codecarbon=False)) as meter:
        bench = PretrainBench(recipe, meter, watcher)
        yield ""
        yield from _counted(bench)
        least = _LEAST_BYTES * bench.counts.parameters
        if bench.device.type == "cpu" and least > _memory_bytes():
            yield f"training          not tried: weights and gradients take {format_bytes(least)}"
            return
        yield from _tried(bench)


def _counted(bench: PretrainBench) -> Iterator[str]:
    counts, tokens = bench.counts, bench.tokens
    embedding = counts.embedding_parameters
    yield f"parameters        {counts.parameters:,}, {embedding:,} of them the embedding"
    yield f"FLOPs             {bench.flops_per_token:.3g} a token"
    footprint = bench.footprint()
    if footprint is not None:
        yield f"memory            about {format_bytes(footprint.total)} at the most"
    if tokens is None or bench.steps is None:
        yield "steps             as many as the time allows"
        return
    yield f"steps             {bench.steps:,} of {bench.recipe.step_tokens:,} tokens"
    share = tokens / bench.material.tokens
    yield f"tokens            {tokens:,} in all, {share:.2f} of what is there"
    yield f"FLOPs in all      {tokens * bench.flops_per_token:.3g}"


def _tried(bench: PretrainBench) -> Iterator[str]:
    model = bench.fresh_model()
    peak = bench.recipe.peak_flops_per_second or matrix_rate(bench.device, bench.dtype)
    rate = _tokens_per_second(bench, model)
    used = percent(rate * bench.flops_per_token / peak)
    yield f"speed             about {rate:,.0f} tokens/s, {used} of {peak / 1e9:,.0f} GFLOP/s"
    if bench.tokens is not None:
        yield f"training          about {duration(bench.tokens / rate)}"
    if bench.held_out:
        judged = sum(batch.tokens for one in bench.held_out.values() for batch in one.batches)
        yield f"judging           about {duration(judged / (3 * rate))} each time"


def _tokens_per_second(bench: PretrainBench, model: LlamaModel) -> float:
    """Forward and backward."""
    objective, trunk = NextToken(z_loss=bench.recipe.z_loss), Embedded(model)

    def backward(term: Term) -> None:
        term.sum.backward()  # type: ignore[no-untyped-call]

    batches = [batch for _, batch in islice(bench.loader(), TRIED_BATCHES)]
    seconds, tokens = 0.0, 0
    with what_moves(model, learning(model), bench.compute_dtype):
        for number, batch in enumerate([batches[0], *batches]):
            began = time.perf_counter()
            objective.step(model, batch.to(bench.device), trunk, backward)
            if bench.device.type == "cuda":
                torch.cuda.synchronize(bench.device)
            if number:
                seconds, tokens = seconds + time.perf_counter() - began, tokens + batch.tokens
    return tokens / max(seconds, 1e-9)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
