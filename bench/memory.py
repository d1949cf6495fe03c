"""`python -m bench.memory [name ...]`: predicted against measured memory, a fresh process for each.

Every row is a real run of the training loop: steps, optimizer and the last checkpoint, on random
tokens, since memory depends on shapes alone. What is compared is what the process grew above its
imports; the whole, imports included, stands beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

THREADS = 2
STEPS = 2
MIB = 1 << 20
ASKED = 0.15

_LORA = {"method": "lora", "rank": 8}
CASES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "pretraining, 8 x 512": {"model": "laptop-10m", "rows": 8, "row_tokens": 512},
        "pretraining, 6 x 512": {"model": "laptop-30m", "rows": 6, "row_tokens": 512},
        "pretraining, recomputed, 8 x 512": {
            "model": "laptop-30m",
            "rows": 8,
            "row_tokens": 512,
            "activation_checkpointing": True,
        },
        "pretraining, 2 x 512": {"model": "laptop-60m", "rows": 2, "row_tokens": 512},
        "pretraining, recomputed, 4 x 512": {
            "model": "laptop-60m",
            "rows": 4,
            "row_tokens": 512,
            "activation_checkpointing": True,
        },
        "pretraining, 2 micro-batches of 2 x 512": {
            "model": "laptop-30m",
            "rows": 2,
            "row_tokens": 512,
            "micro_batches": 2,
        },
        "pretraining, 24 documents in 8 x 256": {
            "model": "laptop-10m",
            "rows": 8,
            "row_tokens": 256,
            "documents": 24,
        },
        "full, 1 x 512": {"model": "smollm2-135m", "row_tokens": 512, "method": {"method": "full"}},
        "LoRA, 16 documents in 640": {
            "model": "smollm2-135m",
            "row_tokens": 640,
            "documents": 16,
            "trained_tokens": 256,
            "method": _LORA,
        },
        "LoRA, recomputed, 1 x 1024": {
            "model": "smollm2-135m",
            "row_tokens": 1024,
            "method": _LORA,
            "activation_checkpointing": True,
        },
        "last 6 layers, 1 x 1024": {
            "model": "smollm2-135m",
            "row_tokens": 1024,
            "method": {"method": "top_layers", "layers": 6},
        },
        "LoRA on the last 6, 1 x 1024": {
            "model": "smollm2-135m",
            "row_tokens": 1024,
            "method": {**_LORA, "layers": 6},
        },
    }
)


def main() -> None:
    """Measure all cases, or those whose names hold one of the words given."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_measure(sys.argv[2])))
        return
    words = sys.argv[1:]
    print("| run | model | predicted | measured | | of it above imports | | | highest |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---|")
    missed = 0
    for name in CASES:
        if words and not any(word.lower() in name.lower() for word in words):
            continue
        began = time.perf_counter()
        told = _in_fresh_process(name)
        line, good = _line(name, told)
        missed += not good
        print(line, flush=True)
        print(f"  {time.perf_counter() - began:.0f} s; {_parts(told)}", file=sys.stderr)
    print(f"\n{missed} beyond {ASKED:.0%} above imports", file=sys.stderr)


