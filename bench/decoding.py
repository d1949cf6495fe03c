"""Reading prompts and writing text: ours against transformers' generate, same weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

from bench.measure import Row, compare, take_turns
from bench.work import Work, prompt_ids

NEW_TOKENS = 128


def rows(work: Work, turns: int) -> Iterator[Row]:
    """Decode at batch 1 and 8, prefill, and the share of the memory-bandwidth limit."""
    from transformers import LlamaForCausalLM

    import puna
    from puna.generate import Sampling, complete

    llama = puna.load(str(work.folder), device="cpu", dtype="float32")
    peer = LlamaForCausalLM.from_pretrained(work.folder, dtype=torch.float32).eval()
    peer.generation_config.eos_token_id = None
    sampling = Sampling(max_tokens=NEW_TOKENS, ignore_eos=True)
    ids = prompt_ids(128)
    for batch, target in ((1, 2.0), (8, 1.5)):
        prompts = [ids[row:] + ids[:row] for row in range(batch)]
        tensor = torch.tensor(prompts)
        made: dict[str, list[list[int]]] = {}

        def ours(prompts: list[list[int]] = prompts, made: dict = made) -> None:
            done = complete(llama.model, llama.tokenizer, prompts, sampling)
            made["ours"] = [list(generation.ids) for generation in done]

        def theirs(tensor: torch.Tensor = tensor, made: dict = made) -> None:
            with torch.inference_mode():
                out = peer.generate(
                    tensor,
                    attention_mask=torch.ones_like(tensor),
                    max_new_tokens=NEW_TOKENS,
                    do_sample=False,
                    pad_token_id=0,
                )
            made["peer"] = out[:, tensor.shape[1] :].tolist()

        times = take_turns(ours, theirs, turns=turns)
        equal = sum(a == b for a, b in zip(made["ours"], made["peer"], strict=True))
        yield compare(
            f"decode, batch {batch}, 128 tokens after 128",
            times,
            work=batch * NEW_TOKENS,
            unit="tokens/s",
            target=target,
            note=f"same tokens in {equal} of {batch} sequences",
        )
        if batch == 1:
            yield _bandwidth(llama.model, statistics.median(times[0]))
    yield _prefill(llama.model, peer, turns)


def _prefill(model: torch.nn.Module, peer: torch.nn.Module, turns: int) -> Row:
    from puna.generate.engine import prefill
    from puna.model import ContiguousCache

    ids = prompt_ids(1024)
    tensor = torch.tensor([ids])

    def ours() -> None:
        with torch.inference_mode():
            prefill(model, [ids], ContiguousCache(model.config, batch=1, max_tokens=1024))

    def theirs() -> None:
        with torch.inference_mode():
            peer(tensor, use_cache=True, logits_to_keep=1)

    times = take_turns(ours, theirs, turns=turns)
    return compare("prefill, 1024 tokens", times, work=1024, unit="tokens/s", target=1.0)


def _bandwidth(model: torch.nn.Module, seconds: float) -> Row:
    """Bytes of weights that decoding reads per second, against what this machine can read."""
    weights = sum(p.nbytes for p in model.parameters())
    big = torch.ones(100_000_000)
    readings = []
    for _ in range(7):
        began = time.perf_counter()
        big.sum()
        readings.append(big.nbytes / (time.perf_counter() - began))
    limit = statistics.median(readings)
    reached = weights * NEW_TOKENS / seconds
    return Row(
        "decode, batch 1: share of the read bandwidth",
        100 * reached / limit, None, "%", "more", "", None, "",
        note=f"{reached / 1e9:.1f} of {limit / 1e9:.1f} GB/s, prefill included; "
        + _where_it_goes(model),
    )  # fmt: skip


def _where_it_goes(model: torch.nn.Module) -> str:
    """Shares of a decoding step by kind of work, from torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    from puna.model import ContiguousCache

    cache = ContiguousCache(model.config, batch=1, max_tokens=256)
    with torch.inference_mode():
        model(torch.ones(1, 128, dtype=torch.long), cache=cache)
        token = torch.ones(1, 1, dtype=torch.long)
        model(token, cache=cache)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(16):
                model(token, cache=cache)
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    kinds = {"matrices": ("linear", "addmm", "mm"), "attention": ("attention", "flash")}
    shares = {
        kind: sum(e.self_cpu_time_total for e in events if any(n in e.key for n in names)) / total
        for kind, names in kinds.items()
    }
    rest = 1 - sum(shares.values())
    told = ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
    return f"a step under the profiler: {told}, small operations {rest:.0%}"
