"""Conversions: peak memory, and that llama.cpp and transformers say the same with the products."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Row, in_fresh_process
from bench.work import PROMPT, Work

CONSTANT_BYTES = 192 * 2**20  # two tokenizers, the logits of the prompts, the allocator

_PEAK = """
import resource, sys
from pathlib import Path
import torch, puna.api
from puna.flows.convert import ConvertOptions, convert
import threading, time
torch.set_num_threads(2)
def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
before, peak, running = anonymous(), 0, True
def watch():
    global peak
    while running:
        peak = max(peak, anonymous()); time.sleep(0.002)
thread = threading.Thread(target=watch); thread.start()
convert(Path(sys.argv[1]), Path(sys.argv[2]), ConvertOptions(to=sys.argv[3]),
        progress=lambda *_: None)
running = False; thread.join()
print(peak - before)
"""


def rows(work: Work, turns: int) -> Iterator[Row]:
    """Peak anonymous memory of each direction, and greedy text by three programs."""
    from puna.flows.opening import read_config
    from puna.model import count
    from puna.store import open_checkpoint

    del turns
    counts = count(read_config(open_checkpoint(work.quantized)))
    unit = 4 * (counts.embedding_parameters + counts.block_parameters)
    with tempfile.TemporaryDirectory(prefix="puna-bench-") as folder:
        meta = Path(folder, "meta")
        jobs = (
            ("GGUF to hf", work.quantized, Path(folder, "hf"), "hf", 0),
            ("hf to gguf", work.folder, Path(folder, "x.gguf"), "gguf", 0),
            ("hf to meta", work.folder, meta, "meta", 4 * counts.parameters + unit),
            ("meta to hf", meta, Path(folder, "hf2"), "hf", 0),
        )
        for name, source, target, to, more in jobs:
            peak = float(in_fresh_process(_PEAK, os.fspath(source), os.fspath(target), to))
            bound = 1.2 * unit + CONSTANT_BYTES + more
            shard = " + a shard" if more else ""
            yield Row(
                f"convert {name}: peak memory",
                peak / 2**20, None, "MiB", "less", f"at most {bound / 2**20:.0f} MiB",
                peak <= bound, "",
                note=f"1.2 x (embedding + a block){shard} + 192 MiB; resident, mapped files apart",
            )  # fmt: skip
    yield from _same_text(work)


def _same_text(work: Work) -> Iterator[Row]:
    import puna

    wanted = puna.load(str(work.single), device="cpu", dtype="float32")
    ours = wanted.generate(PROMPT.strip(), puna.Sampling(max_tokens=48)).text
    texts = {"transformers": _transformers(work)}
    try:
        texts["llama.cpp"] = _llama_cpp(work)
    except ImportError:
        yield Row("llama.cpp: not installed here", 0, None, "", "more", "same text", None, "")
    for name, text in texts.items():
        same = text.strip() == ours.strip()
        yield Row(
            f"greedy text of the product in {name}",
            float(same), None, "(1: the same)", "more", "same text", same, "",
            note=f"48 tokens: {text.strip()[:48]!r}...",
        )  # fmt: skip


def _transformers(work: Work) -> str:
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(work.folder)
    model = LlamaForCausalLM.from_pretrained(work.folder, dtype=torch.float32)
    ids = tokenizer(PROMPT.strip(), return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=48, do_sample=False, pad_token_id=0)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def _llama_cpp(work: Work) -> str:
    from llama_cpp import Llama

    model = Llama(str(work.single), n_ctx=512, n_threads=2, verbose=False)
    done = model.create_completion(PROMPT.strip(), max_tokens=48, temperature=0.0)
    return str(done["choices"][0]["text"])
