"""From steps to text: incremental decoding, stop strings, whole generations."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from puna.generate.engine import FinishReason, Step, check_prompts, decode
from puna.generate.sampling import Sampling
from puna.model import ContiguousCache, LlamaModel
from puna.tokens import Tokenizer


@dataclass(frozen=True)
class Piece:
    """New text of one sequence, and its tokens."""

    row: int  # index of the prompt
    text: str  # may be empty while a character or a possible stop string is incomplete
    step: Step
    finish: FinishReason | None  # set on the last piece of a sequence


@dataclass(frozen=True)
class Generation:
    """What a model made of one prompt."""

    text: str
    ids: tuple[int, ...]  # new tokens, the end-of-text token included
    finish: FinishReason  # "stop": a stop token or string; "length": out of tokens
    prompt_tokens: int
    logprobs: tuple[float, ...] | None = None  # per new token, natural logarithm
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] | None = None


class TextStream:
    """The text of one sequence as its tokens come; ends before the first stop string.

    Text that may turn out to be the beginning of a stop string is held back until it is known.
    Of several stop strings, the one that is complete first ends the text; of those complete at
    the same character, the longest.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), after: Sequence[int] = ()
    ) -> None:
        """Begin a text.

        Args:
            tokenizer: Decodes the tokens.
            stop: The stop strings.
            after: The prompt, whose text is not repeated; see `Tokenizer.stream`.
        """
        self._decoder = tokenizer.stream(after=after)
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """The text that `token_id` makes final; empty once stopped."""
        return self._emit(self._decoder.push(token_id))

    def finish(self, *, cut: bool = False) -> str:
        """The rest of the text, at the end of the sequence.

        Args:
            cut: The sequence ran out of tokens: half a character at its end is dropped.
        """
        rest = self._decoder.finish()
        text = self._emit(rest.rstrip("\N{REPLACEMENT CHARACTER}") if cut else rest)
        if self.stopped:
            return text
        text, self._held = text + self._held, ""
        return text

    def _emit(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [(text.find(stop), stop) for stop in self._stop]
        # The string that is complete first wins, however the text was cut into tokens.
        ends = [(at + len(stop), at) for at, stop in found if at >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def stream(
    model: LlamaModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    cache: ContiguousCache | None = None,
    first_stream: int = 0,
    kernels: bool = True,
    answering: bool = False,
) -> Generator[Piece, None, None]:
    """Yield the text of every sequence as it comes, the sequences of a batch interleaved.

    Args:
        model: Computes; not changed.
        tokenizer: Gives the text, and the ids that end it.
        prompts: Token ids, at least one each.
        sampling: How to choose.
        cache: Holds the first tokens of each prompt already; made here by default.
        first_stream: Number of the random stream of the first prompt.
        kernels: Use compiled kernels where they serve; see `puna.generate.stepping`.
        answering: The text begins anew, as an answer does, instead of continuing the prompt: some
            vocabularies begin every word with a space, which a beginning drops.

    Raises:
        InputError: A prompt is empty or fills the model's context.
    """
    check_prompts(model, prompts)
    texts = [
        TextStream(tokenizer, sampling.stop, after=() if answering else prompt)
        for prompt in prompts
    ]
    steps: Generator[list[Step], set[int], None] = decode(  # type: ignore[assignment]
        model,
        prompts,
        sampling,
        stop_ids=tokenizer.stop_ids,
        cache=cache,
        first_stream=first_stream,
        kernels=kernels,
    )
    stopped: set[int] | None = None
    while True:
        try:
            batch = steps.send(stopped)  # type: ignore[arg-type]
        except StopIteration:
            return
        stopped = set()
        for step in batch:
            text = texts[step.row]
            ended_by_token = step.finish == "stop"
            new = "" if ended_by_token else text.push(step.id)
            if step.finish and not text.stopped:
                new += text.finish(cut=step.finish == "length")
            if text.stopped:
                stopped.add(step.row)
            finish: FinishReason | None = "stop" if text.stopped else step.finish
            yield Piece(step.row, new, step, finish)


def complete(
    model: LlamaModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    first_stream: int = 0,
    kernels: bool = True,
    answering: bool = False,
) -> list[Generation]:
    """Generate for a batch of prompts and wait for all of them; see `stream`."""
    pieces: list[list[Piece]] = [[] for _ in prompts]
    for piece in stream(
        model,
        tokenizer,
        prompts,
        sampling,
        first_stream=first_stream,
        kernels=kernels,
        answering=answering,
    ):
        pieces[piece.row].append(piece)
    return [_collect(own, len(p), sampling) for own, p in zip(pieces, prompts, strict=True)]


def _collect(pieces: list[Piece], prompt_tokens: int, sampling: Sampling) -> Generation:
    finish = pieces[-1].finish
    assert finish is not None
    steps = [piece.step for piece in pieces]
    wanted = sampling.logprobs >= 0
    return Generation(
        text="".join(piece.text for piece in pieces),
        ids=tuple(step.id for step in steps),
        finish=finish,
        prompt_tokens=prompt_tokens,
        logprobs=tuple(s.logprob for s in steps if s.logprob is not None) if wanted else None,
        top_logprobs=tuple(step.top for step in steps) if wanted else None,
    )


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
