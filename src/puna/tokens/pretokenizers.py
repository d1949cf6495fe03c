"""How byte-level vocabularies cut text into words before merging, by llama.cpp's names.

Source: llama.cpp, src/llama-vocab.cpp (`tokenizer.ggml.pre`) and src/unicode.cpp: the expressions
of a name are applied one after the other; what one matches, and what lies between, is cut by the
next. Where the tokenizer.json of the model family says the same in another form, that form is
built here, so that a vocabulary read from either is the same.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tokenizers import Regex, pre_tokenizers

_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

LLAMA3 = rf"{_SUFFIX}|{_WORD}|\p{{N}}{{1,3}}|{_REST}"
QWEN2 = rf"{_SUFFIX}|{_WORD}|\p{{N}}|{_REST}"
TEKKEN = rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}|{_TAIL}"
GPT4O = (
    rf"{_LEAD}{_UPPER}*{_LOWER}+{_SUFFIX}?|{_LEAD}{_UPPER}+{_LOWER}*{_SUFFIX}?"
    rf"|\p{{N}}{{1,3}}|{_TAIL}"
)
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
DIGITS = r"\p{N}"  # in the tokenizer.json of these models: Digits(individual_digits)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Pre:
    """How one name of `tokenizer.ggml.pre` cuts text, and what else it implies."""

    patterns: tuple[str, ...]
    add_bos: bool = False  # what llama.cpp does when the file does not say
    ignore_merges: bool = False  # a whole word that is a token is taken as it is

    def build(self) -> pre_tokenizers.PreTokenizer:
        """The `tokenizers` equivalent, ending in the byte-level alphabet."""
        steps: list[pre_tokenizers.PreTokenizer] = []
        own = self.patterns[-1] == GPT2  # ByteLevel applies that expression itself
        for pattern in self.patterns[: -1 if own else None]:
            if pattern == DIGITS:
                steps.append(pre_tokenizers.Digits(individual_digits=True))
            else:
                steps.append(pre_tokenizers.Split(Regex(pattern), "isolated", invert=False))
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=own))
        return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


_LLAMA3 = Pre((LLAMA3,), add_bos=True, ignore_merges=True)
_CHATGLM4 = Pre((LLAMA3,))
_QWEN2 = Pre((QWEN2,))
_GPT2 = Pre((GPT2,))
_DIGITS_GPT2 = Pre((DIGITS, GPT2))
_GPT4O = Pre((GPT4O,))
_DEFAULT = Pre((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))

PRE: Mapping[str, Pre] = MappingProxyType(
    {
        "llama-bpe": _LLAMA3,
        "llama3": _LLAMA3,
        "llama-v3": _LLAMA3,
        "falcon3": _LLAMA3,
        "falcon-h1": _LLAMA3,
        "pixtral": _LLAMA3,
        "midm-2.0": _LLAMA3,
        "lfm2": _LLAMA3,
        "dbrx": _CHATGLM4,
        "smaug-bpe": _CHATGLM4,
        "glm4": _CHATGLM4,
        "chatglm-bpe": _CHATGLM4,
        "smollm": _DIGITS_GPT2,
        "starcoder": _DIGITS_GPT2,
        "refact": _DIGITS_GPT2,
        "command-r": _DIGITS_GPT2,
        "codeshell": _DIGITS_GPT2,
        "exaone": _DIGITS_GPT2,
        "minerva-7b": _DIGITS_GPT2,
        "gpt-2": _GPT2,
        "phi-2": _GPT2,
        "mpt": _GPT2,
        "olmo": _GPT2,
        "jais": _GPT2,
        "trillion": _GPT2,
        "gigachat": _GPT2,
        "mellum": _GPT2,
        "exaone4": _GPT2,
        "a.x-4.0": _GPT2,
        "qwen2": _QWEN2,
        "deepseek-r1-qwen": _QWEN2,
        "stablelm2": _QWEN2,
        "hunyuan": _QWEN2,
        "megrez": _QWEN2,
        "tekken": Pre((TEKKEN,), add_bos=True, ignore_merges=True),
        "gpt-4o": _GPT4O,
        "llama4": _GPT4O,
        "deepseek-v3": Pre((r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3)),
        "deepseek-coder": Pre(
            (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")
        ),
        "falcon": Pre((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")),
        "poro-chat": Pre((BLOOM,)),
        "bloom": Pre((BLOOM,)),
        "gpt3-finnish": Pre((BLOOM,)),
        "viking": Pre((BLOOM, DIGITS)),
        "default": _DEFAULT,
    }
)
"""By name; the first name of a kind is the one that is written."""


def nearest(name: str) -> str:
    """The known name that looks most like `name`, for error messages."""
    return (difflib.get_close_matches(name, PRE, n=1, cutoff=0.0) or ["default"])[0]


def name_of(pre_tokenizer: object, *, ignore_merges: bool) -> str | None:
    """llama.cpp's name for a pre-tokenizer of a tokenizer.json; None where it has no name."""
    if not isinstance(pre_tokenizer, pre_tokenizers.PreTokenizer):
        return None
    wanted = _shape(pre_tokenizer)
    for name, pre in PRE.items():
        if pre.ignore_merges == ignore_merges and _shape(pre.build()) == wanted:
            return name
    return None


def _shape(pre_tokenizer: pre_tokenizers.PreTokenizer) -> list[tuple[str, str]]:
    """The cuts a pre-tokenizer makes, without what changes offsets only."""
    state = json.loads(pre_tokenizer.__getstate__())
    steps = state["pretokenizers"] if state["type"] == "Sequence" else [state]
    shape = []
    for step in steps:
        match step:
            case {"type": "ByteLevel", "add_prefix_space": prefix, **rest}:
                if rest.get("use_regex", True):
                    shape.append(("Split", GPT2))
                shape.append(("ByteLevel", str(prefix)))
            case {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}:
                shape.append(("Split", next(iter(pattern.values()))))
            case {"type": "Digits", "individual_digits": True}:
                shape.append(("Split", DIGITS))
            case _:
                shape.append((step["type"], json.dumps(step, sort_keys=True)))
    return shape
