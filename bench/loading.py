"""From a file to a ready model: time, and memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.measure import Row, compare, in_fresh_process, take_turns
from bench.work import Work

_OURS = """
import gc, os, sys, psutil, torch, puna, puna.api
torch.set_num_threads(2)
gc.collect(); before = psutil.Process().memory_info().rss
llama = puna.load(sys.argv[1], device="cpu", dtype="float32")
with torch.inference_mode():
    llama.model(torch.tensor([[1]]))
gc.collect()
grown = psutil.Process().memory_info().rss - before
print(grown / sum(p.nbytes for p in llama.model.parameters()))
"""
_PEER = """
import gc, os, sys, psutil, torch
from transformers import AutoTokenizer, LlamaForCausalLM, LlamaTokenizerFast
torch.set_num_threads(2)
gc.collect(); before = psutil.Process().memory_info().rss
model = LlamaForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with torch.inference_mode():
    model(torch.tensor([[1]]))
gc.collect()
grown = psutil.Process().memory_info().rss - before
print(grown / sum(p.nbytes for p in model.parameters()))
"""


def rows(work: Work, turns: int) -> Iterator[Row]:
    """Load from GGUF and from safetensors, by both."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    import puna

    folder, file = work.quantized.parent, work.quantized.name

    def ours_gguf() -> object:
        return puna.load(str(work.quantized), device="cpu", dtype="float32")

    def peer_gguf() -> object:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        model = LlamaForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
        return tokenizer, model.eval()

    def ours_hf() -> object:
        return puna.load(str(work.folder), device="cpu", dtype="float32")

    def peer_hf() -> object:
        tokenizer = AutoTokenizer.from_pretrained(work.folder)
        model = LlamaForCausalLM.from_pretrained(work.folder, dtype=torch.float32)
        return tokenizer, model.eval()

    times = take_turns(ours_gguf, peer_gguf, turns=min(turns, 3))
    row = compare("load GGUF (Q4_1) to a ready model", times, target=10.0)
    yield row
    yield Row(
        "load GGUF, our seconds after imports",
        row.ours, None, "s", "less", "under 3 s", row.ours < 3, "",
    )  # fmt: skip
    times = take_turns(ours_hf, peer_hf, turns=turns)
    yield compare("load safetensors (float32)", times, target=1.0)
    ours, peer = (float(in_fresh_process(code, os.fspath(work.folder))) for code in (_OURS, _PEER))
    yield Row(
        "resident memory after load and one forward",
        ours, peer, "x weights", "less", "at most 1.15", ours <= 1.15, "",
        note="growth over imports, fresh process",
    )  # fmt: skip
    yield _help()


def _help() -> Row:
    """Seconds of `puna --help`, process start included."""
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "puna", "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds)
    return Row("puna --help", median, None, "s", "less", "under 0.5 s", median < 0.5, "")
