from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.records import (
    SHAPES,
    Columns,
    Quarantine,
    Shape,
    Wording,
    choose_shape,
    recognise,
    shape_rows,
)
from records.reading import rows_of, shaped

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARE = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
SIX: list[tuple[Shape, dict[str, Any]]] = [
    ("prompt", {"prompt": "q", "completion": "a", "label": 1}),
    ("prompt", {"question": "q", "answer": "a"}),
    ("alpaca", {"instruction": "q", "input": "", "output": "a"}),
    ("sharegpt", {"conversations": SHARE}),
    ("messages", {"messages": CHAT, "prompt": "ignored"}),
    ("messages", {"conversations": CHAT}),
    ("parallel", {"source": "q", "target": "a", "context": ""}),
]


@pytest.mark.parametrize(("shape", "row"), SIX)
def test_shapes_are_recognised(shape: Shape, row: dict[str, Any]) -> None:
    found, why = recognise(rows_of(row), Columns())
    assert found == shape
    assert why.startswith(f"{shape}: column")
    (item,), quarantine = shaped(rows_of(row))
    assert [dict(turn) for turn in item.messages] == CHAT
    assert (item.source, item.text, item.shape) == ("q", None, shape)
    assert item.locator == "rows.jsonl:1"
    assert len(bytes.fromhex(item.id)) == 16
    assert quarantine.total == 0


def test_text_is_recognised_and_columns_that_are_not_used_are_told() -> None:
    rows = rows_of({"text": "One  Text", "url": "x", "root_id": 7})
    assert recognise(rows, Columns()) == ("text", "text: column 'text' (not used: 'url')")
    (item,), _ = shaped(rows)
    assert (item.text, item.messages, item.source) == ("One  Text", (), "one text")
    assert item.root_id == "7"
    _, why = recognise(rows_of({"text": "a\tb"}), Columns())
    assert "format: tsv, header: false" in why


@pytest.mark.parametrize(
    ("columns", "row", "shape"),
    [
        (Columns(source="en", target="de"), {"en": "q", "de": "a"}, "parallel"),
        (
            Columns(source="translation.en", target="translation.de"),
            {"translation": {"en": "q", "de": "a"}},
            "parallel",
        ),
        (Columns(prompt="source", completion="target"), {"source": "q", "target": "a"}, "prompt"),
        (Columns(completion="summary"), {"prompt": "q", "summary": "a"}, "prompt"),
        (Columns(messages="turns"), {"turns": CHAT}, "messages"),
        (Columns(messages="turns.all"), {"turns": {"all": SHARE}}, "sharegpt"),
        (Columns(prompt="x.0", completion="x.1"), {"x": ["q", "a"]}, "prompt"),
    ],
)
def test_named_columns_decide(columns: Columns, row: dict[str, Any], shape: Shape) -> None:
    (item,), _ = shaped(rows_of(row), columns=columns)
    assert item.shape == shape
    assert [dict(turn) for turn in item.messages] == CHAT


def test_a_recognised_shape_can_be_overridden() -> None:
    row = {"source": "q", "target": "a", "text": "whole"}
    (item,), _ = shaped(rows_of(row))
    assert item.shape == "parallel"
    (item,), _ = shaped(rows_of(row), shape="text")
    assert (item.shape, item.text) == ("text", "whole")
    (item,), _ = shaped(rows_of(row), columns=Columns(text="target"))
    assert (item.shape, item.text) == ("text", "a")
    chosen = choose_shape(rows_of(row), Columns(prompt="text", completion="target"), "prompt")
    assert chosen == ("prompt", "prompt, as asked: columns 'text', 'target'")


