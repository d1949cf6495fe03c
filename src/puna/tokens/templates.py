"""Chat templates: jinja2 in a sandbox, in the same environment as transformers gives them.

A template comes with a checkpoint, from anyone. It cannot reach Python (the sandbox), its loops
and calls are counted, the size of each value that it makes is bounded (`template_bounds`), and what
goes wrong in it is an `InputError` with the line. The bounds are on single values: many values of
the permitted size together may still take gigabytes, so they are no substitute for a memory limit
on a public server.

Source: transformers, utils/chat_template_utils.py.
"""

from __future__ import annotations

import datetime
import importlib.resources
import json
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from puna.errors import InputError
from puna.tokens.template_bounds import (
    MAX_CHARS,
    TooMuchError,
    bounded_filters,
    bounded_format,
    check_percent,
    check_size,
    checked_arguments,
)

MAX_STEPS = 1_000_000  # steps of loops, and calls, of one rendering together
CALL_STEPS = 10  # a call counts as so many steps, for it takes that much longer

Message = Mapping[str, Any]


class ChatTemplate:
    """One template, compiled once. Rendering is safe from several threads."""

    def __init__(self, source: str, *, where: Path | str = "chat template"):
        """Compile a template.

        Raises:
            InputError: It is not valid jinja2; the message has the line.
        """
        self.source, self.where = source, where
        self._environment = _Environment()
        self._lock = threading.Lock()  # the environment counts the steps of one rendering
        try:
            self._template = self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(
                f"line {error.lineno} of the chat template: {error.message}", where=where
            ) from error
        except RecursionError as error:
            raise InputError("the chat template is nested too deeply", where=where) from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None,
        tokens: Mapping[str, str],
    ) -> str:
        """Render a conversation.

        Args:
            messages: Objects with `role` and `content`, oldest first.
            add_generation_prompt: End with the beginning of the assistant's answer.
            tools: JSON schemas of functions, for templates that know tools.
            tokens: `bos_token`, `eos_token` ... as the template may name them.

        Raises:
            InputError: The template refused the messages, failed, or exceeded its bounds.
        """
        variables = {
            **tokens,
            "messages": list(messages),
            "tools": None if tools is None else list(tools),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        with self._lock:
            self._environment.steps_left = MAX_STEPS
            try:
                return self._bounded(self._template.generate(variables))
            except Exception as error:  # whatever a template's expressions may raise
                raise self._failure(error) from error

    def _bounded(self, parts: Iterator[str]) -> str:
        text: list[str] = []
        size = 0
        for part in parts:
            size += len(part)
            if size > MAX_CHARS:
                raise TooMuchError(f"writes more than {MAX_CHARS} characters")
            text.append(part)
        return "".join(text)

    def _failure(self, error: Exception) -> InputError:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
        place = f"line {lines[-1]} of the chat template" if lines else "the chat template"
        reason = str(error) or type(error).__name__
        if isinstance(error, RecursionError):
            reason = "calls itself without end"
        return InputError(f"{place}: {reason}", where=self.where)


class _Generation(Extension):
    """`{% generation %}`, which marks the assistant's words for training; here it only groups."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Bounds(NodeTransformer):
    """Sends every loop and every `~` through the environment, which counts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _call("counted", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("joined", nodes.List(node.nodes, lineno=node.lineno))


def _call(name: str, argument: nodes.Node) -> nodes.Call:
    line = argument.lineno
    function = nodes.EnvironmentAttribute(name, lineno=line)
    return nodes.Call(function, [argument], [], None, None, lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    """transformers' environment, with bounds on what a template may use up."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        self.steps_left = MAX_STEPS
        self.filters |= bounded_filters()
        self.filters["tojson"] = _tojson
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        del self.globals["lipsum"]  # a generator of text; no template has a use for it

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        _Bounds().visit(template)
        return template

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items of a loop, each taken from the steps that this rendering has."""
        for item in items:
            self.steps_left -= 1
            if self.steps_left < 0:
                raise TooMuchError(f"its loops and calls take more than {MAX_STEPS} steps")
            yield item

    def joined(self, parts: list[Any]) -> str:
        """What `~` does: the parts as one text."""
        texts = [str(part) for part in parts]
        check_size(sum(map(len, texts)))
        return "".join(texts)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call by the template: counted, since macros may call one another, and measured."""
        __self.steps_left -= CALL_STEPS
        if __self.steps_left < 0:
            raise TooMuchError(f"its loops and calls take more than {MAX_STEPS} steps")
        checked = checked_arguments(__obj, args, kwargs)
        return super().call(__context, __obj, *checked, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, as the sandbox allows it and no larger than the bounds do."""
        inner = super().wrap_str_format(value)
        return None if inner is None else bounded_format(value.__self__, inner, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Sums and products whose result would be too large are refused before they are made."""
        sizes = [len(v) for v in (left, right) if isinstance(v, str | bytes | list | tuple)]
        numbers = [value for value in (left, right) if isinstance(value, int)]
        if operator == "+" and sizes:
            check_size(sum(sizes))
        elif operator == "*" and sizes and numbers:
            check_size(sizes[0] * numbers[0])
        elif operator == "*" and len(numbers) == 2:
            check_size(sum(number.bit_length() for number in numbers))
        elif operator == "**" and len(numbers) == 2:
            check_size(numbers[0].bit_length() * max(numbers[1], 0))
        elif operator == "%":
            check_percent(left, right)
        return super().call_binop(context, operator, left, right)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers' templates expect it: no escapes for HTML."""
    if max(indent if isinstance(indent, int) else 0, len(str(indent)), len(str(separators))) > 100:
        raise TooMuchError("indents or separates JSON by more than 100 characters")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


class _BuiltinTemplates(Mapping[str, str]):
    """Templates by name, read from the package when asked for."""

    _NAMES = ("llama2", "llama3", "chatml", "mistral", "alpaca", "vicuna")

    def __getitem__(self, name: str) -> str:
        if name not in self._NAMES:
            raise KeyError(name)
        folder = importlib.resources.files("puna.tokens") / "chat_templates"
        return (folder / f"{name}.jinja").read_text(encoding="utf-8")

    def __iter__(self) -> Iterator[str]:
        return iter(self._NAMES)

    def __len__(self) -> int:
        return len(self._NAMES)


BUILTIN_TEMPLATES: Mapping[str, str] = _BuiltinTemplates()
"""The chat formats of well-known models, for checkpoints that bring no template."""
