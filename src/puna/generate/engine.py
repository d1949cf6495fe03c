"""The decoding loop: token ids in, token ids out, a step at a time.

Prompts of equal length are read together, others row by row (no padding is computed); long ones
in pieces, so that memory does not grow with the prompt. Finished sequences leave the batch.

Shapes: B batch, T tokens, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from puna.errors import InputError
from puna.generate.sampling import Sampler, Sampling
from puna.generate.stepping import choose_step
from puna.model import ContiguousCache, LlamaModel

PREFILL_TOKENS = 1024  # tokens of a prompt that are computed at a time
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Step:
    """One new token of one sequence."""

    row: int  # index of the prompt
    id: int
    logprob: float | None  # natural logarithm, under the model's own distribution
    top: tuple[tuple[int, float], ...]  # (id, logprob) of the likeliest tokens
    finish: FinishReason | None  # set on the last step of a sequence


def decode(
    model: LlamaModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop_ids: Collection[int] = (),
    cache: ContiguousCache | None = None,
    first_stream: int = 0,
    kernels: bool = True,
) -> Iterator[list[Step]]:
    """Yield, after each forward pass, one `Step` per unfinished sequence.

    Args:
        model: On any device; not changed.
        prompts: Token ids, at least one each.
        sampling: Stop strings are not looked at here; see `puna.generate.stream`.
        stop_ids: Ids that end a sequence, beside `sampling.stop_tokens`.
        cache: Holds the first tokens of each prompt already; made here by default.
        first_stream: Number of the random stream of the first prompt.
        kernels: Use compiled kernels where they serve; see `puna.generate.stepping`.

    Send `rows` (a set of prompt indices) into the generator to end sequences from outside.

    Raises:
        InputError: A prompt is empty or fills the model's context.
    """
    check_prompts(model, prompts)
    if not prompts:
        return
    stops = {*sampling.stop_tokens, *(() if sampling.ignore_eos else stop_ids)}
    context = model.config.max_position_embeddings
    left = [min(sampling.max_tokens, context - len(prompt)) for prompt in prompts]
    if cache is None:
        room = max(len(prompt) + new for prompt, new in zip(prompts, left, strict=True))
        cache = new_cache(model, batch=len(prompts), max_tokens=room)
    advance = choose_step(model, kernels=kernels)
    rows = list(range(len(prompts)))
    with torch.inference_mode():
        logits = prefill(model, prompts, cache)  # [B, V]
    sampler = Sampler(sampling, prompts, model.config.vocab_size, logits.device, first_stream)
    while rows:
        with torch.inference_mode():
            chosen = sampler(logits)
            steps = _steps(rows, chosen, logits, sampling)
        for index, step in enumerate(steps):
            left[step.row] -= 1
            if step.id in stops or not left[step.row]:
                finish: FinishReason = "stop" if step.id in stops else "length"
                steps[index] = replace(step, finish=finish)
        ended = {step.row for step in steps if step.finish}
        ended |= (yield steps) or set()
        kept = [index for index, row in enumerate(rows) if row not in ended]
        if not kept:
            return
        with torch.inference_mode():
            if len(kept) < len(rows):
                rows, chosen = [rows[index] for index in kept], chosen[kept]
                cache.keep(kept)
                sampler.keep(kept)
            logits = advance(chosen, cache)


def prefill(model: LlamaModel, prompts: Sequence[Sequence[int]], cache: ContiguousCache) -> Tensor:
    """Read what the cache does not hold of each prompt; returns the next logits [B, V]."""
    fresh = [list(p[held:]) for p, held in zip(prompts, cache.lengths, strict=True)]
    if len({(len(new), held) for new, held in zip(fresh, cache.lengths, strict=True)}) == 1:
        return _read(model, fresh, cache)
    logits = []
    for row, new in enumerate(fresh):
        part = cache.row(row)
        logits.append(_read(model, [new], part))
        cache.lengths[row] = part.lengths[0]
    return torch.cat(logits)


def check_prompts(model: LlamaModel, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse prompts that cannot be continued.

    Raises:
        InputError: A prompt is empty, has an id outside the vocabulary, or fills the context.
    """
    context, vocab = model.config.max_position_embeddings, model.config.vocab_size
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise InputError("empty: there is nothing to continue", where=f"prompt {index + 1}")
        if len(prompt) >= context:
            raise InputError(
                f"has {len(prompt)} tokens; the model's context is {context}",
                where=f"prompt {index + 1}",
                fix="shorten the prompt",
            )
        strange = [id_ for id_ in (min(prompt), max(prompt)) if not 0 <= id_ < vocab]
        if strange:
            raise InputError(
                f"has the token id {strange[0]}; the model knows 0 to {vocab - 1}",
                where=f"prompt {index + 1}",
            )


def _read(model: LlamaModel, rows: list[list[int]], cache: ContiguousCache) -> Tensor:
    device = next(model.parameters()).device
    ids = torch.tensor(rows, device=device)
    hidden = None
    for start in range(0, ids.shape[1], PREFILL_TOKENS):
        part = ids[:, start : start + PREFILL_TOKENS]
        hidden = model.run(model.embed(part), cache=cache)[:, -1:]
        cache.advance([part.shape[1]] * len(rows))
    if hidden is None:
        raise InputError("the cache holds the whole prompt already; rewind it by one token")
    return model.head(hidden)[:, -1]


def new_cache(model: LlamaModel, *, batch: int, max_tokens: int) -> ContiguousCache:
    """An empty cache of the model's own dtype, on its device."""
    weight = model.model.norm.weight
    return ContiguousCache(
        model.config, batch=batch, max_tokens=max_tokens, dtype=weight.dtype, device=weight.device
    )


def _steps(rows: list[int], chosen: Tensor, logits: Tensor, sampling: Sampling) -> list[Step]:
    ids = chosen.tolist()
    if sampling.logprobs < 0:
        return [Step(row, id_, None, (), None) for row, id_ in zip(rows, ids, strict=True)]
    logprobs = logits.float().log_softmax(-1)
    own = logprobs.gather(1, chosen[:, None])[:, 0].tolist()
    best = logprobs.topk(min(sampling.logprobs, logprobs.shape[-1]))
    tops = [
        tuple(zip(index, value, strict=True))
        for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return [Step(*fields, finish=None) for fields in zip(rows, ids, own, tops, strict=True)]
