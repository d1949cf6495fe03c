"""The Python door: `llama = puna.load("llama-base")`, then generate, chat and score."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from puna.errors import InputError
from puna.flows.opening import (
    Opened,
    open_model,
    resolve_device,
    resolve_dtype,
    set_threads,
    template_text,
)
from puna.generate import (
    FinishReason,
    Generation,
    Piece,
    Sampling,
    Score,
    check_prompts,
    complete,
    new_cache,
    score,
    stream,
    warm_up,
)
from puna.model import ContiguousCache, LlamaConfig, LlamaModel, count
from puna.tokens import BUILTIN_TEMPLATES, Tokenizer
from puna.tokens.rendering import Renderer

__all__ = ["Conversation", "Generation", "Llama", "Sampling", "Score", "load"]

Message = Mapping[str, Any]  # {"role": "system" | "user" | "assistant", "content": "..."}


def load(
    name: str = "llama-base",
    *,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    template: str | None = None,
    kernels: bool = True,
) -> Llama:
    """Load a model and its tokenizer.

    Args:
        name: A path (Hugging Face folder, Meta folder, GGUF), an alias of yours, a packaged model
            such as `llama-base`, or a name on the Hugging Face hub.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto (float32 on CPU, bfloat16 on GPU), file, float32, bfloat16 or float16.
        threads: CPU threads; torch's own choice by default.
        template: Chat template in place of the checkpoint's: a name of
            `puna.tokens.BUILTIN_TEMPLATES` or a .jinja file.
        kernels: Decode by compiled kernels where they serve (CPU, float32, extra `fast`).

    Raises:
        InputError: There is no such model or template, or the file is damaged; the message says
            what to do.

    Example:
        >>> import puna
        >>> llama = puna.load("llama-base")  # doctest: +SKIP
        >>> llama.chat([{"role": "user", "content": "Name a llama."}]).text  # doctest: +SKIP
    """
    set_threads(threads)
    place = resolve_device(device)
    text = None if template is None else _read_template(template)
    opened = open_model(name, device=place, dtype=resolve_dtype(dtype, place))
    return Llama(opened, template=text, kernels=kernels)


class Llama:
    """A model and its tokenizer."""

    def __init__(
        self, opened: Opened, *, template: str | None = None, kernels: bool = True
    ) -> None:
        self.opened = opened
        taught = None if opened.asking is None else opened.asking.template
        self.chat_template = template or taught or opened.tokenizer.chat_template
        self.kernels = kernels

    def __repr__(self) -> str:
        shape = self.config
        return (
            f"Llama({self.opened.name!r}, {shape.num_hidden_layers} layers x {shape.hidden_size}, "
            f"vocabulary {shape.vocab_size})"
        )

    def describe(self) -> str:
        """One line: what it is, and where it runs."""
        weight = self.model.model.norm.weight
        size = count(self.config).parameters
        places = {"cpu": f"the CPU with {torch.get_num_threads()} threads"}
        return (
            f"{self.opened.name}: {_rounded(size)} parameters, "
            f"{str(weight.dtype).removeprefix('torch.')}, "
            f"on {places.get(weight.device.type, str(weight.device))}; "
            f"ready in {self.opened.seconds:.2f} s"
        )

    @property
    def model(self) -> LlamaModel:
        """The torch module."""
        return self.opened.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self.opened.tokenizer

    @property
    def config(self) -> LlamaConfig:
        """The shape of the model."""
        return self.opened.model.config

    def generate(self, prompt: str, sampling: Sampling | None = None) -> Generation:
        """Continue one prompt; no chat template is applied.

        Args:
            prompt: Plain text. What looks like a special token is read as text.
            sampling: Greedy, 256 tokens, by default.

        Raises:
            InputError: The prompt is empty or fills the model's context.
        """
        return self.generate_batch([prompt], sampling)[0]

    def generate_batch(
        self, prompts: Sequence[str], sampling: Sampling | None = None, *, batch: int = 8
    ) -> list[Generation]:
        """Continue several prompts, `batch` of them computed together.

        The batch size changes speed, not text.

        Raises:
            InputError: A prompt is empty or fills the model's context.
        """
        if batch < 1:
            raise InputError(f"batch must be at least 1, not {batch}")
        return self._complete(self.tokenizer.encode_batch(_texts(prompts)), sampling, batch)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """The token ids of a conversation, ending where the answer begins.

        Raises:
            InputError: There is no chat template, or it refuses these messages.
        """
        if self.chat_template is None:
            raise InputError(
                f"{self.opened.name} has no chat template: it continues text and does not converse",
                fix=f"name one, of {', '.join(BUILTIN_TEMPLATES)}, or a .jinja file (template=, "
                "--template)",
            )
        return self.tokenizer.encode_chat(messages, template=self.chat_template)

    def encode_question(self, text: str) -> list[int]:
        """The token ids of a question, put as the model was taught to be asked.

        A tuned model brings the words and the template of its recipe; any other is asked by its
        chat template.

        Raises:
            InputError: There is no chat template, or the recipe's words need more than one text.
        """
        asking = self.opened.asking
        if asking is None or not asking.converses:
            return self.encode_chat([{"role": "user", "content": text}])
        return Renderer(self.tokenizer, self.chat_template).prompt(asking.wording.ask(text))

    def ask(self, text: str, sampling: Sampling | None = None) -> Generation:
        """Answer a question, put as the model was taught to be asked; see `encode_question`."""
        return self._complete([self.encode_question(text)], sampling, 1, answering=True)[0]

    def answering(self, sampling: Sampling | None) -> Sampling:
        """How an answer is sampled: it ends, too, at the chat template's own end of turn.

        Most templates end a turn with a token that the tokenizer names as such; some do not.
        """
        wanted = sampling or Sampling()
        if self.chat_template is None or wanted.ignore_eos:
            return wanted
        own = self._ends - self.tokenizer.stop_ids
        return replace(wanted, stop_tokens=(*wanted.stop_tokens, *sorted(own))) if own else wanted

    @cached_property
    def _ends(self) -> frozenset[int]:
        return Renderer(self.tokenizer, self.chat_template).stop_ids

    @property
    def is_taught(self) -> bool:
        """Whether the model was tuned to answer questions that are put in its recipe's words."""
        asking = self.opened.asking
        return asking is not None and asking.converses

    def warm_up(self) -> float:
        """Compile the decoding kernels, or fetch them from their cache; returns seconds."""
        return warm_up(self.model)

    def chat(self, messages: Sequence[Message], sampling: Sampling | None = None) -> Generation:
        """Answer a conversation, rendered by the model's own chat template.

        Raises:
            InputError: The model has no chat template, or it refuses these messages.
        """
        return self._complete([self.encode_chat(messages)], sampling, 1, answering=True)[0]

    def stream(self, prompt: str, sampling: Sampling | None = None) -> Iterator[str]:
        """Continue a prompt, yielding text as it comes."""
        ids = self.tokenizer.encode(prompt)
        wanted = sampling or Sampling()
        for piece in stream(self.model, self.tokenizer, [ids], wanted, kernels=self.kernels):
            if piece.text:
                yield piece.text

    def stream_chat(
        self, messages: Sequence[Message], sampling: Sampling | None = None
    ) -> Iterator[str]:
        """Answer a conversation, yielding text as it comes."""
        return Conversation(self).answer(messages, sampling or Sampling())

    def score(self, texts: Sequence[str]) -> list[Score]:
        """Log-likelihoods of texts, token by token.

        The first token is scored only if the model has a beginning-of-text token to go before it.

        Raises:
            InputError: A text is longer than the model's context.
        """
        texts = _texts(texts)
        rows = self.tokenizer.encode_batch(texts)
        bos = self.tokenizer.bos_id if self.tokenizer.add_bos else None
        scores = []
        for text, ids, values in zip(texts, rows, score(self.model, rows), strict=True):
            size = len(text.encode())
            if ids and bos is None:
                size -= len(self.tokenizer.token_bytes(ids[0]))
            scores.append(Score(tuple(ids), tuple(values), size if values else 0))
        return scores

    def _complete(
        self,
        rows: Sequence[Sequence[int]],
        sampling: Sampling | None,
        batch: int,
        *,
        answering: bool = False,
    ) -> list[Generation]:
        check_prompts(self.model, rows)
        done: list[Generation] = []
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            done += complete(
                self.model,
                self.tokenizer,
                part,
                self.answering(sampling) if answering else sampling or Sampling(),
                first_stream=start,
                kernels=self.kernels,
                answering=answering,
            )
        return done


