"""How likely a LLaMA finds a document, as a figure of curation: the factory of the step `score`.

    - step: score
      factory: puna.flows.curate_scorer:open_likelihood
      arguments: {model: llama-base}
      name: bits_per_byte
      max_score: 2.5

Text that a model of good text finds most unlikely is noise more often than not, and what it finds
most likely says the same again and again (Wenzek et al. 2020, CCNet, arXiv 1911.00359, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from puna.corpus.model_score import Scorer
from puna.errors import InputError
from puna.flows.identity import checkpoint_identity
from puna.flows.opening import open_model, resolve_device, set_threads
from puna.flows.products import find_product, is_tuning
from puna.generate import Score, score
from puna.model import LlamaModel
from puna.store import open_checkpoint
from puna.store.locate import locate
from puna.tokens import Tokenizer

LEAST_TOKENS = 2  # the first one is given, the others are judged


class LikelihoodScorer:
    """The negative log-likelihood of the beginning of each text, in bits per byte."""

    unit = "bits per byte"

    def __init__(self, model: LlamaModel, tokenizer: Tokenizer, max_tokens: int) -> None:
        """Judge the first `max_tokens` tokens of a text."""
        self._model, self._tokenizer = model, tokenizer
        self._max_tokens = min(max_tokens, model.config.max_position_embeddings)

    def score(self, texts: Sequence[str]) -> list[float]:
        """Bits per byte; NaN for a text that has no token to judge."""
        rows = [ids[: self._max_tokens] for ids in self._tokenizer.encode_batch(list(texts))]
        # By itself each: what stands beside it must not move a bit of its figure.
        return [self._of(ids) for ids in rows]

    def _of(self, ids: Sequence[int]) -> float:
        if len(ids) < LEAST_TOKENS:
            return math.nan
        (logprobs,) = score(self._model, [ids])
        size = sum(len(self._tokenizer.token_bytes(token)) for token in ids[1:])
        return Score(tuple(ids), tuple(logprobs), size).bits_per_byte if size else math.nan


def open_likelihood(
    model: str = "llama-base", max_tokens: int = 512, threads: int = 1, device: str = "cpu"
) -> Scorer:
    """What judges documents by a model.

    Args:
        model: A path, an alias, or a name on the hub.
        max_tokens: Of a document, that are judged: its beginning.
        threads: Of each worker.
        device: cpu, cuda, cuda:N, mps or auto.

    Raises:
        InputError: There is no such model, or it is damaged.
    """
    if max_tokens < LEAST_TOKENS:
        raise InputError(f"max_tokens must be at least {LEAST_TOKENS}, not {max_tokens}")
    set_threads(threads)
    place = resolve_device(device)
    opened = open_model(model, device=place, dtype=torch.float32)
    return LikelihoodScorer(opened.model, opened.tokenizer, max_tokens)


def judging_identity(arguments: Mapping[str, Any]) -> str:
    """The identity of the model that `open_likelihood` would take with these arguments.

    Raises:
        InputError: There is no such model, or it is a tuning.
    """
    name = str(arguments.get("model", "llama-base"))
    path = find_product(locate(name).path)
    if is_tuning(path):
        raise InputError(
            "is a tuning; documents are judged by a whole model",
            where=path,
            fix="puna merge makes one of it",
        )
    return checkpoint_identity(open_checkpoint(path))
