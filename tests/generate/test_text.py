"""Text as its tokens come: nothing of a stop string gets out, and nothing else is lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers

from generate import tiny
from puna.generate import Sampling, TextStream, complete, stream
from puna.model import LlamaModel
from puna.store import TokenizerFiles
from puna.tokens import Tokenizer, open_tokenizer


class Pieces:
    """A tokenizer whose tokens are the given pieces of text; holds back `delay` characters."""

    def __init__(self, pieces: Sequence[str], delay: int = 0) -> None:
        self._pieces, self._delay, self._pending = pieces, delay, ""

    def stream(self, *, after: Iterable[int] = ()) -> Pieces:
        assert not list(after)
        return self

    def push(self, token_id: int) -> str:
        text = self._pending + self._pieces[token_id]
        kept = min(self._delay, len(text))
        self._pending = text[len(text) - kept :]
        return text[: len(text) - kept]

    def finish(self) -> str:
        text, self._pending = self._pending, ""
        return text


def until_stop(text: str, stops: Sequence[str]) -> str:
    """Up to the stop string that is complete first; of several that end there, the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))]
    return text


LETTERS = st.sampled_from("ab é")


@settings(max_examples=400, deadline=None)
@given(
    pieces=st.lists(st.text(LETTERS, max_size=4), max_size=20),
    stops=st.lists(st.text(LETTERS, min_size=1, max_size=5), max_size=3),
    delay=st.integers(0, 3),
)
@example(pieces=["ab"], stops=["abb", "b"], delay=0)
@example(pieces=["abb"], stops=["abb", "b"], delay=0)
@example(pieces=["a", "a", "b"], stops=["ab"], delay=0)
def test_text_ends_before_the_first_stop_string(
    pieces: list[str], stops: list[str], delay: int
) -> None:
    text = "".join(pieces)
    expected = until_stop(text, stops)
    texts = TextStream(Pieces(pieces, delay), stops)  # type: ignore[arg-type]
    given_out = pushed = ""
    for token, piece in enumerate(pieces):
        given_out += texts.push(token)
        pushed += piece
        assert expected.startswith(given_out), "something got out that had to be held back"
        if not texts.stopped:
            held = len(pushed) - len(given_out)
            assert held <= delay + max(map(len, stops), default=1) - 1, "held back for nothing"
    given_out += texts.finish()
    assert given_out == expected
    assert texts.stopped == (expected != text or any(stop in text for stop in stops))
    if texts.stopped:
        assert texts.finish() == ""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    data = tiny.byte_level_backend().to_str().encode()
    return open_tokenizer(TokenizerFiles({"tokenizer.json": data}), where=Path("tiny"))


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("a 🦙é中\n"), max_size=12), stop=st.sampled_from("🦙é中a"))
def test_characters_of_several_tokens(tokenizer: Tokenizer, text: str, stop: str) -> None:
    ids = tokenizer.encode(text)
    whole, cut = TextStream(tokenizer), TextStream(tokenizer, [stop])
    pieces = [whole.push(index) for index in ids] + [whole.finish()]
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert "".join([*map(cut.push, ids), cut.finish()]) == until_stop(text, [stop])


@pytest.fixture(scope="module")
def model() -> LlamaModel:
    size = tiny.byte_level_backend().get_vocab_size()
    return tiny.twin(tiny.reference(seed=3, vocab_size=size))


PROMPTS = ["Once upon", "a", "the llama"]


def complete_all(
    model: LlamaModel, tokenizer: Tokenizer, prompts: Sequence[str], **options: Any
) -> list[Any]:
    sampling = Sampling(**{"max_tokens": 25, "ignore_eos": True, **options})
    return complete(model, tokenizer, tokenizer.encode_batch(prompts), sampling)


