from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.config import from_dict
from puna.errors import InputError
from puna.records import Wording

PAIR = {"source": "one", "target": "eins"}


def said(wording: Wording, fields: dict[str, str] = PAIR) -> list[tuple[str, str]]:
    return [(t["role"], t["content"]) for t in wording.messages(fields, "parallel")]


def test_defaults_are_the_texts_themselves() -> None:
    assert said(Wording()) == [("user", "one"), ("assistant", "eins")]
    assert [dict(turn) for turn in Wording().ask("{x}")] == [{"role": "user", "content": "{x}"}]


def test_use_is_worded_as_training_was() -> None:
    wording = Wording(prompt="{{de}}: {source}?", system="Be exact")
    asked = wording.ask("one")
    assert asked == wording.messages(PAIR, "parallel")[:-1]
    assert asked[-1]["content"] == "{de}: one?"


def test_what_is_filled_in_is_never_read_as_a_text_with_fields() -> None:
    assert said(Wording(prompt="{source}"), {**PAIR, "source": "{target}"})[0][1] == "{target}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{source.__class__}x}", "has '}' at column 20"),
        ("{source!r}", "has '{source!r}' at column 1, which names no field"),
        ("{source:>99999999}", "names no field"),
        ("{source[0]}", "names no field"),
        ("a {}", "has '{}' at column 3"),
        ("a { b", r"write {field} for a field, and {{ or }} for a brace"),
    ],
)
def test_only_plain_names(text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        Wording(prompt=text)
    assert told in str(caught.value)


def test_a_dotted_name_is_a_column_and_reaches_into_nothing() -> None:
    with pytest.raises(InputError, match=r"the field 'source\.__class__', which the data"):
        said(Wording(prompt="{source.__class__}"))


def test_errors_of_a_recipe_name_its_key() -> None:
    with pytest.raises(InputError, match=r"prompt has '\{' at column 1"):
        from_dict(Wording, {"prompt": "{"})
    with pytest.raises(InputError, match="answer names no field"):
        Wording(answer="yes")
    with pytest.raises(InputError, match="prompt is empty, so that nothing would be asked"):
        Wording(prompt=" ")
    with pytest.raises(InputError, match="the shape 'text' has no prompt and answer"):
        Wording().messages({}, "text")


@pytest.mark.parametrize(
    ("wording", "told"),
    [
        (Wording(prompt="{a} {b}"), "has 2 fields (a, b), and one text"),
        (Wording(prompt="fixed"), "has 0 fields (none)"),
        (Wording(system="{topic}"), "system names the field 'topic'"),
    ],
)
def test_what_cannot_be_asked(wording: Wording, told: str) -> None:
    with pytest.raises(InputError) as caught:
        wording.ask("x")
    assert told in str(caught.value)


def test_one_field_may_stand_in_several_places() -> None:
    assert Wording(prompt="{x}, {x}!").ask("Hi")[-1]["content"] == "Hi, Hi!"


@given(st.text(), st.text())
def test_any_text_is_a_wording_or_an_error(text: str, value: str) -> None:
    escaped = text.replace("{", "{{").replace("}", "}}")
    assert Wording(prompt=escaped + "{x}").ask(value)[-1]["content"] == text + value
    try:
        wording = Wording(prompt=text)
    except InputError:
        return
    names = wording.fields(text)
    filled = wording.messages({**dict.fromkeys(names, value), **PAIR}, "parallel")
    assert filled[0]["role"] == "user"
