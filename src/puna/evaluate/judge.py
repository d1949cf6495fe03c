"""Judging a model: it answers every question, and tells how likely it finds each reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from puna.errors import InputError
from puna.evaluate.cases import Case, check_cases, choose
from puna.evaluate.intervals import MIN_RESAMPLES, Floats
from puna.evaluate.judgement import Judgement
from puna.evaluate.metrics import (
    BleuTokenizer,
    MetricValue,
    TextMetric,
    measure,
    summarise,
)
from puna.evaluate.teacher import evaluating, score_answers
from puna.generate import Sampling, complete
from puna.model import LlamaModel
from puna.tokens import Tokenizer

Progress = Callable[[str, int, int], None]  # what is done, how many cases, of how many


@dataclass(frozen=True)
class EvaluationConfig:
    """How a model is judged."""

    metrics: tuple[str, ...] = ("exact_match", "token_accuracy", "perplexity", "bits_per_byte")
    """Of bleu, chrf, ter, exact_match, token_accuracy, perplexity, bits_per_byte."""
    target_language: str | None = None
    """Code of the references' language (de, zh_CN): how BLEU and TER tell words apart."""
    bleu_tokenizer: BleuTokenizer | None = None
    """In place of what the language asks for."""
    max_new_tokens: int | None = None
    """Tokens of an answer at most; None: 1.5 times the longest reference, and 16."""
    batch: int = 8
    """Questions answered together."""
    batch_tokens: int = 4096
    """Tokens of the references read together, padding included."""
    resamples: int = 1000
    """Of the bootstrap behind intervals and p-values."""
    seed: int = 12345
    """Of the resamples; sacrebleu's by default."""
    limit: int | None = None
    """Judge on this many cases at most, always the same ones; None: on all."""
    samples: int = 20
    """Answers that are shown side by side, also where no metric needs answers."""

    def __post_init__(self) -> None:
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise InputError("metrics: name at least one, and none twice")
        for name in self.metrics:
            measure(name)
        least = (("batch", 1), ("batch_tokens", 1), ("resamples", MIN_RESAMPLES), ("samples", 0))
        optional = (("max_new_tokens", 1), ("limit", 1), ("seed", 0))
        for name, bound in (*least, *optional):
            value = getattr(self, name)
            if value is not None and value < bound:
                raise InputError(f"{name} must be at least {bound}, not {value}")

    def needs(self, what: str) -> list[str]:
        """The metrics that need the model's `outputs`, or its `scores` of the references."""
        return [name for name in self.metrics if measure(name).needs == what]


@dataclass(frozen=True)
class _Answers:
    """What the model generated."""

    outputs: list[str | None]
    tokens: int
    cut: int


def judge(
    model: LlamaModel,
    tokenizer: Tokenizer,
    cases: Sequence[Case],
    config: EvaluationConfig,
    *,
    stop_ids: Collection[int] = (),
    progress: Progress | None = None,
) -> Judgement:
    """Judge a model on a test set.

    Answers are greedy, and stripped of surrounding whitespace, as references are. Deterministic:
    the same model gets the same figures.

    Args:
        model: On any device; put into evaluation mode meanwhile.
        tokenizer: Turns answers into text.
        cases: The test set.
        config: What to find.
        stop_ids: End an answer, beside the tokenizer's own.
        progress: Told of the work as it goes on.

    Raises:
        InputError: There are no cases, one does not fit the model, or the loss is not a number.
        MissingPackageError: A metric's package is not installed; known before any work.
    """
    began = time.perf_counter()
    judged = choose(cases, config.limit)
    texts = [_text_metric(name, config) for name in config.needs("outputs")]
    check_cases(judged, model.config.max_position_embeddings, answering=bool(texts))
    told = progress or (lambda what, done, total: None)
    answers = _answer(model, tokenizer, judged, config, stop_ids, told)
    references = [case.reference.strip() for case in judged]
    outputs = [text or "" for text in answers.outputs]
    rows = {metric.name: metric.rows(outputs, references) for metric in texts}
    scored = 0
    if config.needs("scores"):
        found = _scores(model, judged, config, told)
        scored = int(found[:, 2].sum())
        rows.update(_score_rows(found, [case.reference for case in judged], config))
    return Judgement(
        metrics=_figures(rows, texts, config),
        ids=tuple(case.id for case in judged),
        questions=tuple(case.question for case in judged),
        references=tuple(references),
        outputs=tuple(answers.outputs),
        rows=rows,
        resamples=config.resamples,
        seed=config.seed,
        seconds=time.perf_counter() - began,
        generated_tokens=answers.tokens,
        scored_tokens=scored,
        cut_outputs=answers.cut,
    )


def _figures(
    rows: dict[str, Floats], texts: Sequence[TextMetric], config: EvaluationConfig
) -> dict[str, MetricValue]:
    draws = {"resamples": config.resamples, "seed": config.seed}
    signatures = {metric.name: metric.signature(**draws) for metric in texts}
    return {
        name: summarise(name, rows[name], signature=signatures.get(name), **draws)
        for name in config.metrics
    }


def _text_metric(name: str, config: EvaluationConfig) -> TextMetric:
    return TextMetric(name, language=config.target_language, tokenizer=config.bleu_tokenizer)


def _answer(
    model: LlamaModel,
    tokenizer: Tokenizer,
    cases: Sequence[Case],
    config: EvaluationConfig,
    stop_ids: Collection[int],
    told: Progress,
) -> _Answers:
    """Answer every question where a metric needs answers, and else those that are shown."""
    asked = list(cases)
    if not config.needs("outputs"):
        asked = choose([case for case in cases if len(case.prompt_ids)], config.samples)
    longest = max((len(case.predicted()) for case in cases), default=0)
    most = config.max_new_tokens or longest * 3 // 2 + 16
    sampling = Sampling(max_tokens=most, stop_tokens=tuple(stop_ids))
    # Prompts of one length are read together, and answers of like length end together.
    asked.sort(key=lambda case: (len(case.prompt_ids), len(case.ids)))
    found: dict[str, str] = {}
    tokens = cut = 0
    for start in range(0, len(asked), config.batch):
        part = asked[start : start + config.batch]
        prompts = [[int(id_) for id_ in case.prompt_ids] for case in part]
        with evaluating(model):
            made = complete(model, tokenizer, prompts, sampling, answering=True)
        for case, answer in zip(part, made, strict=True):
            found[case.id] = answer.text.strip()
            tokens += len(answer.ids)
            cut += answer.finish == "length"
        told("answering", start + len(part), len(asked))
    return _Answers([found.get(case.id) for case in cases], tokens, cut)


def _scores(
    model: LlamaModel, cases: Sequence[Case], config: EvaluationConfig, told: Progress
) -> Floats:
    found = score_answers(
        model,
        cases,
        batch_tokens=config.batch_tokens,
        progress=lambda done, total: told("scoring", done, total),
    )
    if not found[:, 2].any():
        raise InputError(
            "no token of any case is predicted: there is nothing to judge by",
            fix="check the mask report of the test set",
        )
    return found


def _score_rows(
    found: Floats, references: Sequence[str], config: EvaluationConfig
) -> dict[str, Floats]:
    """Per metric, [N, 2], from nats, hits and tokens per case; white space is read, and counts."""
    sizes = np.array([len(text.encode("utf-8", "surrogatepass")) for text in references])
    rows = {
        "token_accuracy": found[:, [1, 2]],
        "perplexity": found[:, [0, 2]],
        "bits_per_byte": np.stack([found[:, 0], sizes.astype(np.float64)], 1),
    }
    return {name: rows[name] for name in config.needs("scores")}
