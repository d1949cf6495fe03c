"""Templates that make much of little: refused before the memory is asked for."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from puna.errors import InputError
from puna.tokens import ChatTemplate

MESSAGES = [{"role": "user", "content": "a\tb"}, {"role": "assistant", "content": "c"}]
BIG = "{% set big = 'a' * 9999999 %}"
TOO_LARGE = "makes a value of more than 16000000 characters"


def render(source: str) -> str:
    template = ChatTemplate(source, where="model")
    return template.render(MESSAGES, add_generation_prompt=True, tools=None, tokens={})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        *(
            (f"{{{{ 'a'.{name}(10**11) }}}}", TOO_LARGE)
            for name in ("ljust", "rjust", "center", "zfill")
        ),
        ("{{ 'a'.ljust(width=10**11) }}", TOO_LARGE + "|no keyword"),
        ("{{ '\t'.expandtabs(10**11) }}", TOO_LARGE),
        (BIG + "{{ big.replace('a', 'bbb') }}", TOO_LARGE),
        (BIG + "{{ big.replace('', 'bbb') }}", TOO_LARGE),
        (BIG + "{{ big | replace('a', 'bbb') }}", TOO_LARGE),
        (BIG + "{{ [big] | map('replace', 'a', 'bbb') | list }}", TOO_LARGE),
        (BIG + "{{ big.translate({97: 'bbb'}) }}", TOO_LARGE),
        (BIG + "{{ big.join('abc') }}", TOO_LARGE),
        (BIG + "{{ ''.join([big, big]) }}", TOO_LARGE),
        (BIG + "{{ [big, big] | join }}", TOO_LARGE),
        (BIG + "{{ [1, 2, 3] | join(big) }}", TOO_LARGE),
        (BIG + "{{ '{0}{0}'.format(big) }}", TOO_LARGE),
        (BIG + "{{ '{a}{a}'.format(a=big) }}", TOO_LARGE),
        (BIG + "{{ '{a}{a}'.format_map({'a': big}) }}", TOO_LARGE),
        (BIG + "{{ '%s%s' % (big, big) }}", TOO_LARGE),
        (BIG + "{{ '%(a)s%(a)s' % {'a': big} }}", TOO_LARGE),
        (BIG + "{{ '%s%s' | format(big, big) }}", TOO_LARGE),
        (BIG + "{{ big | wordwrap(1, wrapstring='   ') }}", TOO_LARGE),
        ("{{ '{:99999999999}'.format('a') }}", "pads text to more than 9999 characters"),
        ("{{ '{:{}}'.format('a', 10**11) }}", "pads text to more than 9999 characters"),
        ("{{ '%99999999999s' | format('a') }}", "pads text to more than 9999 characters"),
        ("{{ '%(a)99999999999s' % {'a': 1} }}", "pads text to more than 9999 characters"),
        ("{{ '%((a))99999999999s' % {'(a)': 1} }}", "pads text to more than 9999 characters"),
        ("{{ '%*d' % (99999999999, 1) }}", "pads text to more than 9999 characters"),
        ("{{ '%.99999999999f' % 1.0 }}", "pads text to more than 9999 characters"),
        ("{{ 'a' | center(10**11) }}", TOO_LARGE),
        ("{{ 'a\nb' | indent(10**11) }}", TOO_LARGE),
        ("{{ [1] | batch(10**11, 0) | list }}", TOO_LARGE),
        ("{{ [1] | slice(10**11) | list }}", TOO_LARGE),
        ("{{ [[1] * 9999999] * 2 | sum(start=[]) }}", TOO_LARGE + "|unsupported|iterable"),
        ("{{ ([[1] * 9999999] * 2) | sum(start=[]) }}", TOO_LARGE),
        ("{{ messages | tojson(indent=10**11) }}", "indents or separates JSON by more than 100"),
        ("{{ 'a'.encode() * 10**11 }}", TOO_LARGE),
        ("{{ (1).to_bytes(10**11, 'big') }}", TOO_LARGE),
    ],
)
def test_growth_is_refused_before_it_happens(source: str, message: str):
    started = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            render(source)
        assert tracemalloc.get_traced_memory()[1] < 400e6
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ ', '.join(messages | map(attribute='role')) }}", "user, assistant"),
        ("{{ messages | map(attribute='role') | join('/') }}", "user/assistant"),
        ("{{ messages | join('/', attribute='role') }}", "user/assistant"),
        ("{{ '-'.join({'a': 1, 'b': 2}.keys()) }}{{ ''.join('ab') }}", "a-bab"),
        ("{{ 'abab'.replace('a', 'c') }}{{ 'abab'.replace('a', 'c', 1) }}", "cbcbcbab"),
        ("{{ 'abab' | replace('a', 'c') }}{{ 'abab' | replace('a', 'c', 1) }}", "cbcbcbab"),
        ("{{ 'a'.ljust(3) }}{{ 'a'.rjust(3, '.') }}{{ 'a'.center(3) }}|", "a  ..a a |"),
        ("{{ 'a' | center(3) }}|{{ 'a\nb' | indent(2) }}|{{ 'a\nb' | indent }}", None),
        ("{{ '{} {b:>4}'.format(1, b='x') }}{{ '{a}'.format_map({'a': 2}) }}", "1    x2"),
        ("{{ '%s %05d %(x)s' | string }}{{ '%s-%5.2f' % ('a', 1.5) }}", None),
        ("{{ '%s-%s' | format('a', 2) }}{{ '%(a)s' % {'a': 100000} }}", "a-2100000"),
        ("{{ [1, 2] | sum }}{{ [{'n': 1}] | sum(attribute='n', start=1) }}", None),
        ("{{ [1, 2, 3] | batch(2, 0) | list }}{{ [1, 2, 3] | slice(2) | list }}", None),
        ("{{ messages[0].content.expandtabs(4) }}{{ 'a b' | wordwrap(1) }}", "a   ba\nb"),
    ],
)
def test_what_is_small_is_made_as_ever(source: str, expected: str | None):
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    theirs = plain.from_string(source).render(messages=MESSAGES)
    assert render(source) == theirs
    assert expected is None or theirs == expected


def test_calls_are_counted():
    """Macros that call themselves twice double without any loop."""
    twice = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    with pytest.raises(InputError, match="its loops and calls take more than 1000000 steps"):
        render(twice + "{{ f(60) }}")
