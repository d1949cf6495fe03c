"""The metrics: what one example contributes, and what the sums of that amount to.

Figures of translation equal those of sacrebleu (Post 2018) to the last digit that it prints, and
carry its signature; they are computed here from its counts per sentence, so that intervals cost
little.

Shapes: N examples, K statistics of one example, R sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from puna.errors import InputError, require
from puna.evaluate.intervals import Floats, Score, bootstrap

BleuTokenizer = Literal["13a", "zh", "intl", "char", "ja-mecab", "ko-mecab", "none"]
_NGRAMS = 4  # of BLEU
_CHARACTERS = 6  # the longest n-gram of chrF
_BETA2 = 4.0  # chrF2: recall weighs twice as much
_TOKENIZERS: tuple[tuple[BleuTokenizer, tuple[str, ...]], ...] = (
    ("zh", ("zh", "zho", "chi", "cmn", "yue")),
    ("ja-mecab", ("ja", "jpn")),
    ("ko-mecab", ("ko", "kor")),
    ("char", ("th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bo", "bod")),  # no spaces
)


@dataclass(frozen=True)
class MetricValue:
    """A figure with what one must know to read it."""

    name: str
    value: float
    unit: str
    low: float  # 95 % interval, by bootstrap over examples
    high: float
    n: int  # examples
    signature: str | None  # sacrebleu's, which tells how it was computed
    higher_is_better: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MetricValue:
        """What `to_dict` gave."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Measure:
    """A metric."""

    name: str
    unit: str
    higher_is_better: bool
    needs: Literal["outputs", "scores"]  # generated text, or what a model says of the reference
    score: Score  # sums [R, K] to figures [R]


def measure(name: str) -> Measure:
    """The metric of a name.

    Raises:
        InputError: There is none.
    """
    for known in MEASURES:
        if known.name == name:
            return known
    raise InputError(
        f"metric {name!r} is not known",
        fix=f"known: {', '.join(known.name for known in MEASURES)}",
    )


def summarise(
    name: str, rows: Floats, *, resamples: int, seed: int, signature: str | None = None
) -> MetricValue:
    """The figure of a metric with its interval.

    Args:
        name: Of the metric.
        rows: [N, K] what each example contributes.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        signature: How the rows came about.

    Raises:
        InputError: There are no examples, or no metric of this name.
    """
    own = measure(name)
    found = bootstrap(rows, own.score, resamples=resamples, seed=seed)
    ends = (found.value, own.unit, found.low, found.high)
    return MetricValue(name, *ends, len(rows), signature, own.higher_is_better)


class TextMetric:
    """A metric between outputs and references. What it needs is checked when it is built."""

    def __init__(
        self, name: str, *, language: str | None = None, tokenizer: BleuTokenizer | None = None
    ) -> None:
        """Prepare a metric.

        Args:
            name: `bleu`, `chrf`, `ter` or `exact_match`.
            language: Of the references, as a code (`zh`, `zh_CN`, `zho_Hans`); it decides how
                words are told apart.
            tokenizer: Of BLEU, in place of what the language asks for.

        Raises:
            InputError: The metric compares no texts, or the tokenizer's package is missing.
            MissingPackageError: sacrebleu is not installed.
        """
        if measure(name).needs != "outputs":
            raise InputError(f"metric {name!r} does not compare texts")
        self.name = name
        self._backend: Any = None
        if name != "exact_match":
            self._backend = _backend(name, language, tokenizer)

    def rows(self, outputs: Sequence[str], references: Sequence[str]) -> Floats:
        """What each pair contributes, [N, K].

        Raises:
            InputError: There are not as many outputs as references, or none.
        """
        if not outputs or len(outputs) != len(references):
            raise InputError(f"{len(outputs)} outputs for {len(references)} references")
        if self._backend is None:
            hits = [[float(a == b), 1.0] for a, b in zip(outputs, references, strict=True)]
            return np.array(hits)
        rows = self._backend._extract_corpus_statistics(outputs, [references])
        return np.array(rows, dtype=np.float64)

    def signature(self, *, resamples: int, seed: int) -> str | None:
        """What sacrebleu would print beside the figure; after `rows`."""
        if self._backend is None:
            return None
        self._backend.n_bootstrap, self._backend.seed = resamples, str(seed)
        return str(self._backend.get_signature().format())


