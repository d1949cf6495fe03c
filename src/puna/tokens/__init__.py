"""Documents to tokens: tokenizers of every LLaMA checkpoint format, chat templates, examples.

Text and conversations come in, ids go out, with what is to be learnt marked. What precedes a
trained answer is, id for id, what generation is given; no text of a user becomes a special token;
and every item of data that is left out is counted by its reason. Batches are in `tokens.batches`
and `tokens.loader`, the only modules here that import torch.
"""

from __future__ import annotations

from puna.tokens.examples import ExampleConfig, TokenExample, encode_items
from puna.tokens.files import open_tokenizer
from puna.tokens.mask_report import MaskReport
from puna.tokens.rendering import Rendered, Renderer
from puna.tokens.stream import StreamDecoder
from puna.tokens.templates import BUILTIN_TEMPLATES, ChatTemplate
from puna.tokens.tokenizer import Tokenizer

__all__ = [
    "BUILTIN_TEMPLATES",
    "ChatTemplate",
    "ExampleConfig",
    "MaskReport",
    "Rendered",
    "Renderer",
    "StreamDecoder",
    "TokenExample",
    "Tokenizer",
    "encode_items",
    "open_tokenizer",
]
