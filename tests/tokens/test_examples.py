"""Items to examples: what is kept, cut or dropped, and that each of these is counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.config import from_dict, to_dict
from puna.errors import InputError
from puna.records.items import Item
from puna.tokens import ExampleConfig, MaskReport, Renderer, TokenExample, encode_items
from tokens.conversations import (
    FORGETFUL,
    Datum,
    byte_level,
    chats,
    check_prompts,
    spoken,
    turns,
    written,
)

TOKENIZER = byte_level()
CHATML = Renderer(TOKENIZER, "chatml")
WIDE = ExampleConfig(max_tokens=4096)


def encode(
    items: list[Datum], config: ExampleConfig = WIDE, renderer: Renderer = CHATML
) -> tuple[list[TokenExample], MaskReport]:
    return encode_items(items, renderer, config)


def texts(example: TokenExample) -> list[str]:
    return spoken(TOKENIZER, example.ids.tolist(), example.trained.tolist())


def test_an_example_ends_with_its_answer():
    (one,), report = encode(chats(("a llama", "yes")))
    (rendered,) = CHATML.examples(turns("a llama", "yes"))
    assert (
        one.ids.tolist() == rendered.ids[:-1]
    )  # without the line break, which nothing learns from
    assert one.ids.dtype == np.int32 and one.trained.dtype == np.bool_
    assert texts(one) == ["yes<|im_end|>"] and one.trained[-1] and len(one) == len(one.ids)
    assert one.prompt_tokens == len(CHATML.prompt(turns("a llama"))) and one.ends == 1
    assert (one.id, one.root, one.locator) == ("item0", "item0", "data.jsonl:1")
    assert (report.examples, report.ends, report.dropped) == (1, 1, {})


def test_items_of_the_records_room_are_taken():
    item = Item("i", "r", "f:1", "prompt", {}, tuple(turns("q", "a")), None, "q")
    (one,), _ = encode_items([item], CHATML, WIDE)
    assert one.root == "r"


def test_everything_that_is_left_out_is_counted():
    items = chats(("q", "a"), ("q",), ("q", " \n"), ("q", "a" * 99), ("q", "\ud800"), ("", "a"))
    items += [Datum("t", text=""), Datum("u", text="x"), Datum("v", turns("q", "a", "r", ""))]
    odd = Renderer(
        TOKENIZER,
        "{{ raise_exception('too odd') if messages[0].content == '' }}"
        "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
    )
    examples, report = encode(items, ExampleConfig(max_tokens=40), odd)
    assert [example.id for example in examples] == ["item0"]
    assert report.dropped == {
        "nothing to train": 3,
        "empty answer": 2,
        "longer than max_tokens": 1,
        "not valid Unicode": 1,
        "line 1 of the chat template: too odd": 1,
    }
    assert report.longest_tokens > 99 and report.truncated_examples == 0


def test_a_message_that_cannot_be_marked_costs_only_itself():
    every = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    for workers in (1, 2):
        examples, report = encode_items(
            chats((f"{every}</s>", "a"), ("q", "a")), CHATML, WIDE, workers=workers
        )
        assert [example.id for example in examples] == ["item1"]
        ((reason, count),) = report.dropped.items()
        assert "spells out a special token" in reason and count == 1


def test_conversations_need_a_template_and_texts_do_not():
    bare = Renderer(TOKENIZER)
    with pytest.raises(InputError, match="has no chat template, and the data are conversations"):
        encode(chats(("q", "a")), renderer=bare)
    (one,), report = encode([Datum("t", text="a llama")], renderer=bare)
    assert one.trained.tolist() == [False] + [True] * (len(one) - 1)
    assert not report.expects_end


@given(st.text(max_size=200), st.integers(2, 30))
def test_windows_lose_nothing(text: str, most: int):
    tokenizer = byte_level(add_bos_token=True, add_eos_token=True)
    examples, _ = encode_items([Datum("t", text=text)], Renderer(tokenizer), ExampleConfig(most))
    whole = tokenizer.encode(text)
    ids = [example.ids.tolist() for example in examples]
    assert ids[0] + [index for part in ids[1:] for index in part[1:]] == whole
    learnt = [i for example in examples for i in example.ids[example.trained].tolist()]
    assert learnt == whole[1:]
    assert max(map(len, ids)) <= most and sum(example.ends for example in examples) == 1
    names = [example.id for example in examples]
    assert len(set(names)) == len(names) and {example.root for example in examples} == {"t"}


def test_a_long_prompt_loses_its_beginning_and_an_answer_nothing():
    question = "the quick brown fox jumps over the lazy dog, again and again and again"
    config = ExampleConfig(max_tokens=30, too_long="cut_prompt")
    items = chats((question, "a llama"), ("q", "a"), ("q", "a" * 200))
    examples, report = encode(items, config)
    assert [example.id for example in examples] == ["item0", "item1"]
    assert (report.truncated_examples, report.dropped) == (1, {"longer than max_tokens": 1})
    assert len(examples[0]) <= 30 and texts(examples[0]) == ["a llama<|im_end|>"]
    prompt = written(TOKENIZER, examples[0].ids[: examples[0].prompt_tokens].tolist())
    kept = prompt.removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]
    assert question.endswith(f" {kept}") and len(kept) > 20
    assert examples[0].ids[: examples[0].prompt_tokens].tolist() == CHATML.prompt(turns(kept))
    with pytest.raises(InputError, match=r"2 of 3 examples \(66.7%\) are truncated or dropped"):
        report.check(config)


def test_of_several_turns_the_last_question_is_shortened():
    config = ExampleConfig(max_tokens=60, too_long="cut_prompt")
    (one,), report = encode(chats(("q", "a", "so " * 60, "b")), config)
    assert texts(one) == ["a<|im_end|>", "b<|im_end|>"] and report.truncated_examples == 1
    renderer = Renderer(TOKENIZER, FORGETFUL)
    examples, report = encode(chats(("q", "a", "so " * 60, "b")), config, renderer)
    assert [texts(example) for example in examples] == [["a<|im_end|>", "b<|im_end|>"]]
    examples, report = encode(
        chats(("q", "hm</think>a", "so " * 60, "b", "r", "c")), config, renderer
    )
    assert [texts(example)[0][0] for example in examples] == ["h", "b"]
    assert (report.truncated_examples, report.dropped) == (1, {"longer than max_tokens": 1})
    assert [example.id for example in examples] == ["item0/0", "item0/1"]
    check_prompts(renderer, turns("q", "hm</think>a", "r", "b"))


def test_everything_is_trained_where_it_is_asked_for():
    examples, report = encode_items(
        chats(("a llama", "yes")), CHATML, ExampleConfig(max_tokens=8), everything=True
    )
    learnt = [i for example in examples for i in example.ids[example.trained].tolist()]
    assert learnt == CHATML.examples(turns("a llama", "yes"))[0].ids[1:]
    assert report.trained_tokens == len(learnt) and not report.expects_end
    assert report.ends == 2  # the end of the question, too


def test_threads_change_nothing():
    items = chats(*((f"question {n}", f"answer {n}" * (n % 7)) for n in range(60)))
    one, report = encode(items, ExampleConfig(max_tokens=50))
    many, other = encode_items(items, CHATML, ExampleConfig(max_tokens=50), workers=4)
    assert report == other
    assert [e.id for e in one] == [e.id for e in many]
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(one, many, strict=True))
    with pytest.raises(InputError, match="workers must be at least 1, not 0"):
        encode_items(items, CHATML, WIDE, workers=0)


def test_the_configuration():
    data = {"max_tokens": 64, "too_long": "cut_prompt", "max_truncated_share": 0.5}
    assert to_dict(from_dict(ExampleConfig, data)) == data
    with pytest.raises(InputError, match="max_tokens must be at least 2, not 1"):
        ExampleConfig(max_tokens=1)
    with pytest.raises(InputError, match=r"a share from 0 to 1, not 10"):
        ExampleConfig(max_truncated_share=10)
