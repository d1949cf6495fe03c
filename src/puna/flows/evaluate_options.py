"""What `puna evaluate` is asked for: against what, on what, in which words, judged how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from puna.flows.evaluate_data import DataOptions
from puna.flows.tune_recipe import DtypeName


@dataclass(frozen=True)
class AskOptions:
    """How questions are put. By default as the model was taught, else by its chat template."""

    template: str | None = None
    """Chat template: chatml, llama3 ... plain, or a .jinja file."""
    prompt: str | None = None
    """What the user says, as in "Translate into German: {source}"."""
    answer: str | None = None
    """What the model should answer, as in "{target}"."""
    system: str | None = None
    """A system turn before all others."""


@dataclass(frozen=True)
class JudgeOptions:
    """How answers are judged. By default as the recipe of the run says, else by the data."""

    metrics: tuple[str, ...] = ()
    """bleu, chrf, ter, exact_match, token_accuracy, perplexity, bits_per_byte."""
    target_language: str | None = None
    """Code of the answers' language (de, zh_CN): how BLEU and TER tell words apart."""
    limit: int | None = None
    """Judge on this many examples at most, always the same ones."""
    batch: int | None = None
    """Questions answered together; 8 by default."""
    max_new_tokens: int | None = None
    """Tokens of an answer at most; 1.5 times the longest reference, and 16, by default."""


@dataclass(frozen=True)
class RunOptions:
    """Where models run."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: DtypeName = "auto"
    """Of the weights in memory; auto is float32 on CPU and bfloat16 on GPU."""
    threads: int | None = None
    """CPU threads; torch's own choice by default."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Everything but the model."""

    base: str = "auto"
    """Another model to compare with; auto: what the model was made from; none."""
    data: DataOptions = field(default_factory=DataOptions)
    """What it is judged on."""
    ask: AskOptions = field(default_factory=AskOptions)
    """How questions are put."""
    judging: JudgeOptions = field(default_factory=JudgeOptions)
    """How answers are judged."""
    run: RunOptions = field(default_factory=RunOptions)
    """Where models run."""
    out: Path | None = None
    """A folder to write the evaluation and its report to."""
    force: bool = False
    """Replace an evaluation that is there."""
    command: str = ""
    """What repeats it, for the report."""
