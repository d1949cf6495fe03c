"""Reading prompts and writing text: ours against transformers' generate, same weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import torch

from bench.measure import Row, compare, take_turns
from bench.work import Work, prompt_ids
from puna.model import LlamaModel

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
            yield _bandwidth(llama.model)
    yield _prefill(llama.model, peer, turns)


def _prefill(model: LlamaModel, peer: torch.nn.Module, turns: int) -> Row:
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


def _bandwidth(model: LlamaModel) -> Row:
    """Bytes of weights that decoding reads per second, against what this machine can read."""
    big = torch.ones(100_000_000)
    readings = []
    for _ in range(7):
        began = time.perf_counter()
        big.sum()
        readings.append(big.nbytes / (time.perf_counter() - began))
    limit = statistics.median(readings)
    seconds, shares = _steps(model)
    reached = sum(p.nbytes for p in model.parameters()) / seconds
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Row(
        "a decoding step, batch 1: share of the read bandwidth",
        100 * reached / limit, None, "%", "more", "", None, "",
        note=f"{reached / 1e9:.1f} of {limit / 1e9:.1f} GB/s (a float32 sum), "
        f"{1e3 * seconds:.1f} ms; of it {told}",
    )  # fmt: skip


def _steps(model: LlamaModel) -> tuple[float, dict[str, float]]:
    """Median seconds of a step after 128 tokens, and the share of each kernel and of the rest."""
    from puna.generate.stepping import KernelStep
    from puna.model import ContiguousCache

    step, spent = KernelStep(model), dict.fromkeys(("attention", "mlp", "head"), 0.0)
    kernels = step._kernels

    def timed(name: str) -> Callable[..., None]:
        kernel = getattr(kernels, f"{name}_step")

        def run(*arguments: object) -> None:
            began = time.perf_counter()
            kernel(*arguments)
            spent[name] += time.perf_counter() - began

        return run

    step._kernels = SimpleNamespace(**{f"{name}_step": timed(name) for name in spent})
    cache = ContiguousCache(model.config, batch=1, max_tokens=256)
    seconds = []
    with torch.inference_mode():
        model(torch.ones(1, 128, dtype=torch.long), cache=cache)
        step(torch.ones(1, dtype=torch.long), cache)
        spent.update(dict.fromkeys(spent, 0.0))
        for _ in range(64):
            began = time.perf_counter()
            step(torch.ones(1, dtype=torch.long), cache)
            seconds.append(time.perf_counter() - began)
    whole = sum(seconds)
    shares = {name: value / whole for name, value in spent.items()}
    return statistics.median(seconds), {**shares, "Python between": 1 - sum(shares.values())}