@pytest.mark.parametrize(
    ("shape", "columns", "row", "told"),
    [
        ("alpaca", Columns(), {"instrucion": "q", "output": "a"}, "no column 'instruction'"),
        ("alpaca", Columns(), {"instrucion": "q", "output": "a"}, "did you mean 'instrucion'?"),
        ("texts", Columns(), {"text": "a"}, "no shape 'texts'\n  fix: choose one of prompt"),
        (None, Columns(prompt="quest"), {"question": "q"}, "columns.prompt names 'quest'"),
        (None, Columns(prompt="quest"), {"question": "q"}, "fix: did you mean 'question'?"),
        (None, Columns(prompt="q"), {"q": "q", "z": "a"}, "no column 'completion'; there are 'q'"),
        (None, Columns(), {"en": "q", "de": "a"}, "columns.source: en, columns.target: de"),
        (None, Columns(), {"t": {"x": "q", "y": "a"}}, "columns.prompt: t.x, columns.compl"),
        (None, Columns(), {f"c{n}": 1 for n in range(50)}, "'c11' and 38 more\n  fix: say which"),
        (None, Columns(text="a", prompt="b"), {"a": "", "b": ""}, "columns are named for several"),
        (None, Columns(), {"prompt": "q", "chosen": "a", "rejected": "b"}, "are preferences"),
    ],
)
def test_wrong_guesses_are_told(
    shape: Shape | None, columns: Columns, row: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError) as caught:
        choose_shape(rows_of(row), columns, shape)
    assert told in str(caught.value)
    known = shape is None or shape in SHAPES
    if known and "several" not in told:
        assert str(caught.value).startswith("rows.jsonl:1: ")


def test_no_rows() -> None:
    with pytest.raises(InputError, match="there is no row to learn from"):
        choose_shape([], Columns())


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (SIX[0][1], {"prompt": "q"}, "has no column 'completion'"),
        (SIX[0][1], {"prompt": "q", "completion": None}, "has no column 'completion'"),
        (SIX[0][1], {"prompt": "q", "completion": 3}, "column 'completion' is not text"),
        (SIX[0][1], {"prompt": " ", "completion": "a"}, "column 'prompt' is empty"),
        (SIX[0][1], {"prompt": "q", "completion": "\n"}, "column 'completion' is empty"),
        (SIX[2][1], {"instruction": "q", "input": 1, "output": "a"}, "column 'input' is not text"),
        (
            SIX[2][1],
            {"instruction": "q", "output": "a", "history": [["x"]]},
            "has a history that is no list of question and answer",
        ),
        (SIX[3][1], {"conversations": "x"}, "column 'conversations' is no list of turns"),
        (SIX[3][1], {"conversations": SHARE[:1]}, "has no answer"),
        (SIX[3][1], {"conversations": []}, "has no answer"),
        (SIX[3][1], {"conversations": SHARE[1:]}, "begins with an answer: nothing is asked"),
        (SIX[3][1], {"conversations": [1]}, "has a turn that is no object"),
        (
            SIX[3][1],
            {"conversations": [{"from": "alien", "value": "x"}]},
            "has a turn of an unknown role",
        ),
        (SIX[4][1], {"messages": [*CHAT, CHAT[0], {**CHAT[1], "content": ""}]}, "an empty answer"),
        (SIX[4][1], {"messages": [{**CHAT[0], "content": " "}, CHAT[1]]}, "asks nothing"),
        (
            SIX[4][1],
            {"messages": [CHAT[0], {"role": "assistant", "content": None, "tool_calls": []}]},
            "has a turn whose content is not text",
        ),
        (
            SIX[4][1],
            {"messages": [CHAT[0], {**CHAT[1], "tool_calls": [{"name": "f"}]}]},
            "has a turn that calls tools outside of its text",
        ),
    ],
)
def test_rows_that_do_not_fit_are_set_aside(
    good: dict[str, Any], bad: dict[str, Any], reason: str
) -> None:
    items, quarantine = shaped(rows_of(good, bad))
    assert len(items) == 1
    ((found, count),) = quarantine.counts.items()
    assert reason in found
    assert count == 1
    assert quarantine.samples[0][0] == "rows.jsonl:2"


def test_where_nothing_fits_the_first_row_is_named() -> None:
    rows = rows_of({"prompt": "q", "completion": 3})
    with pytest.raises(InputError) as caught:
        shaped(rows)
    assert str(caught.value) == (
        "rows.jsonl:1: no row fits the shape 'prompt'; this one column 'completion' is not text "
        "(a number); columns: 'prompt', 'completion'\n  fix: set another shape (prompt, alpaca, "
        "sharegpt, messages, text, parallel), or name the columns"
    )


def test_alpaca_whole() -> None:
    row = {
        "instruction": "Add",
        "input": "1 2",
        "output": "3",
        "system": "Be brief",
        "history": [["q", "a"]],
    }
    (item,), _ = shaped(rows_of(row))
    assert [tuple(turn.values()) for turn in item.messages] == [
        ("system", "Be brief"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "Add\n\n1 2"),
        ("assistant", "3"),
    ]


