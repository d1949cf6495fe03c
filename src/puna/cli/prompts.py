"""Prompts from the command line, a file or standard input."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from puna.errors import InputError

LineFormat = Literal["auto", "text", "jsonl"]
Prompt = str | list[dict[str, Any]]  # text, or the messages of a conversation


@dataclass(frozen=True)
class PromptSource:
    """Where prompts come from, beside the arguments, and what they are."""

    file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None
    """A prompt per line, or a JSON object with "prompt" or "messages"; - is standard input."""
    format: LineFormat = "auto"
    """Of the file's lines: text or jsonl; auto goes by the ending .jsonl."""
    chat: bool = False
    """Render each prompt as a user's turn by the model's chat template."""
    system: str | None = None
    """System message, with --chat."""
    plain: bool = False
    """Continue each prompt as it is, also where the model was tuned to be asked in other words."""


def read_prompts(prompts: Sequence[str], source: PromptSource) -> Iterator[Prompt]:
    """Prompts from arguments, then from a file; from standard input if there are neither.

    Raises:
        InputError: A line is not what it should be; the message names file, line and key.
    """
    yield from prompts
    if source.file is not None:
        yield from _read_file(source.file, source.format)
    elif not prompts:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("there is no prompt", fix='puna generate "Once upon a time"')
        text = _decode(sys.stdin.buffer.read(), Path("-"))
        if text.strip():
            yield text.removesuffix("\n").removesuffix("\r")


def _read_file(file: Path, kind: LineFormat) -> Iterator[Prompt]:
    try:
        raw = _standard_input() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=file) from error
    as_json = kind == "jsonl" or (kind == "auto" and file.suffix == ".jsonl")
    for number, line_text in enumerate(_decode(raw, file).split("\n"), 1):
        if not line_text.strip():
            continue
        if as_json:
            yield _parse_line(line_text, f"{file}, line {number}")
        else:
            yield line_text.removesuffix("\r")


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise InputError("is closed", where="standard input", fix="name a file with --file")
    return sys.stdin.buffer.read()


def _decode(raw: bytes, file: Path) -> str:
    raw = raw.removeprefix(codecs.BOM_UTF8)  # Windows writes it; it is no part of a prompt
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        where = "standard input" if str(file) == "-" else file
        raise InputError(f"is not UTF-8 in line {line}", where=where) from error


def _parse_line(line: str, where: str) -> Prompt:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"is not JSON: {error.msg} at column {error.colno}", where=where
        ) from error
    except RecursionError as error:
        raise InputError("is not usable JSON: nested too deeply", where=where) from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"is not usable JSON: {error}", where=where) from error
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
