"""Documents to tokens: tokenizers of every LLaMA checkpoint format, and chat templates."""

from __future__ import annotations

from puna.tokens.files import open_tokenizer
from puna.tokens.stream import StreamDecoder
from puna.tokens.templates import BUILTIN_TEMPLATES, ChatTemplate
from puna.tokens.tokenizer import Tokenizer

__all__ = [
    "BUILTIN_TEMPLATES",
    "ChatTemplate",
    "StreamDecoder",
    "Tokenizer",
    "open_tokenizer",
]