def test_streamed_text_is_the_decoded_text(model: LlamaModel, tokenizer: Tokenizer) -> None:
    done = complete_all(model, tokenizer, PROMPTS, temperature=1.0)
    for prompt, generation in zip(PROMPTS, done, strict=True):
        # Half a character at the end of a text that was cut is not shown.
        whole = tokenizer.decode(generation.ids)
        assert generation.text in (whole, whole.removesuffix("\N{REPLACEMENT CHARACTER}"))
        assert generation.finish == "length"
        assert len(generation.ids) == 25
        assert generation.prompt_tokens == len(tokenizer.encode(prompt))
        assert generation.logprobs is None


def test_stop_strings_end_each_sequence_by_itself(model: LlamaModel, tokenizer: Tokenizer) -> None:
    whole = complete_all(model, tokenizer, PROMPTS)
    stops = (whole[0].text[5:8], whole[1].text[9:11])
    done = complete_all(model, tokenizer, PROMPTS, stop=stops)
    for before, after in zip(whole, done, strict=True):
        assert after.text == until_stop(before.text, stops)
        assert after.ids == before.ids[: len(after.ids)]
        stopped = after.text != before.text
        assert after.finish == ("stop" if stopped else "length")
        assert (len(after.ids) < len(before.ids)) == stopped
    assert done[0].finish == done[1].finish == "stop"


def test_the_text_of_a_stop_token_is_not_shown(model: LlamaModel, tokenizer: Tokenizer) -> None:
    whole = complete_all(model, tokenizer, PROMPTS[:1])[0]
    stop = whole.ids[6]
    first = whole.ids.index(stop)
    done = complete_all(model, tokenizer, PROMPTS[:1], stop_tokens=(stop,))[0]
    assert done.ids == whole.ids[: first + 1]
    assert done.text == tokenizer.decode(whole.ids[:first])
    assert done.finish == "stop"


def test_held_text_is_given_out_at_the_end(model: LlamaModel, tokenizer: Tokenizer) -> None:
    whole = complete_all(model, tokenizer, PROMPTS[:1])[0]
    never = whole.text[-3:] + "\0"
    done = complete_all(model, tokenizer, PROMPTS[:1], stop=(never,))[0]
    assert (done.text, done.finish) == (whole.text, "length")


def test_logprobs_come_with_every_token(model: LlamaModel, tokenizer: Tokenizer) -> None:
    done = complete_all(model, tokenizer, PROMPTS, logprobs=2)
    for generation in done:
        assert len(generation.logprobs) == len(generation.top_logprobs) == len(generation.ids)
        chosen = [(pairs[0][0]) for pairs in generation.top_logprobs]
        assert tuple(chosen) == generation.ids  # greedy: the likeliest


def test_pieces_of_a_batch_are_interleaved(model: LlamaModel, tokenizer: Tokenizer) -> None:
    rows = tokenizer.encode_batch(PROMPTS)
    pieces = list(stream(model, tokenizer, rows, Sampling(max_tokens=3)))
    assert [piece.row for piece in pieces] == [0, 1, 2] * 3
    assert [piece.finish for piece in pieces] == [None] * 6 + ["length"] * 3


def sentencepiece_like() -> Tokenizer:
    """As LLaMA 2 has it: a space is part of the word after it; decoding strips the first."""
    words = ["<unk>", "▁Once", "▁upon", "▁a", "▁time", "▁", *"abcdefghijklmnopqrstuvwxyzOT"]
    backend = Backend(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    data = backend.to_str().encode()
    return open_tokenizer(TokenizerFiles({"tokenizer.json": data}), where=Path("tiny"))


def test_a_continuation_keeps_the_space_before_its_first_word() -> None:
    tokenizer = sentencepiece_like()
    texts = TextStream(tokenizer, after=[1])
    assert [texts.push(index) for index in (2, 3, 4)] == [" upon", " a", " time"]
    alone = TextStream(tokenizer)
    assert alone.push(2) == "upon"
    size = tokenizer.vocab_size
    model = tiny.twin(tiny.reference(vocab_size=size))
    for prompt in itertools.product(range(1, 5), repeat=2):
        done = complete(model, tokenizer, [prompt], Sampling(max_tokens=6))[0]
        whole = tokenizer.decode([*prompt, *done.ids])
        assert tokenizer.decode(prompt) + done.text == whole
