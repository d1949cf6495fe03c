"""What the documents say can be done: commands, make targets and links are all there."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from typing import Any

import pytest

from house.documents import Page, link_fault, make_targets, pages

READMES = ("README.md", "README.zh-CN.md")


def planted(text: str) -> Page:
    return Page("planted.md", text)


@pytest.fixture(scope="module")
def app() -> Any:
    if importlib.util.find_spec("puna.cli") is None:
        pytest.fail("src/puna/cli.py is not there yet: no command of the README can exist")
    from puna.cli import app

    return app


def command_fault(app: Any, words: list[str]) -> str | None:
    """Why the command line does not take these words, if it does not."""
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is not None and verb not in list(app):
        return f"puna has no command {verb!r}"
    try:
        app.parse_args(words, print_error=False, exit_on_error=False)
    except Exception as error:
        return f"puna {shlex.join(words)}: {type(error).__name__}: {error}"
    return None


def test_both_readmes_are_there_and_say_something() -> None:
    found = {page.path: page for page in pages()}
    for name in READMES:
        assert name in found, f"{name} is missing"
        assert len(found[name].text) > 1000, f"{name} is hardly begun"
        assert list(found[name].commands("puna")), f"{name} shows no puna command"
        assert list(found[name].commands("make")), f"{name} shows no make command"


def test_every_puna_command_exists(app: Any) -> None:
    faults = []
    for page in pages():
        for found in page.commands("puna"):
            fault = command_fault(app, shlex.split(found.text))
            faults += [f"{found.where}: {fault}"] if fault else []
        for found in page.spans("puna"):
            verb = re.match(r"[a-z][a-z-]*", found.text)
            if verb and verb[0] not in list(app):
                faults.append(f"{found.where}: puna has no command {verb[0]!r}")
    assert not faults, "\n".join(faults)


def test_the_makefile_calls_puna_as_it_is(app: Any) -> None:
    text = Page("Makefile", f"```sh\n{_recipes()}\n```")
    calls = list(text.commands("puna"))
    assert calls, "the Makefile calls no puna command: this test looks in the wrong place"
    faults = [command_fault(app, shlex.split(call.text)) for call in calls]
    assert not any(faults), "\n".join(fault for fault in faults if fault)


def _recipes() -> str:
    from house.source import REPOSITORY

    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    lines = [line[1:].lstrip("@-") for line in text.splitlines() if line.startswith("\t")]
    return re.sub(r"\$\((\w+)\)", lambda m: "" if m[1] == "ARGS" else m[1], "\n".join(lines))


def test_a_wrong_command_is_seen(app: Any) -> None:
    assert command_fault(app, ["frobnicate"]) == "puna has no command 'frobnicate'"
    assert command_fault(app, ["generate", "--no-such-flag", "x"]) is not None


def test_every_make_target_exists() -> None:
    targets = make_targets()
    assert {"help", "quickstart", "test", "lint", "bench", "format", "clean"} <= targets
    faults = []
    for page in pages():
        for found in (*page.commands("make"), *page.spans("make")):
            word = next((w for w in shlex.split(found.text) if "=" not in w), "help")
            if re.fullmatch(r"[a-z][\w-]*", word) and word not in targets:
                faults.append(f"{found.where}: there is no `make {word}`")
    assert not faults, "\n".join(faults)


def test_every_link_inside_the_repository_resolves() -> None:
    faults = [
        f"{found.where}: {fault}"
        for page in pages()
        for found in page.links()
        if (fault := link_fault(page, found.text))
    ]
    assert not faults, "\n".join(faults)


def test_every_python_block_parses() -> None:
    for page in pages():
        for block in page.blocks("python", "py"):
            try:
                ast.parse(block.text)
            except SyntaxError as error:
                pytest.fail(f"{block.where}: this Python does not parse: {error}")


def test_commands_are_read_out_of_shell_blocks() -> None:
    page = planted(
        "```sh\n"
        "$ HF_HUB_OFFLINE=1 puna generate \\\n    --model 'a b'  # said\n"
        "cat x | .venv/bin/puna score - > out 2>&1 && puna show out\n"
        "puna chat < questions\n"
        "it's no command\n"
        "```\n"
        "```python\npuna generate\n```\n"
        "`puna convert IN OUT --to hf|meta`, `punab x`\n"
    )
    assert [found.text for found in page.commands("puna")] == [
        "generate --model 'a b'",
        "score -",
        "show out",
        "chat",
    ]
    assert [found.text for found in page.spans("puna")] == ["convert IN OUT --to hf|meta"]
    assert page.blocks("sh").__next__().where == "planted.md:2"


def test_links_that_lead_nowhere_are_seen() -> None:
    page = Page(
        "docs/planted.md",
        "# A title, here\n[a](none.md) [b](#a-title-here) [c](#none) [d](https://x.org/y)\n"
        '[e](../README.md) [f](../../README.md) <img src="none.png">\n```\n[g](h.md)\n```\n',
    )
    faults = [link_fault(page, found.text) for found in page.links()]
    assert [fault for fault in faults if fault] == [
        "links to none.md, which is not there",
        "links to #none, but no heading has that anchor",
        "links to ../../README.md, which is not there",
        "links to none.png, which is not there",
    ]
