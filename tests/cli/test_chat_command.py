"""`puna chat`: a conversation through a pipe, and one at a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import puna as package
from puna.generate import Sampling

Call = Callable[..., object]
GREEDY = ("--max-tokens", "8", "--temperature", "0")


@pytest.fixture(scope="module")
def llama(tiny_folder: Path) -> package.Llama:
    return package.load(str(tiny_folder))


@pytest.fixture
def talk(puna: Call, tiny_folder: Path) -> Call:
    """Type lines into a quiet chat; returns what it did."""

    def call(*lines: str, options: tuple[str, ...] = GREEDY) -> object:
        typed = "".join(f"{line}\n" for line in lines).encode()
        return puna("chat", "--model", tiny_folder, "--quiet", *options, stdin=typed)

    return call


def played(llama: package.Llama, *turns: str, system: str | None = None) -> list[dict[str, str]]:
    """The messages after these turns, answered one by one without a cache."""
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        answer = llama.chat(messages, Sampling(max_tokens=8)).text
        messages.append({"role": "assistant", "content": answer})
    return messages


def answers(messages: list[dict[str, str]]) -> str:
    said = [m["content"] for m in messages if m["role"] == "assistant"]
    return "".join(f"{text}\n\n" for text in said)


def test_a_conversation(talk: Call, llama: package.Llama) -> None:
    ran = talk("Once", "", "  where is the sea?  ")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == answers(played(llama, "Once", "where is the sea?"))


def test_a_banner_unless_quiet(puna: Call, tiny_folder: Path) -> None:
    ran = puna("chat", "--model", tiny_folder, stdin=b"")
    assert re.fullmatch(
        r".* parameters, .* ready in \d+\.\d\d s\. /help lists commands\.\n\n", ran.out
    )


def test_a_system_message(talk: Call, llama: package.Llama) -> None:
    ran = talk("Once", options=(*GREEDY, "--system", "Be brief."))
    assert ran.out == answers(played(llama, "Once", system="Be brief."))


def test_help_lists_every_command(talk: Call) -> None:
    ran = talk("/help")
    for name in ("/reset", "/system", "/save", "/undo", "/help", "/exit", "Ctrl-C", "Ctrl-D"):
        assert name in ran.out


def test_reset_undo_and_system(talk: Call, llama: package.Llama, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.jsonl" for name in ("reset", "undo", "system")]
    ran = talk(
        "/undo",
        "Once",
        "/reset",
        "the sea",
        f"/save {files[0]}",
        "there was",
        "/undo",
        f"/save {files[1]}",
        "/system  Be brief. ",
        "a llama",
        f"/save {files[2]}",
        "/system",
        "/exit",
        "never read",
    )
    expected = [
        played(llama, "the sea"),
        played(llama, "the sea"),
        played(llama, "a llama", system="Be brief."),
    ]
    for file, messages in zip(files, expected, strict=True):
        assert json.loads(file.read_text()) == {"messages": messages}
        assert file.read_text().count("\n") == 1
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "".join(
        [
            "(nothing to undo)\n",
            answers(played(llama, "Once")),
            "(forgotten)\n",
            answers(played(llama, "the sea")),
            f"(saved 2 messages to {files[0]})\n",
            answers(played(llama, "the sea", "there was")[2:]),
            "(last question and answer taken back)\n",
            f"(saved 2 messages to {files[1]})\n",
            "(new system message, conversation forgotten)\n",
            answers(played(llama, "a llama", system="Be brief.")),
            f"(saved 2 messages to {files[2]})\n",
            "(new system message, conversation forgotten)\n",
        ]
    )


def test_what_was_saved_is_a_prompt_of_generate(
    talk: Call, puna: Call, tiny_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "talk.jsonl"
    talk("Once", f"/save {path}")
    assert puna("generate", "--model", tiny_folder, "--max-tokens", "1", "--file", path).code == 0


def test_mistakes_do_not_end_the_conversation(
    talk: Call, llama: package.Llama, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    ran = talk("/save x", "/frobnicate", "x" * 70_000, "Once", "/save", f"/save {there}")
    assert ran.code == 0
    assert ran.out == answers(played(llama, "Once"))
    for message in (
        "puna: there is nothing to save yet",
        "puna: there is no command /frobnicate\n  fix: /help lists them",
        "the model's context is 65536\n  fix: shorten the prompt",
        "puna: /save needs a file name\n  fix: /save talk.jsonl",
        f"puna: {there}: already exists\n  fix: choose another name",
    ):
        assert message in ran.err
    assert there.read_text() == "mine"


def test_one_option_does_not_change_the_others(talk: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sampling] = []
    monkeypatch.setattr("puna.cli.chat._converse", lambda *arguments: seen.append(arguments[2]))
    for options in ((), ("--seed", "3"), ("--temperature", "0")):
        talk(options=options)
    chosen = [(s.max_tokens, s.temperature, s.top_p, s.seed) for s in seen]
    assert chosen == [(512, 0.7, 0.9, 0), (512, 0.7, 0.9, 3), (512, 0.0, 0.9, 0)]


def test_what_a_conversation_cannot_do(
    puna: Call, talk: Call, tiny_folder: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in tiny_folder.iterdir():
        if file.name != "tokenizer_config.json":
            os.link(file, plain / file.name)
    ran = puna("chat", "--model", plain)
    assert ran.code == 2
    assert f"{plain} has no chat template: it continues text and does not converse" in ran.err
    assert "fix: name one, of llama2, llama3, chatml" in ran.err
    assert talk(options=("--logprobs", "1")).code == 2
    ran = puna("chat", "--model", tiny_folder, stdin=b"f\xfcr\n")
    assert ran.code == 2
    assert "puna: standard input: is not UTF-8" in ran.err


# --- at a terminal ----------------------------------------------------------------------------


class Terminal:
    """A program at a pseudo-terminal."""

    def __init__(self, *arguments: str | Path) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-m", "puna", *map(str, arguments)]
        self.child = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb"},
        )
        os.close(slave)

    def type(self, line: str) -> None:
        """Type a line, or a control character."""
        os.write(self._master, line.encode())

    def read_until(self, pattern: str, seconds: float = 60) -> str:
        """What is shown until `pattern` matches."""
        text, end = "", time.monotonic() + seconds
        while not re.search(pattern, text):
            ready, _, _ = select.select([self._master], [], [], max(0, end - time.monotonic()))
            assert ready, f"{pattern!r} did not come; so far: {text[-500:]!r}"
            try:
                text += os.read(self._master, 65536).decode("utf-8", "replace")
            except OSError as error:
                raise AssertionError(f"the program ended; it said: {text[-500:]!r}") from error
        return text

    def close(self) -> None:
        """End the program, if it has not ended."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self._master)


@pytest.fixture
def terminal(tiny_folder: Path) -> Iterator[Terminal]:
    long = ("--max-tokens", "60000", "--temperature", "0", "--ignore-eos")
    opened = Terminal("chat", "--model", tiny_folder, *long)
    yield opened
    opened.close()


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    terminal.read_until("you> ")
    for question in ("Once upon a time", "where is the sea?"):
        terminal.type(f"{question}\n")
        terminal.read_until(r"(?s)\n.{20}")  # the echo of the question, then the answer
        os.kill(terminal.child.pid, signal.SIGINT)
        terminal.read_until(r"(?s)\(stopped\).*you> ")
    time.sleep(0.5)  # a signal between showing the prompt and waiting for a key is seen at the key
    os.kill(terminal.child.pid, signal.SIGINT)
    terminal.read_until(r"(?s)\(Ctrl-D or /exit leaves\).*you> ")
    terminal.type(f"/save {path}\n")
    terminal.read_until(r"(?s)saved 4 messages.*you> ")
    terminal.type("\x04")  # Ctrl-D
    assert terminal.child.wait(60) == 0
    messages = json.loads(path.read_text())["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert all(len(message["content"]) >= 10 for message in messages)