def bleu_tokenizer(language: str | None) -> BleuTokenizer:
    """How words are told apart in a language: sacrebleu's `13a` unless it is known otherwise."""
    code = _primary(language)
    for tokenizer, codes in _TOKENIZERS:
        if code in codes:
            return tokenizer
    return "13a"


def _primary(language: str | None) -> str:
    return (language or "").lower().replace("_", "-").partition("-")[0]


def _backend(name: str, language: str | None, tokenizer: BleuTokenizer | None) -> Any:
    metrics = require("sacrebleu.metrics", extra="evaluate", purpose=f"the metric {name!r}")
    if name == "chrf":
        return metrics.CHRF()
    if name == "ter":
        # Without it a whole Chinese sentence is one word.
        asian = bleu_tokenizer(language) in ("zh", "ja-mecab")
        return metrics.TER(normalized=asian, asian_support=asian)
    wanted = tokenizer or bleu_tokenizer(language)
    try:
        return metrics.BLEU(tokenize=wanted, force=True)
    except (ImportError, RuntimeError) as error:
        extra = wanted.removesuffix("-mecab")
        raise InputError(
            f"BLEU with the tokenizer {wanted!r} needs a package that is not installed",
            fix=f"pip install 'sacrebleu[{extra}]', or set bleu_tokenizer: char",
        ) from error


# -- sums to figures ---------------------------------------------------------------------------


def _ratio(above: Floats, below: Floats) -> Floats:
    """The quotient, and 0 where it has none."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _bleu(sums: Floats) -> Floats:
    """Papineni et al. 2002, exponential smoothing; [system, reference, 4 correct, 4 total]."""
    system, reference = sums[:, 0], sums[:, 1]
    correct, total = sums[:, 2 : 2 + _NGRAMS], sums[:, 2 + _NGRAMS :]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        penalty = np.where(system < reference, np.exp(1 - reference / system), 1.0)
        halving = 2.0 ** np.cumsum(correct == 0, axis=1)
        kept = np.where(correct > 0, correct, 1 / halving) / total
        logs = np.log(kept).mean(1)
        # No n-grams of some length at all: sacrebleu takes the precision as 0.
        valid = (correct > 0).any(1) & (total > 0).all(1) & (system > 0)
        return np.where(valid, 100 * penalty * np.exp(logs), 0.0)


def _chrf(sums: Floats) -> Floats:
    """chrF2, Popović 2015; [hypothesis, reference, match] for each length of n-gram."""
    hypothesis, reference, match = (sums[:, part::3][:, :_CHARACTERS] for part in range(3))
    counted = (hypothesis > 0) & (reference > 0)
    orders = counted.sum(1).astype(np.float64)
    precision = _ratio(np.where(counted, _ratio(match, hypothesis), 0.0).sum(1), orders)
    recall = _ratio(np.where(counted, _ratio(match, reference), 0.0).sum(1), orders)
    return 100 * _ratio((1 + _BETA2) * precision * recall, _BETA2 * precision + recall)


def _ter(sums: Floats) -> Floats:
    """Edits per reference word (Snover et al. 2006), %; [edits, words of the reference]."""
    edits, words = sums[:, 0], sums[:, 1]
    return 100 * np.where(words > 0, _ratio(edits, words), np.where(edits > 0, 1.0, 0.0))


def _share(sums: Floats) -> Floats:
    """Hits per attempt; [hits, attempts]."""
    return _ratio(sums[:, 0], sums[:, 1])


def _perplexity(sums: Floats) -> Floats:
    """Exp of the mean; [nats, tokens]."""
    with np.errstate(over="ignore"):
        return np.exp(_ratio(sums[:, 0], sums[:, 1]))


def _bits_per_byte(sums: Floats) -> Floats:
    """[nats, UTF-8 bytes]."""
    return _ratio(sums[:, 0], sums[:, 1]) / math.log(2)


MEASURES: tuple[Measure, ...] = (
    Measure("bleu", "points", True, "outputs", _bleu),
    Measure("chrf", "points", True, "outputs", _chrf),
    Measure("ter", "%", False, "outputs", _ter),
    Measure("exact_match", "share", True, "outputs", _share),
    Measure("token_accuracy", "share", True, "scores", _share),
    Measure("perplexity", "per token", False, "scores", _perplexity),
    Measure("bits_per_byte", "bits", False, "scores", _bits_per_byte),
)
