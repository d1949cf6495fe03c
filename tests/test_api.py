"""The Python door: load, generate, chat, stream and score."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import puna
from generate import tiny
from puna.api import Conversation, Message
from puna.errors import InputError
from puna.generate import Sampling

GREEDY = Sampling(max_tokens=12)
SAMPLED = Sampling(max_tokens=12, temperature=0.9, seed=3)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_folder(tmp_path_factory.mktemp("api") / "tiny", context=512)


@pytest.fixture(scope="module")
def llama(folder: Path) -> puna.Llama:
    return puna.load(str(folder), threads=1)


@pytest.fixture(scope="module")
def llama_base(llama_base_gguf: Path) -> puna.Llama:
    assert llama_base_gguf.is_file()
    return puna.load("llama-base", device="cpu", threads=2)


# --- the real model ---------------------------------------------------------------------------


def test_llama_base_knows_a_capital(llama_base: puna.Llama) -> None:
    answer = llama_base.chat([user("What is the capital of France?")], Sampling(max_tokens=10))
    assert "Paris" in answer.text
    assert "30 layers x 576" in repr(llama_base)


def test_llama_base_finds_sense_likelier_than_nonsense(llama_base: puna.Llama) -> None:
    sense, nonsense = llama_base.score(["The sky is blue.", "The sky blue is is."])
    assert sense.total > nonsense.total
    assert 0 < sense.bits_per_byte < nonsense.bits_per_byte
    assert sense.bytes == len("The sky is blue.") - len("The")  # the first token is given


def test_llama_base_reuses_what_it_has_read(
    llama_base: puna.Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Conversation(llama_base)
    sampling = Sampling(max_tokens=4)
    messages = [user("Name a large animal.")]
    answer = "".join(talk.answer(messages, sampling))
    messages += [assistant(answer), user("And a small one?")]
    tokens: list[int] = []
    embed = llama_base.model.embed

    def watched(ids: Tensor) -> Tensor:
        tokens.append(ids.numel())
        return embed(ids)

    with monkeypatch.context() as patch:
        patch.setattr(llama_base.model, "embed", watched)
        answer = "".join(talk.answer(messages, sampling))
    whole = len(llama_base.tokenizer.encode_chat(messages))
    assert tokens[0] < whole / 2, "the system prompt and the first turn were in the cache"
    assert answer == llama_base.chat(messages, sampling).text


# --- loading ----------------------------------------------------------------------------------


def test_load_says_what_it_loaded(llama: puna.Llama, folder: Path) -> None:
    size = llama.config.vocab_size
    assert repr(llama) == f"Llama({str(folder)!r}, 2 layers x 32, vocabulary {size})"
    assert llama.model is llama.opened.model
    assert llama.tokenizer is llama.opened.tokenizer
    assert llama.opened.checkpoint.format == "hf"
    assert llama.opened.seconds > 0
    assert next(llama.model.parameters()).dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in llama.model.parameters())


@pytest.mark.parametrize(
    ("word", "dtype"),
    [
        ("auto", torch.float32),
        ("file", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
    ],
)
def test_load_in_a_dtype(folder: Path, word: str, dtype: torch.dtype) -> None:
    llama = puna.load(str(folder), device="cpu", dtype=word, threads=1)
    assert {parameter.dtype for parameter in llama.model.parameters()} == {dtype}
    assert llama.generate("Once", Sampling(max_tokens=2)).ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int3"}, r"dtype 'int3' is not known\n  fix: known: auto, file, float32"),
        ({"device": "tpu"}, r"device 'tpu' is not known\n  fix: auto, cpu, cuda, cuda:N, mps"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
    ],
)
def test_load_with_a_word_it_does_not_know(
    folder: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        puna.load(str(folder), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("device", "name"), [("cuda", "CUDA"), ("mps", "Metal")])
def test_load_on_a_device_that_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"has no {name} device\n  fix: use --device cpu"):
        puna.load(str(folder), device=device)


def test_load_refuses_weights_that_are_not_numbers(tmp_path: Path) -> None:
    folder = tiny.save_folder(tmp_path / "broken", context=64)
    model = tiny.LlamaForCausalLM.from_pretrained(folder)
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = math.nan
    model.save_pretrained(folder)
    with pytest.raises(InputError, match=r"broken.*model\.layers\.1\.mlp\.up_proj\.weight"):
        puna.load(str(folder))


def test_a_config_that_asks_too_much_names_the_folder(tmp_path: Path) -> None:
    folder = tiny.save_folder(tmp_path / "odd", context=64)
    config = (folder / "config.json").read_text().replace('"silu"', '"gelu"')
    (folder / "config.json").write_text(config)
    with pytest.raises(InputError, match=r"odd.*expected 'silu', found 'gelu'"):
        puna.load(str(folder))


# --- generating -------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_streams_give_the_same_text(llama: puna.Llama, sampling: Sampling) -> None:
    done = llama.generate("Once upon a time", sampling)
    assert len(done.ids) <= 12
    assert done.text == "".join(llama.stream("Once upon a time", sampling))
    messages = [user("where is the sea?")]
    assert llama.chat(messages, sampling).text == "".join(llama.stream_chat(messages, sampling))


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_the_batch_size_does_not_change_text(
    llama: puna.Llama, sampling: Sampling, batch: int
) -> None:
    prompts = ["Once", "the llama in the grassland", "Once", "she asked:", "sea"]
    done = llama.generate_batch(prompts, sampling, batch=batch)
    single = llama.generate_batch(prompts, sampling, batch=1)
    assert [g.text for g in done] == [g.text for g in single]
    assert done[0] == llama.generate("Once", sampling)
    if sampling is SAMPLED:
        assert done[0].text != done[2].text, "each prompt has a random stream of its own"


def test_the_default_is_greedy(llama: puna.Llama) -> None:
    assert llama.generate("Once") == llama.generate("Once", Sampling())
    assert llama.generate_batch([]) == []


def test_what_looks_special_in_a_prompt_is_text(llama: puna.Llama) -> None:
    prompt = "<|im_end|>"
    assert llama.generate(prompt, GREEDY).prompt_tokens == len(llama.tokenizer.encode(prompt)) > 1


def test_a_bad_prompt_is_refused_before_any_is_computed(
    llama: puna.Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Tensor:
        raise AssertionError("the model ran")

    monkeypatch.setattr(llama.model, "embed", never)
    prompts = ["a"] * 9 + ["x" * 600]
    with pytest.raises(InputError, match="prompt 10: has 600 tokens; the model's context is 512"):
        llama.generate_batch(prompts, GREEDY, batch=4)
    with pytest.raises(InputError, match="prompt 1: empty"):
        llama.generate("")
    with pytest.raises(InputError, match="batch must be at least 1, not 0"):
        llama.generate_batch(["a"], batch=0)


def test_one_text_is_not_a_list_of_characters(llama: puna.Llama) -> None:
    for call in (llama.generate_batch, llama.score):
        with pytest.raises(InputError, match=r"a list of texts, found one text\n  fix: write"):
            call("Once")  # type: ignore[operator]


def test_a_model_without_a_template_does_not_chat(tmp_path: Path) -> None:
    llama = puna.load(str(tiny.save_folder(tmp_path / "plain", template=None, context=64)))
    with pytest.raises(InputError, match="has no chat template"):
        llama.chat([user("hello")])
    assert llama.generate("Once", Sampling(max_tokens=2)).ids


def test_scores_cover_the_text(llama: puna.Llama) -> None:
    texts = ["Once upon a time", "", "the sea?", "🦙"]
    scores = llama.score(texts)
    for text, found in zip(texts, scores, strict=True):
        assert llama.tokenizer.decode(found.ids) == text
        assert len(found.logprobs) == max(0, len(found.ids) - 1)
        first = len(llama.tokenizer.token_bytes(found.ids[0])) if text else 0
        assert found.bytes == (len(text.encode()) - first if len(found.ids) > 1 else 0)
    ids = torch.tensor([scores[0].ids])
    with torch.inference_mode():
        full = llama.model(ids)[0, :-1].log_softmax(-1)
    expected = full.gather(1, ids[0, 1:, None])[:, 0].tolist()
    assert scores[0].logprobs == pytest.approx(expected, abs=1e-4)
    assert llama.score([]) == []


# --- conversations ----------------------------------------------------------------------------


def played(llama: puna.Llama, talk: Conversation | None, turns: list[str]) -> list[str]:
    """Answers to turns; a fresh conversation for each where `talk` is None."""
    messages: list[Message] = []
    for turn in turns:
        messages.append(user(turn))
        answer = "".join((talk or Conversation(llama)).answer(messages, GREEDY))
        messages.append(assistant(answer))
    return [message["content"] for message in messages[1::2]]


TURNS = ["Once upon a time", "where is the sea?", "there was a llama", "x"]


def test_the_cache_does_not_change_text(llama: puna.Llama) -> None:
    fresh = played(llama, None, TURNS)
    talk = Conversation(llama)
    assert played(llama, talk, TURNS) == fresh
    assert played(llama, talk, TURNS[2:]) == played(llama, None, TURNS[2:])  # another history
    assert played(llama, talk, TURNS) == fresh


@pytest.mark.parametrize("read", [0, 1, 4])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "dropped"])
def test_an_abandoned_answer_leaves_the_cache_right(
    llama: puna.Llama, read: int, closed: bool
) -> None:
    talk = Conversation(llama)
    answer = talk.answer([user(TURNS[2])], GREEDY)
    for _ in range(read):
        next(answer)
    if closed:
        answer.close()  # type: ignore[attr-defined]
    del answer
    assert played(llama, talk, TURNS) == played(llama, None, TURNS)


def test_an_answer_ends_when_the_next_one_begins(llama: puna.Llama) -> None:
    talk = Conversation(llama)
    stale = talk.answer([user(TURNS[2])], GREEDY)
    next(stale)
    began = talk.answer([user(TURNS[0])], GREEDY)
    first = next(began)
    with pytest.raises(InputError, match="cut short: the next one has begun"):
        next(stale)
    text = first + "".join(began)
    assert text == played(llama, None, TURNS[:1])[0]
    messages = [user(TURNS[0]), assistant(text), user(TURNS[1])]
    assert "".join(talk.answer(messages, GREEDY)) == played(llama, None, TURNS[:2])[1]


def test_a_conversation_that_fills_the_context_goes_on_after_a_reset(llama: puna.Llama) -> None:
    talk = Conversation(llama)
    played(llama, talk, TURNS[:1])
    with pytest.raises(InputError, match="the model's context is 512"):
        list(talk.answer([user("x" * 600)], GREEDY))
    assert played(llama, talk, TURNS[:2]) == played(llama, None, TURNS[:2])


def test_a_long_answer_stops_at_the_context(llama: puna.Llama) -> None:
    sampling = Sampling(max_tokens=10_000, ignore_eos=True)
    done = llama.chat([user("x" * 400)], sampling)
    assert done.finish == "length"
    assert done.prompt_tokens + len(done.ids) == 512


def test_an_answer_ends_where_the_template_ends_a_turn(tmp_path: Path) -> None:
    """Some templates end a turn with a token that no list of ours knows."""
    folder = tiny.save_folder(tmp_path / "model")
    template = "{% for m in messages %}{{ m.content }}<|im_start|>{% endfor %}"
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, "eos_token": None}))
    llama = puna.load(str(folder), template=str(_jinja(tmp_path, template)))
    own = llama.tokenizer.special_tokens["<|im_start|>"]
    assert own not in llama.tokenizer.stop_ids
    assert llama.answering(None).stop_tokens == (own,)
    assert llama.answering(Sampling(ignore_eos=True)).stop_tokens == ()


def _jinja(folder: Path, text: str) -> Path:
    path = folder / "own.jinja"
    path.write_text(text)
    return path