def test_instances_share_a_root() -> None:
    instances = [{"input": "1", "output": "a"}, {"input": "", "output": "b"}]
    items, _ = shaped(rows_of({"instruction": "Do", "instances": instances}))
    assert [item.messages[0]["content"] for item in items] == ["Do\n\n1", "Do"]
    assert len({item.id for item in items}) == 2
    assert len({item.root_id for item in items}) == 1
    assert items[0].root_id is not None


def test_conversations_as_people_have_them() -> None:
    turns = [
        {"from": "system", "value": ""},
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": "{f}"},
        {"from": "observation", "value": "seen"},
        {"from": "gpt", "value": "a"},
        {"from": "human", "value": "and?"},
    ]
    (item,), _ = shaped(rows_of({"conversations": turns, "system": "S", "tools": "T"}))
    roles = [turn["role"] for turn in item.messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert item.messages[0]["content"] == "S"
    assert item.fields == {"system": "S", "tools": "T"}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (item,), _ = shaped(rows_of({"messages": [{"role": "user", "content": parts}, CHAT[1]]}))
    assert item.messages[0]["content"] == "ab"


def test_preferences_give_the_chosen_answer_where_asked() -> None:
    row = {"conversations": SHARE[:1], "chosen": SHARE[1], "rejected": SHARE[1]}
    with pytest.raises(InputError, match="are preferences"):
        shaped(rows_of(row))
    _, why = choose_shape(rows_of(row), Columns(), "sharegpt")
    assert why.endswith("'chosen' is the answer")
    (item,), _ = shaped(rows_of(row), shape="sharegpt")
    assert [dict(turn) for turn in item.messages] == CHAT


def test_wording_is_applied_and_its_errors_name_the_row() -> None:
    rows = rows_of({"source": "q", "target": "a", "n": 3})
    wording = Wording(prompt="{n}. Translate: {source}", system="Be exact")
    (item,), _ = shaped(rows, wording=wording)
    assert [turn["content"] for turn in item.messages] == ["Be exact", "3. Translate: q", "a"]
    assert item.source == "q"
    with pytest.raises(InputError, match=r"names the field 'sorce'.*\n.*did you mean \{source\}"):
        shaped(rows, wording=Wording(prompt="{sorce}"))
    with pytest.raises(InputError, match=r"^rows.jsonl:1: wording.prompt has no use"):
        shaped(rows_of({"messages": CHAT}), wording=Wording(prompt="{x}"))
    (item,), _ = shaped(rows_of({"messages": CHAT}), wording=Wording(system="S"))
    assert item.messages[0] == {"role": "system", "content": "S"}


def test_a_field_that_some_rows_lack_costs_only_those() -> None:
    rows = rows_of(
        {"source": "q", "target": "a"},
        {"source": "q", "target": "a", "topic": None},
        {"source": "q", "target": "a", "topic": "T"},
    )
    items, quarantine = shaped(rows, wording=Wording(prompt="{topic}: {source}"))
    assert [item.messages[0]["content"] for item in items] == ["T: q"]
    assert quarantine.counts == {"has no text in a field that the wording names": 2}
    (item,), _ = shaped(
        rows_of({"instruction": "q", "output": "a"}), wording=Wording(prompt="{instruction}{input}")
    )
    assert item.messages[0]["content"] == "q"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "x"]), inner)
    ),
    max_leaves=8,
)
NAMES = ["prompt", "completion", "instruction", "output", "instances", "history", "system"]
NAMES += ["messages", "conversations", "text", "source", "target", "chosen", "input", "root_id"]


@given(
    st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES), max_size=3), st.sampled_from(SHAPES)
)
def test_any_row_is_items_or_a_reason(values: list[dict[str, Any]], shape: Shape) -> None:
    quarantine = Quarantine()
    rows = rows_of(*values)
    try:
        items = list(shape_rows(rows, shape, Columns(), Wording(), quarantine))
    except InputError:
        assert quarantine.total == len(rows) > 0
        return
    assert len({item.locator.partition("#")[0] for item in items}) + quarantine.total == len(rows)
    for item in items:
        assert item.text or item.messages[-1]["role"] == "assistant"
        assert all(turn["content"].strip() for turn in item.messages)
