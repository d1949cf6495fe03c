"""What RUN/summary.json says of a pretraining run, and what `puna show` tells of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from puna.artifact import format_bytes
from puna.flows.tune_report_told import Told, mapping, mappings
from puna.report.words import duration, energy, finite, mass, number, percent
from puna.train import FitResult

if TYPE_CHECKING:  # `puna show` reads summaries, and needs no loader for that
    from puna.flows.pretrain_bench import PretrainBench

KEPT_STEPS = 2000  # of the curves in a summary; metrics.jsonl has every step
NOT_FIGURES = ("kind", "step")


@dataclass(frozen=True)
class Raised:
    """What came out of a run."""

    bench: PretrainBench
    result: FitResult
    samples: Sequence[Mapping[str, Any]]
    peak_flops_per_second: float
    peak_from: str
    resident_bytes: int  # before there were weights

    def told(self, *, begun: bool) -> dict[str, Any]:
        """Plain data.

        Args:
            begun: The run was begun by an earlier process.
        """
        bench, result = self.bench, self.result
        evaluations = [dict(row) for row in result.evaluations]
        return {
            "model": self._model(),
            "data": bench.material.told(),
            "consumed": self._consumed(),
            "history": thinned(result.history),
            "evaluations": evaluations,
            "held_out": next(
                (figures(row) for row in evaluations if row["step"] == result.best_step), None
            ),
            "best_step": result.best_step,
            "training": self._training(begun),
            "events": [dict(row) for row in result.events],
            "samples": [dict(row) for row in self.samples],
            "speed": self._speed(),
            "memory": self._memory(),
            "notes": self._notes(begun),
        }

    def _consumed(self) -> dict[str, Any]:
        """What was read of each source; what a rollback passed over counts, too."""
        loader = self.bench.loader()
        passed = [finite(row.get("passed_steps")) or 0 for row in self.result.events]
        steps = self.result.steps + int(max(passed, default=0))
        if loader.max_steps is not None:
            steps = min(steps, loader.max_steps)
        return {name: dict(read) for name, read in loader.consumed(steps).items()}

    def _model(self) -> dict[str, Any]:
        bench = self.bench
        shape, counts = bench.config, bench.counts
        return {
            "name": bench.recipe.shape.preset or "a shape of its own",
            "parameters": counts.parameters,
            "embedding_parameters": counts.embedding_parameters,
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "layers": shape.num_hidden_layers,
            "heads": shape.num_attention_heads,
            "kv_heads": shape.num_key_value_heads,
            "head_dim": shape.head_dim,
            "vocabulary": shape.vocab_size,
            "context_tokens": shape.max_position_embeddings,
            "tied": shape.tie_word_embeddings,
            "dtype": str(bench.dtype).removeprefix("torch."),
            "device": str(bench.device),
        }

    def _training(self, begun: bool) -> dict[str, Any]:
        result = self.result
        return {
            "seconds": result.seconds,
            "steps": result.steps,
            "tokens": result.tokens,
            "trained_tokens": result.trained_tokens,
            "stopped": result.stopped,
            "bad_steps": result.bad_steps,
            "peak_bytes": result.peak_bytes,
            "resumed": begun,
        }

    def _speed(self) -> dict[str, Any]:
        rates = sorted(
            rate for row in self.result.history if (rate := finite(row.get("tokens_per_second")))
        )
        median = rates[len(rates) // 2] if rates else None
        flops = self.bench.flops_per_token
        reached = None if median is None else median * flops / self.peak_flops_per_second
        return {
            "flops_per_token": flops,
            "peak_flops_per_second": self.peak_flops_per_second,
            "peak_from": self.peak_from,
            "tokens_per_second": median,
            "utilisation": reached,
        }

    def _memory(self) -> dict[str, Any]:
        footprint = self.bench.footprint()
        if footprint is not None and self.bench.device.type == "cpu":
            footprint = footprint.above(self.resident_bytes)
        return {
            "predicted": None if footprint is None else footprint.to_dict(),
            "peak_bytes": self.result.peak_bytes,
            "resident_bytes": self.resident_bytes,
        }

    def _notes(self, begun: bool) -> list[str]:
        result, notes = self.result, []
        if begun:
            notes.append("The run was interrupted and continued; the costs are of its last part.")
        if result.stopped == "time":
            notes.append(
                "Time ended the training: another run of the recipe makes another number of steps."
            )
        if result.stopped == "early":
            notes.append("The training was stopped early: nothing improved any more.")
        if result.best_step != result.steps:
            notes.append(
                f"The weights are those of step {result.best_step:,} of {result.steps:,}, the best "
                "on the held-out documents."
            )
        if not self.bench.held_out:
            notes.append("No document was held out, so overfitting would not be seen.")
        return notes


def figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of an evaluation."""
    return {key: value for key, value in row.items() if key not in NOT_FIGURES}


