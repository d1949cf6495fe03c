"""`puna generate`: prompts from the command line, a file or stdin; text or JSON lines out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

from cyclopts import Parameter

import puna
from puna.artifact import check_free, writing_file
from puna.cli.options import ModelOptions, compiling
from puna.cli.progress import ReportOptions, reporting
from puna.cli.prompts import Prompt, PromptSource, read_prompts
from puna.errors import InputError
from puna.generate import Generation, Sampling, check_prompts, complete, stream

GREEDY = Sampling()


@dataclass(frozen=True)
class Output:
    """What comes out, and where."""

    jsonl: bool = False
    """Print one JSON object per prompt instead of text."""
    out: Path | None = None
    """Write to this file instead of standard output; whole or not at all."""
    force: bool = False
    """Replace the output file if it exists."""


@dataclass(frozen=True)
class Request:
    """One prompt, ready for the model."""

    prompt: Prompt
    ids: list[int]
    answering: bool  # a turn of a conversation, not a text to be continued


def generate(
    *prompts: str,
    source: Annotated[PromptSource, Parameter(name="*")] = PromptSource(),  # noqa: B008
    batch: int = 8,
    model: Annotated[ModelOptions, Parameter(name="*")] = ModelOptions(),  # noqa: B008
    sampling: Annotated[Sampling, Parameter(name="*", negative_iterable=())] = GREEDY,
    output: Annotated[Output, Parameter(name="*")] = Output(),
    report: Annotated[ReportOptions, Parameter(name="*")] = ReportOptions(),  # noqa: B008
) -> None:
    """Continue prompts, or answer them with --chat. A tuned model is asked as it was taught.

    Args:
        prompts: Texts; without any, and without --file, standard input is one prompt.
        batch: Prompts computed together; it changes speed, not text.
    """
    if batch < 1:
        raise InputError(f"--batch must be at least 1, not {batch}")
    if source.system is not None and not source.chat:
        raise InputError("--system belongs to --chat", fix="add --chat")
    if source.chat and source.plain:
        raise InputError("--chat and --plain exclude each other", fix="keep one")
    if sampling.logprobs >= 0 and not output.jsonl:
        raise InputError("--logprobs belongs to --jsonl", fix="add --jsonl")
    wanted = list(read_prompts(prompts, source))
    if not wanted:
        raise InputError(
            "there is no prompt", where=source.file, fix='puna generate "Once upon a time"'
        )
    if output.out is not None:
        check_free(output.out, force=output.force)  # before anything takes time
    llama = model.load()
    requests = [_request(llama, prompt, source) for prompt in wanted]
    check_prompts(llama.model, [request.ids for request in requests])
    if not report.quiet:
        _note(llama.describe())
        compiling(llama)
    job = Job(llama, requests, sampling, batch, output.jsonl, report)
    if output.out is None:
        job.run(sys.stdout)
        return
    with (
        writing_file(output.out, force=output.force) as temporary,
        temporary.open("w", encoding="utf-8") as target,
    ):
        job.run(target)


def _request(llama: puna.Llama, prompt: Prompt, source: PromptSource) -> Request:
    if isinstance(prompt, str) and not source.chat:
        if llama.is_taught and not source.plain:
            return Request(prompt, llama.encode_question(prompt), answering=True)
        return Request(prompt, llama.tokenizer.encode(prompt), answering=False)
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    if source.system is not None and messages[0].get("role") != "system":
        messages = [{"role": "system", "content": source.system}, *messages]
    return Request(prompt, llama.encode_chat(messages), answering=True)


@dataclass(frozen=True)
class Job:
    """Everything that is to be generated."""

    llama: puna.Llama
    requests: list[Request]
    sampling: Sampling
    batch: int
    jsonl: bool
    report: ReportOptions

    def run(self, target: TextIO) -> None:
        """Generate, write to `target`, and tell the rate."""
        start = time.perf_counter()
        if len(self.requests) == 1 and not self.jsonl:
            tokens = self._stream_one(target)
            # A bar would disturb the text that is streamed: only the log is told, afterwards.
            with reporting(self.report, "prompts", began=start) as progress:
                progress("generating", 1, 1)
        else:
            tokens = self._in_batches(target)
        seconds = time.perf_counter() - start
        if not self.report.quiet:
            _note(f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:.1f} tokens/s")

    def _stream_one(self, target: TextIO) -> int:
        request, tokens = self.requests[0], 0
        for piece in stream(
            self.llama.model,
            self.llama.tokenizer,
            [request.ids],
            self._sampling(request),
            kernels=self.llama.kernels,
            answering=request.answering,
        ):
            tokens += 1
            target.write(piece.text)
            target.flush()
        target.write("\n")
        return tokens

    def _in_batches(self, target: TextIO) -> int:
        tokens = 0
        with reporting(self.report, "prompts") as progress:
            for first, part in self._batches():
                done = complete(
                    self.llama.model,
                    self.llama.tokenizer,
                    [request.ids for request in part],
                    self._sampling(part[0]),
                    first_stream=first,
                    kernels=self.llama.kernels,
                    answering=part[0].answering,
                )
                for request, generation in zip(part, done, strict=True):
                    tokens += len(generation.ids)
                    target.write(_format(request, generation, self.llama, self.jsonl))
                target.flush()
                progress("generating", first + len(part), len(self.requests))
        return tokens

    def _sampling(self, request: Request) -> Sampling:
        return self.llama.answering(self.sampling) if request.answering else self.sampling

    def _batches(self) -> Iterator[tuple[int, list[Request]]]:
        """(number of the first, requests): of one kind each, and at most `batch` of them."""
        first = 0
        while first < len(self.requests):
            part = [self.requests[first]]
            for request in self.requests[first + 1 : first + self.batch]:
                if request.answering != part[0].answering:
                    break
                part.append(request)
            yield first, part
            first += len(part)


def _format(request: Request, generation: Generation, llama: puna.Llama, jsonl: bool) -> str:
    if not jsonl:
        asked = (
            request.prompt if isinstance(request.prompt, str) else request.prompt[-1].get("content")
        )
        return f"> {asked}\n{generation.text.strip()}\n\n"
    row: dict[str, Any] = {
        "messages" if isinstance(request.prompt, list) else "prompt": request.prompt,
        "text": generation.text,
        "finish": generation.finish,
        "prompt_tokens": generation.prompt_tokens,
        "new_tokens": len(generation.ids),
    }
    if generation.logprobs is not None and generation.top_logprobs is not None:
        row["logprobs"] = [
            {
                "id": id_,
                "text": llama.tokenizer.decode([id_], skip_special=False),
                "logprob": value,
                "top": [
                    {
                        "id": i,
                        "text": llama.tokenizer.decode([i], skip_special=False),
                        "logprob": v,
                    }
                    for i, v in top
                ],
            }
            for id_, value, top in zip(
                generation.ids, generation.logprobs, generation.top_logprobs, strict=True
            )
        ]
    return json.dumps(row, ensure_ascii=False) + "\n"


def _note(text: str) -> None:
    print(text, file=sys.stderr)
