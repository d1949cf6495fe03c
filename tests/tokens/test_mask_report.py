"""The mask report: its figures add up, and what cannot work is refused with what to change."""

from __future__ import annotations

import json

import pytest

from puna.errors import InputError
from puna.tokens import ExampleConfig, MaskReport, Renderer, encode_items
from tokens.conversations import ENDLESS, Datum, byte_level, chats, without_ends

TOKENIZER = byte_level()
CHATML = Renderer(TOKENIZER, "chatml")
CONFIG = ExampleConfig(max_tokens=60)


def report_of(
    items: list[Datum], config: ExampleConfig = CONFIG, renderer: Renderer = CHATML
) -> MaskReport:
    return encode_items(items, renderer, config)[1]


def test_the_figures_add_up():
    items = chats(*(("q" * n, "a" * (n + 1)) for n in range(20)))
    examples, report = encode_items(items, CHATML, CONFIG)
    assert report.examples == len(examples) == report.ends == 20
    assert report.tokens == sum(map(len, examples))
    assert report.trained_tokens + report.masked_tokens == report.tokens
    assert report.trained_tokens == sum(example.trained.sum() for example in examples)
    assert sum(count for _, _, count in report.histogram) == 20
    for low, high, count in report.histogram:
        assert count == sum(low <= len(example) < high for example in examples)
    assert len(report.histogram) <= 12 and report.histogram[0][2] and report.histogram[-1][2]
    report.check(CONFIG)
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_the_sample_shows_what_is_trained():
    report = report_of(chats(("a llama", "yes"), ("other", "no")))
    assert report.sample == [
        ("<|im_start|>user\na llama<|im_end|>\n<|im_start|>assistant\n", False),
        ("yes<|im_end|>", True),
    ]
    wide = ExampleConfig(max_tokens=5000)
    long = report_of(chats(("q " * 900, "a " * 900)), wide)
    assert [on for _, on in long.sample] == [False, False, True]
    assert "[... " in long.sample[1][0] and sum(len(text) for text, _ in long.sample) < 2000


def test_the_report_in_a_terminal():
    items = chats(*[("a llama", "yes")] * 9, ("again", "yes, again and again"), ("q", ""))
    assert report_of(items).lines() == [
        "examples  10 kept, 1 dropped, 0 with a shortened prompt",
        "  dropped 1: empty answer",
        "tokens    224: 44 trained (19.6%), 180 masked",
        "ends      10 ends of turn or text are trained",
        "lengths   in tokens",
        "  22                     9 ################################",
        "  23                     0",
        "  24                     0",
        "  25                     0",
        "  26                     1 ####",
        "sample    [[what is trained]]",
        "  <|im_start|>user",
        "  a llama<|im_end|>",
        "  <|im_start|>assistant",
        "  [[yes<|im_end|>]]",
    ]


def test_data_do_not_steer_the_terminal():
    report = report_of(chats(("\x1b[2Ja\tb\rc", "yes\x9b")))
    text = "\n".join(report.lines())
    assert "\ufffd[2Ja\tb\ufffdc" in text and "[[yes\ufffd<|im_end|>]]" in text
    assert "\x1b[2J" in report.sample[0][0]


def test_nothing_is_trained():
    report = report_of(chats(("q",), ("r", "")))
    with pytest.raises(InputError) as caught:
        report.check(CONFIG)
    assert str(caught.value) == (
        "no token is trained: 0 examples kept, dropped: nothing to train (1), empty answer (1)\n"
        "  fix: look at the shape that the data were read as, and at their columns"
    )
    assert report.histogram == [] and report.sample == []
    assert report.lines()[0] == "examples  0 kept, 2 dropped, 0 with a shortened prompt"
    with pytest.raises(InputError, match="0 examples kept, none dropped"):
        report_of([]).check(CONFIG)


def test_the_end_of_turn_is_never_trained():
    endless = report_of(chats(("q", "a")), renderer=Renderer(TOKENIZER, ENDLESS))
    with pytest.raises(
        InputError, match=r"never learn to stop\n  fix: .*\{\{ eos_token \}\} after"
    ):
        endless.check(CONFIG)
    foreign = report_of(chats(("q", "a")), renderer=Renderer(without_ends(), "chatml"))
    foreign.check(CONFIG)  # this vocabulary has no such token: nothing can be done about it
    report_of([Datum("t", text="a llama")]).check(CONFIG)  # a text has no turns


def test_more_is_lost_than_was_allowed():
    items = chats(*[("q", "a")] * 8, ("q", "a" * 300), ("q" * 300, "a"))
    with pytest.raises(InputError) as caught:
        report_of(items).check(CONFIG)
    longest = report_of(items).longest_tokens
    assert str(caught.value) == (
        "2 of 10 examples (20.0%) are truncated or dropped, more than max_truncated_share=0.1: "
        "0 truncated, dropped: longer than max_tokens (2)\n"
        f"  fix: raise max_tokens from 60 (the longest example has {longest} tokens), "
        "set too_long: cut_prompt, or raise max_truncated_share to accept it"
    )
    report_of(items).check(ExampleConfig(max_tokens=60, max_truncated_share=0.2))
    cut = ExampleConfig(max_tokens=60, too_long="cut_prompt")
    with pytest.raises(InputError, match=r"1 truncated, dropped: longer than max_tokens \(1\)"):
        report_of(items, cut).check(cut)
    with pytest.raises(InputError, match="fix: mend the data, or raise max_truncated_share"):
        report_of(chats(("q", "a"), ("q", ""))).check(CONFIG)


def test_many_reasons_are_summed_up():
    template = "{{ raise_exception(messages[0].content) }}"
    items = chats(*((f"reason {n}", "a") for n in range(50)))
    report = report_of(items, renderer=Renderer(TOKENIZER, template))
    assert len(report.dropped) == 21 and report.dropped["other reasons"] == 30
