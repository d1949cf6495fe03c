"""`puna generate`: prompts from the command line, a file or stdin; text or JSON lines out."""

from __future__ import annotations

import codecs
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import puna
from puna.artifact import writing_file
from puna.cli.options import ModelOptions
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
    quiet: bool = False
    """No progress and no timing on standard error."""


@dataclass(frozen=True)
class Request:
    """One prompt, ready for the model."""

    prompt: str | list[dict[str, Any]]  # text, or messages
    ids: list[int]


def generate(
    *prompts: str,
    file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    chat: bool = False,
    system: str | None = None,
    batch: int = 8,
    model: Annotated[ModelOptions, Parameter(name="*")] = ModelOptions(),  # noqa: B008
    sampling: Annotated[Sampling, Parameter(name="*", negative_iterable=())] = GREEDY,
    output: Annotated[Output, Parameter(name="*")] = Output(),
) -> None:
    """Continue prompts, or answer them with --chat.

    Args:
        prompts: Texts; without any, and without --file, standard input is one prompt.
        file: One prompt per line, or with the ending .jsonl one object per line with the key
            "prompt" or "messages"; - is standard input.
        chat: Render each prompt as a user's turn by the model's chat template.
        system: System message, with --chat.
        batch: Prompts computed together; it changes speed, not text.
    """
    if batch < 1:
        raise InputError(f"--batch must be at least 1, not {batch}")
    if system is not None and not chat:
        raise InputError("--system belongs to --chat", fix="add --chat")
    if sampling.logprobs >= 0 and not output.jsonl:
        raise InputError("--logprobs belongs to --jsonl", fix="add --jsonl")
    wanted = list(read_prompts(prompts, file))
    if not wanted:
        raise InputError("there is no prompt", where=file, fix='puna generate "Once upon a time"')
    llama = puna.load(model.model, device=model.device, dtype=model.dtype, threads=model.threads)
    requests = [_request(llama, prompt, chat, system) for prompt in wanted]
    check_prompts(llama.model, [request.ids for request in requests])
    if not output.quiet:
        _note(f"{llama!r} ready in {llama.opened.seconds:.2f} s")
    if output.out is None:
        _answer(llama, requests, sampling, batch, output, sys.stdout)
        return
    with (
        writing_file(output.out, force=output.force) as temporary,
        temporary.open("w", encoding="utf-8") as target,
    ):
        _answer(llama, requests, sampling, batch, output, target)


def read_prompts(prompts: Sequence[str], file: Path | None) -> Iterator[str | list[dict[str, Any]]]:
    """Prompts from arguments, then from a file; from standard input if there are neither.

    Raises:
        InputError: A line is not what it should be; the message names file, line and key.
    """
    yield from prompts
    if file is not None:
        yield from _read_file(file)
    elif not prompts:
        if sys.stdin.isatty():
            raise InputError("there is no prompt", fix='puna generate "Once upon a time"')
        text = _decode(sys.stdin.buffer.read(), Path("-"))
        if text.strip():
            yield text.removesuffix("\n").removesuffix("\r")


def _read_file(file: Path) -> Iterator[str | list[dict[str, Any]]]:
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=file) from error
    for number, line_text in enumerate(_decode(raw, file).split("\n"), 1):
        if not line_text.strip():
            continue
        if file.suffix == ".jsonl":
            yield _parse_line(line_text, f"{file}, line {number}")
        else:
            yield line_text.removesuffix("\r")


def _decode(raw: bytes, file: Path) -> str:
    raw = raw.removeprefix(codecs.BOM_UTF8)  # Windows writes it; it is no part of a prompt
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        where = "standard input" if str(file) == "-" else file
        raise InputError(f"is not UTF-8 in line {line}", where=where) from error


def _parse_line(line: str, where: str) -> str | list[dict[str, Any]]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"is not JSON: {error.msg} at column {error.colno}", where=where
        ) from error
    except RecursionError as error:
        raise InputError("is not usable JSON: nested too deeply", where=where) from error
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        if "prompt" in value and "messages" in value:
            raise InputError('has both "prompt" and "messages"', where=where, fix="keep one")
        if isinstance(value.get("prompt"), str):
            return str(value["prompt"])
        messages = value.get("messages")
        if isinstance(messages, list) and messages:
            return [_message(message, index, where) for index, message in enumerate(messages)]
    raise InputError(
        'has neither a text "prompt" nor a list "messages"',
        where=where,
        fix='write {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}',
    )


def _message(value: Any, index: int, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"messages[{index}] is not an object", where=where)
    for key in ("role", "content"):
        if not isinstance(value.get(key), str) and not (key == "content" and "tool_calls" in value):
            found = f"found {value[key]!r}" if key in value else "there is none"
            raise InputError(f'messages[{index}] needs a text "{key}"; {found}', where=where)
    return value


def _request(
    llama: puna.Llama, prompt: str | list[dict[str, Any]], chat: bool, system: str | None
) -> Request:
    if isinstance(prompt, str) and not chat:
        return Request(prompt, llama.tokenizer.encode(prompt))
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    if system is not None and messages[0].get("role") != "system":
        messages = [{"role": "system", "content": system}, *messages]
    return Request(prompt, llama.tokenizer.encode_chat(messages))


def _answer(
    llama: puna.Llama,
    requests: list[Request],
    sampling: Sampling,
    batch: int,
    output: Output,
    target: TextIO,
) -> None:
    start = time.perf_counter()
    if len(requests) == 1 and not output.jsonl:
        tokens = _stream_one(llama, requests[0], sampling, target)
    else:
        tokens = _in_batches(llama, requests, sampling, batch, output, target)
    seconds = time.perf_counter() - start
    if not output.quiet:
        _note(f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:.1f} tokens/s")


def _stream_one(llama: puna.Llama, request: Request, sampling: Sampling, target: TextIO) -> int:
    tokens = 0
    for piece in stream(llama.model, llama.tokenizer, [request.ids], sampling):
        tokens += 1
        target.write(piece.text)
        target.flush()
    target.write("\n")
    return tokens


def _in_batches(
    llama: puna.Llama,
    requests: list[Request],
    sampling: Sampling,
    batch: int,
    output: Output,
    target: TextIO,
) -> int:
    tokens = 0
    with _progress(output.quiet) as progress:
        task = progress.add_task("prompts", total=len(requests), rate="")
        began = time.perf_counter()
        for first in range(0, len(requests), batch):
            part = requests[first : first + batch]
            rows = [request.ids for request in part]
            done = complete(llama.model, llama.tokenizer, rows, sampling, first_stream=first)
            for request, generation in zip(part, done, strict=True):
                tokens += len(generation.ids)
                target.write(_format(request, generation, llama, output.jsonl))
            target.flush()
            rate = tokens / (time.perf_counter() - began)
            progress.update(task, advance=len(part), rate=f"{rate:.0f} tokens/s")
    return tokens


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
                "token": llama.tokenizer.id_to_token(id_),
                "logprob": value,
                "top": [[llama.tokenizer.id_to_token(i), v] for i, v in top],
            }
            for id_, value, top in zip(
                generation.ids, generation.logprobs, generation.top_logprobs, strict=True
            )
        ]
    return json.dumps(row, ensure_ascii=False) + "\n"


def _progress(quiet: bool) -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    hidden = quiet or not console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=hidden)


def _note(text: str) -> None:
    print(text, file=sys.stderr)
