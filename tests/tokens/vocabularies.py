"""Tiny vocabularies trained here and now, and texts to try them on."""

from __future__ import annotations

import functools

import pytest
from hypothesis import strategies as st

from puna.store.checkpoint import TokenizerFiles
from puna.tokens import Tokenizer, open_tokenizer
from puna.tokens.bpe import VocabularyConfig, train_vocabulary
from tokens.samples import CORPUS, PLACE

BYTE, FALLBACK = "byte_bpe", "byte_fallback_bpe"
SIZES = {BYTE: 400, FALLBACK: 420}
KINDS = pytest.mark.parametrize("kind", [BYTE, FALLBACK])
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)))
NEAR = "the llama▁ 羊驼吃草。,.\n\t12é\u0301<s>/"
NEAR_TEXT = st.text(alphabet=NEAR) | ANY_TEXT
OTHERS = "'SDÄßжλ½²\u00a0\u3000\r🦙ไท한"  # of every kind, in the Unicode of all engines
SPACE = "▁"


@functools.cache
def trained(kind: str, split_digits: bool = True) -> Tokenizer:
    config = VocabularyConfig(kind, size=SIZES[kind], split_digits=split_digits)
    return train_vocabulary(CORPUS, config, progress=lambda sentence: None)


def reopened(tokenizer: Tokenizer) -> Tokenizer:
    return open_tokenizer(TokenizerFiles(files=tokenizer.to_files()), where=PLACE)
