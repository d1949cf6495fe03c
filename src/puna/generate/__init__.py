"""A model and a prompt in, tokens and text out: samplers and streaming over a KV cache.

Greedy decoding equals that of the reference implementation token for token; every sampler equals
its reference distribution; the text does not depend on the batch size.
"""

from __future__ import annotations

from puna.generate.engine import FinishReason, Step, check_prompts, decode, new_cache
from puna.generate.sampling import Sampler, Sampling
from puna.generate.score import Score, score
from puna.generate.stepping import kernels_missing, warm_up
from puna.generate.text import Generation, Piece, TextStream, complete, stream

__all__ = [
    "FinishReason",
    "Generation",
    "Piece",
    "Sampler",
    "Sampling",
    "Score",
    "Step",
    "TextStream",
    "check_prompts",
    "complete",
    "decode",
    "kernels_missing",
    "new_cache",
    "score",
    "stream",
    "warm_up",
]
