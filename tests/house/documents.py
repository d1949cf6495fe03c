"""Reads the repository's Markdown: commands, make targets and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from house.source import REPOSITORY

_FENCE = re.compile(r"^ *```+ *(\w*)[^\n]*\n(.*?)^ *```+ *$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)(?: \"[^\"]*\")?\)|(?:href|src)=\"([^\"]+)\"")
_SHELLS = ("", "sh", "bash", "shell", "console", "zsh", "text")
_ENDS = ("|", "||", "&&", ";", "&", "(", ")")


@dataclass(frozen=True)
class Found:
    """Something that a document says, and where."""

    where: str  # file:line
    text: str


@dataclass(frozen=True)
class Page:
    """One Markdown file: `path` relative to the repository."""

    path: str
    text: str

    def where(self, offset: int) -> str:
        return f"{self.path}:{self.text.count(chr(10), 0, offset) + 1}"

    def blocks(self, *languages: str) -> Iterator[Found]:
        """Fenced code blocks in one of the languages; "" is a fence that names none."""
        for match in _FENCE.finditer(self.text):
            if match[1] in languages:
                yield Found(self.where(match.start(2)), match[2])

    def commands(self, program: str) -> Iterator[Found]:
        """The argument lists (shell-quoted) of every call of `program` in shell blocks."""
        for block in self.blocks(*_SHELLS):
            joined = re.sub(r"\\\n\s*", " ", block.text)
            for line in joined.splitlines():
                for words in _split(line):
                    if Path(words[0]).name == program:
                        yield Found(block.where, shlex.join(words[1:]))

    def spans(self, program: str) -> Iterator[Found]:
        """Inline code such as `puna convert IN OUT`: what follows the program's name."""
        prose = _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), self.text)
        for match in _SPAN.finditer(prose):
            if match[1].startswith(program + " "):
                line = prose.count("\n", 0, match.start()) + 1
                yield Found(f"{self.path}:{line}", match[1].removeprefix(program).strip())

    def links(self) -> Iterator[Found]:
        """Targets of links and images, as written."""
        prose = _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), self.text)
        for match in _LINK.finditer(prose):
            line = prose.count("\n", 0, match.start()) + 1
            yield Found(f"{self.path}:{line}", match[1] or match[2])

    def anchors(self) -> set[str]:
        """The anchors that its headings get."""
        prose = _FENCE.sub("", self.text)
        titles = re.findall(r"^#+ +(.+?) *$", prose, flags=re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def pages() -> list[Page]:
    """The Markdown of the repository: its root, docs/ and bench/."""
    paths = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
    paths += sorted(REPOSITORY.glob("bench/**/*.md"))
    return [
        Page(path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8"))
        for path in paths
    ]


def make_targets() -> set[str]:
    """The phony targets of the Makefile: those that people call."""
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return {name for line in re.findall(r"^\.PHONY:(.*)$", text, re.M) for name in line.split()}


def link_fault(page: Page, target: str) -> str | None:
    """What is wrong with a link inside the repository, if anything is."""
    if re.match(r"[a-z][a-z0-9+.-]*:", target):
        return None
    name, _, anchor = target.partition("#")
    place = (REPOSITORY / page.path).parent / name if name else REPOSITORY / page.path
    if name and not place.exists():
        return f"links to {target}, which is not there"
    if not place.resolve().is_relative_to(REPOSITORY):
        return f"links to {target}, outside the repository"
    if anchor and place.suffix == ".md":
        text = page.text if not name else place.read_text(encoding="utf-8")
        if anchor not in Page(target, text).anchors():
            return f"links to {target}, but no heading has that anchor"
    return None


def _split(line: str) -> Iterator[list[str]]:
    """The simple commands of a shell line, without prompts, variables and redirections."""
    lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe in what a program printed: no command
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word in _ENDS:
            yield from [_bare(command)] if _bare(command) else []
            command = []
        else:
            command.append(word)


def _bare(words: list[str]) -> list[str]:
    while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
        words = words[1:]
    for position, word in enumerate(words):
        if re.fullmatch(r"[<>]+&?", word):
            return words[: position - 1] if words[position - 1].isdecimal() else words[:position]
    return words
