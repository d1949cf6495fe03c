"""The figures that `statistics` gives every document, in the order of their columns.

Lines are those between line feeds but where another kind is named. A word here has a character
that is no punctuation; a token is any word of the splitter, be it a lone symbol.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

MEANINGS = MappingProxyType(
    {
        "characters": "characters of the text that was looked at",
        "unread_bytes": "bytes of a very long text that were not looked at",
        "words": "words",
        "tokens": "words and symbols",
        "mean_word_length": "characters per word",
        "hash_ratio": "# per token",
        "ellipsis_ratio": "... and … per token",
        "bullet_line_fraction": "displayed lines that begin with a bullet",
        "ellipsis_line_fraction": "displayed lines that end with an ellipsis",
        "alphabetic_fraction": "words with a letter; with the splitter datatrove, tokens with one",
        "stop_words": "how many of the language's stop words are there",
        "lines": "lines that are not blank",
        "short_line_fraction": "of these, those that are short",
        "line_punctuation_fraction": "of these, those that end with the mark of a sentence",
        "newline_ratio": "line feeds per token",
        "repeated_line_fraction": "characters in lines that were there before; FineWeb's",
        "duplicate_line_fraction": "lines that were there before; Gopher's, blank ones counted",
        "duplicate_line_character_fraction": "characters in these",
        "duplicate_paragraph_fraction": "paragraphs that were there before",
        "duplicate_paragraph_character_fraction": "characters in these",
        "top_2_gram_character_fraction": "characters in the commonest pair of tokens",
        "top_3_gram_character_fraction": "characters in the commonest three tokens in a row",
        "top_4_gram_character_fraction": "characters in the commonest four tokens in a row",
        "duplicated_5_gram_character_fraction": "characters in 5 tokens in a row seen before",
        "duplicated_6_gram_character_fraction": "characters in 6 tokens in a row seen before",
        "duplicated_7_gram_character_fraction": "characters in 7 tokens in a row seen before",
        "duplicated_8_gram_character_fraction": "characters in 8 tokens in a row seen before",
        "duplicated_9_gram_character_fraction": "characters in 9 tokens in a row seen before",
        "duplicated_10_gram_character_fraction": "characters in 10 tokens in a row seen before",
        "sentences": "sentences",
        "javascript_lines": "displayed lines that name JavaScript",
        "policy_lines": "displayed lines about cookies, privacy or terms of use",
        "lorem_ipsum_lines": "displayed lines with the filler text lorem ipsum",
        "curly_brackets": "how many { there are",
    }
)
"""What each figure is. Displayed lines end where `str.splitlines` ends them."""

FIGURES = tuple(MEANINGS)
"""The columns of the kernel's result."""

CHARACTERS: Final = 0
UNREAD_BYTES: Final = 1
WORDS: Final = 2
TOKENS: Final = 3
MEAN_WORD_LENGTH: Final = 4
HASH_RATIO: Final = 5
ELLIPSIS_RATIO: Final = 6
BULLET_LINES: Final = 7
ELLIPSIS_LINES: Final = 8
ALPHABETIC: Final = 9
STOP_WORDS: Final = 10
LINES: Final = 11
SHORT_LINES: Final = 12
PUNCTUATED_LINES: Final = 13
NEWLINES: Final = 14
REPEATED_LINES: Final = 15
DUPLICATE_LINES: Final = 16  # then characters, paragraphs, their characters
DUPLICATE_PARAGRAPHS: Final = 18
TOP_GRAMS: Final = 20  # of 2, 3 and 4 tokens
DUPLICATED_GRAMS: Final = 23  # of 5 to 10 tokens
SENTENCES: Final = 29
JAVASCRIPT: Final = 30
POLICY: Final = 31
LOREM_IPSUM: Final = 32
CURLY_BRACKETS: Final = 33

PHRASES = (
    "javascript",
    "lorem ipsum",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
"""What C4 looks for in lines, in lower case. The first two have rules of their own; the others are
about policies."""