@dataclass
class Conversation:
    """A chat that keeps its key/value cache: each turn computes only what is new.

    One answer at a time: the next call of `answer` ends the one before it.
    """

    llama: Llama
    finish: FinishReason | None = None  # of the last answer; None while it is under way

    def __post_init__(self) -> None:
        self._cache: ContiguousCache | None = None
        self._held: list[int] = []  # the tokens that the cache holds
        self._pieces: Generator[Piece, None, None] | None = None  # the answer that is under way

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[str]:
        """Answer `messages`, yielding text as it comes; may be abandoned at any point.

        Raises:
            InputError: The conversation fills the model's context, or the next answer was begun
                before this one was read to its end.
        """
        ids = self.llama.encode_chat(messages)
        if self._pieces is not None:
            self._pieces.close()  # its reader may come back, but the cache is ours now
            self._pieces = None
        cache, self.finish = self._prepare(ids, sampling.max_tokens), None
        held, self._held = list(ids), []
        pieces = stream(
            self.llama.model,
            self.llama.tokenizer,
            [ids],
            self.llama.answering(sampling),
            cache=cache,
            kernels=self.llama.kernels,
            answering=True,
        )
        self._pieces = pieces
        try:
            for piece in pieces:
                held.append(piece.step.id)
                self.finish = piece.finish
                if piece.text:
                    yield piece.text
            if self._pieces is not pieces:
                raise InputError("this answer was cut short: the next one has begun")
        finally:
            if self._pieces is pieces:
                # The last token was chosen but not read, and an interruption may come anywhere.
                self._held, self._pieces = held[: cache.lengths[0]], None

    def _prepare(self, ids: Sequence[int], new_tokens: int) -> ContiguousCache:
        room = min(len(ids) + new_tokens, self.llama.config.max_position_embeddings)
        if self._cache is None:
            self._cache = new_cache(self.llama.model, batch=1, max_tokens=room)
        self._cache.grow(room)
        same = 0
        for old, new in zip(self._held, ids[:-1], strict=False):
            if old != new:
                break
            same += 1
        self._cache.rewind([min(same, self._cache.lengths[0])])
        return self._cache


def _rounded(size: int) -> str:
    for unit, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return str(size)


def _texts(texts: Sequence[str]) -> list[str]:
    # A text is a sequence of texts too, of one character each: never what was meant.
    if isinstance(texts, str):
        raise InputError("expected a list of texts, found one text", fix="write [text]")
    return list(texts)


def _read_template(name: str) -> str:
    """The text of a chat template, by the name of a known one or the path of a file."""
    if name in BUILTIN_TEMPLATES:
        return BUILTIN_TEMPLATES[name]
    if not name.endswith(".jinja"):
        raise InputError(
            f"there is no chat template {name!r}",
            fix=f"known: {', '.join(BUILTIN_TEMPLATES)}; or a .jinja file",
        )
    return str(template_text(name))