def thinned(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """At most about `KEPT_STEPS` steps, evenly spaced, and those that were skipped."""
    every = math.ceil(len(history) / KEPT_STEPS) or 1
    last = len(history) - 1
    return [
        dict(row)
        for place, row in enumerate(history)
        if place % every == 0 or place == last or row.get("skipped")
    ]


def closing_lines(summary: Told) -> list[str]:
    """What a finished run says for itself, for a terminal."""
    lines = []
    held_out = mapping(summary, "held_out")
    for name, value in held_out.items():
        if name.startswith(("validation_loss", "bits_per_byte")):
            lines.append(f"{name.replace('_', ' ')}: {number(value)}")
    speed = mapping(summary, "speed")
    if speed.get("tokens_per_second"):
        lines.append(
            f"speed: {speed['tokens_per_second']:,.0f} tokens/s, "
            f"{percent(speed.get('utilisation'))} of {flop_rate(speed)}"
        )
    lines.append(memory_line(summary))
    return lines


def flop_rate(speed: Told) -> str:
    """What the utilisation is held against."""
    known = finite(speed.get("peak_flops_per_second"))
    shown = number(None) if known is None else f"{known / 1e9:,.0f} GFLOP/s"
    return f"{shown} ({speed.get('peak_from')})"


def memory_line(summary: Told) -> str:
    """Predicted and measured memory."""
    memory = mapping(summary, "memory")
    peak = finite(memory.get("peak_bytes"))
    said = "not measured" if peak is None else format_bytes(peak)
    total = finite(mapping(memory, "predicted").get("total"))
    if total is None or not peak:
        return f"memory: {said} at the most"
    off = percent(total / peak - 1, 0)
    return f"memory: {said} at the most, predicted {format_bytes(total)} ({off})"


def pretrain_rows(summary: Told) -> list[tuple[str, str]]:
    """What a finished run is, for `puna show`: name and text of each fact."""
    model, training = mapping(summary, "model"), mapping(summary, "training")
    parameters = finite(model.get("parameters")) or 0
    rows = [
        ("title", str(summary.get("title"))),
        ("model", f"{model.get('name')}: {parameters:,.0f} parameters, from fresh weights"),
    ]
    rows += [("data" if not n else "", line) for n, line in enumerate(_source_lines(summary))]
    rows.append(
        (
            "training",
            f"{number(training.get('steps'))} steps, {number(training.get('tokens'))} tokens; step "
            f"{number(summary.get('best_step'))} was kept",
        )
    )
    rows += [("quality" if not n else "", line) for n, line in enumerate(closing_lines(summary))]
    total = mapping(mapping(summary, "ledger"), "total")
    cost = (
        f"{duration(total.get('wall_seconds'))}, {energy(total.get('energy_joules'))}, "
        f"{mass(total.get('co2e_grams'))} CO\u2082e ({total.get('source')})"
    )
    return [*rows, ("cost", cost)]


def _source_lines(summary: Told) -> list[str]:
    sources, consumed = mapping(mapping(summary, "data"), "sources"), mapping(summary, "consumed")
    found = []
    for name in sources:
        read = mapping(consumed, name)
        tokens = finite(mapping(sources, name).get("tokens")) or 0
        found.append(f"{name}: {tokens:,.0f} tokens, read {number(read.get('epochs'))} times")
    return found


def sampled(summary: Told) -> list[tuple[str, list[Told]]]:
    """Samples by prompt, the oldest first."""
    rows = mappings(summary, "samples")
    prompts = dict.fromkeys(str(row.get("prompt", "")) for row in rows)
    return [
        (prompt, [row for row in rows if str(row.get("prompt", "")) == prompt])
        for prompt in prompts
    ]
