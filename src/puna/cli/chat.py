"""`puna chat`: a conversation in the terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from puna.api import Conversation
from puna.artifact import writing_file
from puna.cli.options import ModelOptions, compiling
from puna.errors import InputError
from puna.generate import Sampling

HELP = """\
/reset         forget the conversation
/system TEXT   set the system message, and forget the conversation
/save FILE     write the conversation as one JSON line, ready for tuning
/undo          take back the last question and its answer
/help          this list
/exit          leave (so does Ctrl-D)
Ctrl-C stops an answer, and not the program."""


@dataclass(frozen=True)
class Chatty(Sampling):
    """Sampling with the defaults of a conversation."""

    max_tokens: int = 512
    """New tokens of an answer at most."""
    temperature: float = 0.7
    """0 is greedy; 1 is the model's own distribution."""
    top_p: float = 0.9
    """Keep the likeliest tokens that reach this probability together."""


@dataclass
class State:
    """The conversation so far."""

    system: str | None
    messages: list[dict[str, str]] = field(default_factory=list)

    def all(self) -> list[dict[str, str]]:
        """The messages that the model sees."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        return [*first, *self.messages]


def chat(
    *,
    system: str | None = None,
    quiet: bool = False,
    model: Annotated[ModelOptions, Parameter(name="*")] = ModelOptions(),  # noqa: B008
    sampling: Annotated[Chatty, Parameter(name="*", negative_iterable=())] = Chatty(),
) -> None:
    """Talk to a model. /help lists what can be typed; Ctrl-C stops an answer, Ctrl-D leaves.

    Args:
        system: System message; the chat template's own by default.
        quiet: Print answers only.
    """
    if sys.stdin is None:
        raise InputError("is closed: nobody can be heard", where="standard input")
    if sampling.logprobs >= 0:
        raise InputError("a conversation shows no --logprobs", fix="puna generate --jsonl")
    llama = model.load()
    if llama.chat_template is None:
        llama.encode_chat([])  # says what to do
    if not quiet:
        compiling(llama)
        print(f"{llama.describe()}. /help lists commands.\n")
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - its import gives input() history and editing
    _converse(Conversation(llama), State(system), sampling, quiet)


def _converse(conversation: Conversation, state: State, sampling: Sampling, quiet: bool) -> None:
    prompt = "" if quiet or not sys.stdin.isatty() else "you> "
    while True:
        try:
            line = input(prompt).strip()
        except UnicodeDecodeError as error:
            raise InputError(f"is not UTF-8: {error.reason}", where="standard input") from error
        except EOFError:
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /exit leaves)")
            continue
        if line == "/exit":
            return
        try:
            if line.startswith("/"):
                print(_command(line, state))
            elif line:
                _turn(conversation, state, line, sampling)
        except InputError as error:
            print(f"puna: {error}", file=sys.stderr)
        except KeyboardInterrupt:  # came as the answer ended
            print()


def _turn(conversation: Conversation, state: State, line: str, sampling: Sampling) -> None:
    question = {"role": "user", "content": line}
    answer = ""
    try:
        for text in conversation.answer([*state.all(), question], sampling):
            answer += text
            print(text, end="", flush=True)
        if conversation.finish == "length" and sys.stdin.isatty():
            print(
                f" (cut: --max-tokens {sampling.max_tokens})", end="", file=sys.stderr, flush=True
            )
    except KeyboardInterrupt:
        print(" (stopped)", end="")
    state.messages += [question, {"role": "assistant", "content": answer}]
    print("\n")


def _command(line: str, state: State) -> str:
    name, _, argument = line.partition(" ")
    name = name.lower()
    argument = argument.strip()
    if name == "/help":
        return HELP
    if name == "/reset":
        state.messages.clear()
        return "(forgotten)"
    if name == "/system":
        state.system = argument or None
        state.messages.clear()
        return "(new system message, conversation forgotten)"
    if name == "/undo":
        if not state.messages:
            return "(nothing to undo)"
        del state.messages[-2:]
        return "(last question and answer taken back)"
    if name == "/save":
        if not argument:
            raise InputError("/save needs a file name", fix="/save talk.jsonl")
        return _save(Path(argument).expanduser(), state)
    raise InputError(f"there is no command {name}", fix="/help lists them")


def _save(path: Path, state: State) -> str:
    if not state.messages:
        raise InputError("there is nothing to save yet")
    if path.exists():
        raise InputError("already exists", where=path, fix="choose another name")
    with writing_file(path) as temporary:
        row = json.dumps({"messages": state.all()}, ensure_ascii=False)
        temporary.write_text(row + "\n", encoding="utf-8")
    return f"(saved {len(state.messages)} messages to {path})"
