"""What the tests of rendering and of examples share: tokenizers, turns, items, invariants."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from puna.tokens import Renderer, TokenExample, Tokenizer
from tokens.samples import open_files, tiny_json, tiny_sentencepiece

SPECIALS = (
    "<|bos|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "</s>",
)
END = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CHATML += END
GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}" + END
)
FORGETFUL = (  # as reasoning models do: only the last answer keeps what was thought
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if loop.last else m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
) + END
THINKING = (  # the prompt has words that a past answer is not preceded by
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
ENDLESS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
ENDLESS += "{% if add_generation_prompt %}assistant: {% endif %}"


def byte_level(eos: str | None = "</s>", **config: object) -> Tokenizer:
    roles = {"bos_token": "<|bos|>"} | ({"eos_token": eos} if eos else {}) | config
    return open_files(
        tokenizer_json=tiny_json(specials=SPECIALS),
        tokenizer_config_json=json.dumps(roles).encode(),
    )


def sentencepiece(**options: object) -> Tokenizer:
    """A SentencePiece vocabulary, which puts a space before a text; the bos is wanted."""
    kind = {"model_type": "bpe", "byte_fallback": True, "remove_extra_whitespaces": False}
    model = tiny_sentencepiece(normalization_rule_name="identity", **{**kind, **options})
    return open_files(tokenizer_model=model)


def without_ends() -> Tokenizer:
    """A tokenizer with no token that ends anything."""
    return open_files(tokenizer_json=tiny_json(specials=("<|bos|>",)))


def turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """User and assistant by turns."""
    roles = ("user", "assistant") * len(contents)
    chat = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    return chat if system is None else [{"role": "system", "content": system}, *chat]


def spoken(tokenizer: Tokenizer, ids: Sequence[int], trained: Sequence[bool]) -> list[str]:
    """The text of each stretch of trained tokens."""
    found, before = [b""], False
    for index, on in zip(ids, trained, strict=True):
        if on and not before:
            found.append(b"")
        if on:
            found[-1] += tokenizer.token_bytes(index)
        before = on
    return [text.decode() for text in found[1:]]


def written(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return b"".join(map(tokenizer.token_bytes, ids)).decode()


def check_prompts(renderer: Renderer, chat: list[dict[str, str]]) -> None:
    """What precedes every trained turn is what generation is given, id for id."""
    rendered = renderer.examples(chat)
    answers = [i for i, message in enumerate(chat) if message["role"] == "assistant"]
    prompts = [renderer.prompt(chat[:i]) for i in answers]
    assert len(rendered) in (1, len(answers))
    for number, prompt in enumerate(prompts):
        one = rendered[min(number, len(rendered) - 1)]
        assert one.ids[: len(prompt)] == prompt
        assert one.trained[len(prompt)]
        begins = [] if number and len(rendered) == 1 else one.trained[: len(prompt)]
        assert not any(begins)  # nothing is trained before the first answer
    assert rendered[0].prompt_tokens == len(prompts[0])


@dataclass(frozen=True)
class Datum:
    """An item of data, as `puna.records` has them."""

    id: str
    messages: tuple[Mapping[str, str], ...] = ()
    text: str | None = None
    root_id: str | None = None
    locator: str = "data.jsonl:1"
    source: str = ""


def chats(*pairs: tuple[str, ...]) -> list[Datum]:
    return [Datum(f"item{n}", tuple(turns(*pair))) for n, pair in enumerate(pairs)]


def example(ids: Sequence[int], trained: Sequence[int], name: str = "x") -> TokenExample:
    """An example by hand."""
    flags = np.array(trained, dtype=np.bool_)
    return TokenExample(name, "here", np.array(ids, dtype=np.int32), flags, 0, 0, name)