def _in_fresh_process(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.memory", "--child", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(told, dict)
    return told


def _line(name: str, told: Mapping[str, Any]) -> tuple[str, bool]:
    predicted, measured = told["predicted"]["total"], told["peak"]
    runtime = told["predicted"]["runtime"]
    grown = (predicted - runtime, measured - told["imported"])
    shares = (predicted / measured - 1, grown[0] / grown[1] - 1)
    cells = [
        f"{predicted / MIB:,.0f} MiB",
        f"{measured / MIB:,.0f} MiB",
        f"{shares[0]:+.0%}",
        f"{grown[0] / MIB:,.0f} MiB",
        f"{grown[1] / MIB:,.0f} MiB",
        f"{shares[1]:+.0%}",
        told["predicted"]["moment"],
    ]
    row = f"| {name} | {CASES[name]['model']} | " + " | ".join(cells) + " |"
    return row, abs(shares[1]) <= ASKED


def _parts(told: Mapping[str, Any]) -> str:
    parts = {k: v for k, v in told["predicted"].items() if isinstance(v, int)}
    shown = ", ".join(f"{name} {size / MIB:,.0f}" for name, size in parts.items() if size)
    return f"imports {told['imported'] / MIB:,.0f}, loaded {told['loaded'] / MIB:,.0f}; {shown}"


# --- in the child ---------------------------------------------------------------------------------


class _SameBatch:
    """One batch, again and again."""

    def __init__(self, batch: Any, batches: int) -> None:
        self.batch, self.batches = batch, batches

    def batches_in_epoch(self, epoch: int) -> int:
        return self.batches

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Nothing to go to: all batches are the same."""

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        while True:
            yield 0, self.batch


def _setting(case: Mapping[str, Any]) -> Any:
    from puna.model import preset
    from puna.train.footprint import Setting
    from puna.tune import method_config

    method = case.get("method")
    plain = {key: case[key] for key in case if key not in ("model", "method")}
    return Setting(
        config=preset(case["model"]),
        method=None if method is None else method_config(method),
        **plain,
    )


def _measure(name: str) -> dict[str, Any]:
    import torch

    from puna.model import LlamaModel, init_weights
    from puna.scale.world import World
    from puna.train import Job, Silent, TrainConfig, fit
    from puna.train.footprint import predict
    from puna.train.memory import begin_peak
    from puna.train.objectives import Embedded, FrozenTrunk, NextToken
    from puna.tune import attach

    cpu = torch.device("cpu")
    torch.set_num_threads(THREADS)
    imported = begin_peak(cpu)
    setting = _setting(CASES[name])
    predicted = predict(setting).to_dict()
    model = init_weights(LlamaModel(setting.config))
    loaded = begin_peak(cpu)
    trunk: Any = Embedded(model)
    if setting.method is None:
        learning = dict(model.requires_grad_(True).named_parameters())
    else:
        model.requires_grad_(False)
        tuned = attach(model, setting.method)
        learning = tuned.parameters()
        trunk = FrozenTrunk(model, tuned.start) if tuned.start else trunk
    job = Job(
        model=model,
        parameters=learning,
        objective=NextToken(),
        loader=_SameBatch(_batch(setting), STEPS * setting.micro_batches),
        trunk=trunk,
        identity=name,
    )
    config = TrainConfig(
        epochs=None,
        max_steps=STEPS,
        micro_batches=setting.micro_batches,
        activation_checkpointing=setting.activation_checkpointing,
    )
    with tempfile.TemporaryDirectory(prefix="puna-bench-") as place:
        result = fit(job, config, Path(place), world=World.single(cpu), report=Silent())
    return {
        "imported": imported,
        "loaded": loaded,
        "peak": result.peak_bytes,
        "predicted": predicted,
    }


def _batch(setting: Any) -> Any:
    import torch

    from puna.model.llama import IGNORED
    from puna.tokens.batches import Batch
    from puna.tokens.row_batches import row_batch

    own = torch.Generator().manual_seed(0)
    shape = (setting.rows, setting.row_tokens)
    ids = torch.randint(setting.config.vocab_size, shape, generator=own)
    targets = ids.roll(-1, 1)
    trained = setting.tokens if setting.trained_tokens is None else setting.trained_tokens
    targets.view(-1)[trained:] = IGNORED
    documents = None
    if setting.documents is not None:
        documents = _documents(setting.rows, setting.row_tokens, setting.documents)
    if documents is not None and setting.method is None:
        parts = (part.numpy() for part in (ids, targets, documents))
        return row_batch(*parts, separate=True)
    return Batch(ids, targets, None, documents, (), setting.tokens, trained)


def _documents(rows: int, row_tokens: int, documents: int) -> Any:
    """Numbers of documents [B, T] whose ends differ from row to row."""
    import torch

    per_row = documents // rows
    own = torch.Generator().manual_seed(1)
    found = []
    for _ in range(rows):
        cuts = torch.randperm(row_tokens - 1, generator=own)[: per_row - 1] + 1
        marks = torch.zeros(row_tokens, dtype=torch.int64)
        marks[cuts] = 1
        found.append(marks.cumsum(0))
    return torch.stack(found)


if __name__ == "__main__":
    main()
