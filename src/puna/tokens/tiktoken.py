"""tiktoken's ranks, as LLaMA-3 ships them in `tokenizer.model`: base64 of a token, rank per line.

Source: tiktoken's `load_tiktoken_bpe`; meta-llama/llama-models, models/llama3/tokenizer.py (the
expression, and the names of the 256 special tokens).
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from tokenizers import Tokenizer as Backend

from puna.errors import InputError
from puna.tokens.bytelevel import alphabet, build_byte_level, to_token
from puna.tokens.vocabulary import TokenType, Vocabulary, merges_by_rank

SPECIAL_COUNT = 256
PRE_NAME = "llama-bpe"
_NAMED = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|image|>",
)


def special_names() -> list[str]:
    """Meta's names of LLaMA-3's special tokens, in the order of their ids."""
    reserved = range(2, 2 + SPECIAL_COUNT - len(_NAMED))
    return [*_NAMED, *(f"<|reserved_special_token_{number}|>" for number in reserved)]


def read_tiktoken(data: bytes, *, where: Path | str) -> Vocabulary:
    """Read ranks into a vocabulary, with LLaMA-3's special tokens after them.

    Raises:
        InputError: A line is not base64 and a rank, ranks are not 0, 1, 2 ..., a token occurs
            twice, or one of the 256 bytes is missing.
    """
    tokens: list[str] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            in_order = int(rank) == len(tokens)
        except (ValueError, binascii.Error) as error:
            raise InputError(
                f"line {number} is not a token in base64 and its rank: {line[:60]!r}", where=where
            ) from error
        if not in_order or not token:
            raise InputError(
                f"line {number}: expected a token with rank {len(tokens)}, found {line[:60]!r}",
                where=where,
            )
        tokens.append(to_token(token))
    known = frozenset(tokens)
    missing = [byte for byte, char in alphabet().items() if char not in known]
    if missing:
        raise InputError(f"the byte 0x{missing[0]:02x} has no rank", where=where)
    types = [int(TokenType.NORMAL)] * len(tokens) + [int(TokenType.CONTROL)] * SPECIAL_COUNT
    return Vocabulary([*tokens, *special_names()], types).checked(where)


def build_tiktoken(vocabulary: Vocabulary) -> Backend:
    """The backend of a vocabulary from `read_tiktoken`."""
    core = vocabulary.core(TokenType.CONTROL)
    return build_byte_level(vocabulary, merges_by_rank(core, core), pre=PRE_NAME)
