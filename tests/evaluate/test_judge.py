"""A judged model's figures are those of transformers, and two judgements compare."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sacrebleu.metrics import BLEU
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import puna
from generate import tiny
from puna.api import Llama
from puna.config import from_dict
from puna.errors import InputError, MissingPackageError
from puna.evaluate import (
    Case,
    EvaluationConfig,
    Judgement,
    choose,
    compare,
    judge,
    score_answers,
    side_by_side,
)

ANSWERS = ("a llama", "the sea", "upon a time", "grass", "the high grassland in the sun", "é")
ALL = ("bleu", "chrf", "ter", "exact_match", "token_accuracy", "perplexity", "bits_per_byte")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_folder(tmp_path_factory.mktemp("judged") / "model", context=128)


@pytest.fixture(scope="module")
def llama(folder: Path) -> Llama:
    return puna.load(str(folder), dtype="float32")


@pytest.fixture(scope="module")
def reference(folder: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def cases(llama: Llama) -> list[Case]:
    return [case(llama, index, answer) for index, answer in enumerate(ANSWERS)]


def case(llama: Llama, index: int, answer: str) -> Case:
    question = "Where is she? " * (index % 3 + 1)
    prompt = llama.tokenizer.encode(question)
    new = [*llama.tokenizer.encode(answer), tiny.SPECIALS.index("<|im_end|>")]
    trained = [False] * len(prompt) + [True] * len(new) + [False]
    return Case(str(index), prompt, [*prompt, *new, prompt[0]], trained, question, answer)


def config(*metrics: str, **changes: Any) -> EvaluationConfig:
    defaults = {"max_new_tokens": 12, "batch": 4, "resamples": 100}
    return EvaluationConfig(metrics=metrics or ALL, **{**defaults, **changes})


def expected(reference: LlamaForCausalLM, cases: Sequence[Case]) -> dict[str, float]:
    nats = hits = tokens = 0.0
    for one in cases:
        with torch.inference_mode():
            logits = reference(torch.tensor([one.ids])).logits[0, :-1]
        kept = torch.tensor(one.trained[1:])
        targets = torch.tensor(one.ids[1:])[kept]
        nats += float(F.cross_entropy(logits[kept], targets, reduction="sum"))
        hits += float((logits[kept].argmax(-1) == targets).sum())
        tokens += len(targets)
    size = sum(len(one.reference.encode()) for one in cases)
    return {
        "perplexity": math.exp(nats / tokens),
        "token_accuracy": hits / tokens,
        "bits_per_byte": nats / math.log(2) / size,
        "tokens": tokens,
    }


@pytest.mark.parametrize("batch_tokens", [1, 50, 4096])
def test_figures_of_the_references_are_those_of_transformers(
    llama: Llama, reference: LlamaForCausalLM, cases: list[Case], batch_tokens: int
) -> None:
    wanted = expected(reference, cases)
    names = ("perplexity", "token_accuracy", "bits_per_byte")
    asked = config(*names, batch_tokens=batch_tokens, samples=0)
    found = judge(llama.model, llama.tokenizer, cases, asked)
    for name in names:
        value = found.metrics[name]
        assert value.value == pytest.approx(wanted[name], rel=1e-4)
        assert value.low <= value.value <= value.high and value.n == len(cases)
    assert found.scored_tokens == wanted["tokens"] == found.tokens
    assert set(found.outputs) == {None}


def test_token_accuracy_counts_what_the_model_would_say(
    llama: Llama, reference: LlamaForCausalLM
) -> None:
    prompt = llama.tokenizer.encode("Once upon a time")
    said = tiny.greedy(reference, prompt, 6)
    marks = [False] * len(prompt) + [True] * 6
    right = Case("a", prompt, [*prompt, *said], marks, "", "x")
    wrong = Case("b", prompt, [*prompt, *said[:-1], said[-1] ^ 1], marks, "", "x")
    assert score_answers(llama.model, [wrong, right])[:, 1:].tolist() == [[5, 6], [6, 6]]


def test_answers_are_greedy_stripped_and_in_the_order_of_the_cases(
    llama: Llama, reference: LlamaForCausalLM, cases: list[Case]
) -> None:
    found = judge(llama.model, llama.tokenizer, cases, config())
    said = [tiny.greedy(reference, one.prompt_ids, 12) for one in cases]
    stops = llama.tokenizer.stop_ids
    cut = [ids[: next((i for i, id_ in enumerate(ids) if id_ in stops), 12)] for ids in said]
    texts = [llama.tokenizer.decode(ids).strip() for ids in cut]
    assert list(found.outputs) == texts and any(texts)
    oracle = BLEU().corpus_score(texts, [list(ANSWERS)]).score
    assert found.metrics["bleu"].value == pytest.approx(oracle)
    assert "tok:13a" in (found.metrics["bleu"].signature or "")
    assert list(found.metrics) == list(ALL)
    assert found.cut_outputs == sum(len(ids) == 12 for ids in cut)


def test_a_stop_id_ends_an_answer(
    llama: Llama, reference: LlamaForCausalLM, cases: list[Case]
) -> None:
    stop = tiny.greedy(reference, cases[0].prompt_ids, 1)
    asked = config("exact_match")
    ended = judge(llama.model, llama.tokenizer, cases[:1], asked, stop_ids=stop)
    assert ended.outputs == ("",) and (ended.generated_tokens, ended.cut_outputs) == (1, 0)


def test_an_exact_answer_counts(llama: Llama, cases: list[Case]) -> None:
    said = judge(llama.model, llama.tokenizer, cases, config("exact_match")).outputs
    one = cases[1]
    echo = Case(one.id, one.prompt_ids, one.ids, one.trained, one.question, f" {said[1]}\n")
    asked = [cases[0], echo, *cases[2:]]
    found = judge(llama.model, llama.tokenizer, asked, config("exact_match"))
    assert found.metrics["exact_match"].value == pytest.approx(1 / len(cases))


def test_length_of_answers_follows_the_references(llama: Llama, cases: list[Case]) -> None:
    longest = max(sum(one.trained) for one in cases)
    found = judge(llama.model, llama.tokenizer, cases, config("chrf", max_new_tokens=None))
    assert found.generated_tokens <= len(cases) * (longest * 3 // 2 + 16)
    assert found.generated_tokens > found.cut_outputs * 12


def test_judgements_compare_and_survive_json(llama: Llama, cases: list[Case]) -> None:
    before = judge(llama.model, llama.tokenizer, cases, config())
    other = tiny.twin(tiny.reference(5, vocab_size=llama.model.config.vocab_size))
    after = judge(other, llama.tokenizer, cases, config())
    again = Judgement.from_dict(json.loads(json.dumps(before.to_dict())))
    assert again.metrics == before.metrics and again.outputs == before.outputs
    changes = compare(again, after)
    assert list(changes) == list(ALL)
    for name, change in changes.items():
        ends = after.metrics[name].value - before.metrics[name].value
        assert change.difference == pytest.approx(ends, abs=1e-9)
        assert change.low <= change.high and 0 < change.p_value <= 1 and change.n == len(cases)
    assert {change.p_value for change in compare(before, again).values()} == {1.0}
    rows = side_by_side(before, after)
    assert rows[4]["reference"] == ANSWERS[4] and rows[4]["before"] == before.outputs[4]


def test_what_does_not_compare_is_refused(llama: Llama, cases: list[Case]) -> None:
    def judged(asked: list[Case], *names: str, **changes: Any) -> Judgement:
        return judge(llama.model, llama.tokenizer, asked, config(*names, **changes))

    few = judged(cases[:3], "perplexity")
    with pytest.raises(InputError, match="3 and 2 cases, not the same"):
        compare(few, judged(cases[:2], "perplexity"))
    with pytest.raises(InputError, match="metrics perplexity before and chrf after"):
        compare(few, judged(cases[:3], "chrf"))
    with pytest.raises(InputError, match="bleu was computed in two ways"):
        compare(judged(cases, "bleu"), judged(cases, "bleu", target_language="zh"))
    longer = [
        Case(one.id, one.prompt_ids, one.ids, [True] * len(one.ids), "", one.reference)
        for one in cases[:3]
    ]
    with pytest.raises(InputError, match=r"per token[\s\S]*bits_per_byte"):
        compare(few, judged(longer, "perplexity"))
    with pytest.raises(InputError, match=r"run\.json: is not a judgement: KeyError"):
        Judgement.from_dict({}, "run.json")
    whole = few.to_dict()
    for name, value in (
        ("rows", {"perplexity": [[1, 1]] * 2}),
        ("outputs", [None] * 2),
        ("references", ["a"] * 2),
        ("questions", ["q"] * 2),
    ):
        with pytest.raises(InputError, match=r"has 3 cases and rows for \{2, 3\}"):
            Judgement.from_dict({**whole, name: value})
    with pytest.raises(InputError, match="has the metrics perplexity and rows for chrf"):
        Judgement.from_dict({**whole, "rows": {"chrf": whole["rows"]["perplexity"]}})


def test_a_limit_takes_the_same_cases_wherever_they_stand(cases: list[Case]) -> None:
    chosen = choose(cases, 3)
    assert {one.id for one in choose(cases[::-1], 3)} == {one.id for one in chosen}
    assert {one.id for one in choose(cases, 2)} < {one.id for one in chosen}
    assert [one.id for one in chosen] == sorted(one.id for one in chosen)
    assert choose(cases, None) == choose(cases, 99) == cases


def test_samples_are_answered_where_no_metric_asks(llama: Llama, cases: list[Case]) -> None:
    found = judge(llama.model, llama.tokenizer, cases, config("perplexity", samples=2))
    assert sum(output is not None for output in found.outputs) == 2
    assert len(side_by_side(found, found)) == 2


def test_dropout_is_off_and_on_again(llama: Llama, cases: list[Case]) -> None:
    llama.model.train()
    llama.model.model.norm.eval()
    seen: list[tuple[str, int, int]] = []
    judge(
        llama.model,
        llama.tokenizer,
        cases[:2],
        config("exact_match", "perplexity"),
        progress=lambda what, done, total: seen.append((what, done, total)),
    )
    assert llama.model.training and not llama.model.model.norm.training
    llama.model.eval()
    assert seen == [("answering", 2, 2), ("scoring", 2, 2)]


def test_bad_cases_and_settings_are_refused_before_any_work(
    llama: Llama, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(asked: list[Case], match: str, *names: str) -> None:
        with pytest.raises(InputError, match=match):
            judge(llama.model, llama.tokenizer, asked, config(*names))

    plain = Case("p", [], [1, 2], [True, True], "", "ab")
    refused([], "no examples to judge by")
    refused([cases[0], cases[0]], "case 0: is there twice")
    refused([plain], r"case p: has no question[\s\S]*bits_per_byte", "chrf")
    refused([Case("l", [1], [1] * 200, [True] * 200, "", "")], "case l: has 200 tokens")
    refused([Case("n", [1], [1, 2], [True, False], "", "")], "no token of any case", "perplexity")
    with pytest.raises(InputError, match="case x: 2 ids and 1 marks"):
        Case("x", [], [1, 2], [True], "", "")
    found = judge(llama.model, llama.tokenizer, [plain], config("bits_per_byte"))
    assert found.scored_tokens == 1  # nothing stands before the first token
    for changes, match in (
        ({"metrics": ()}, "name at least one"),
        ({"metrics": ("bleu", "rouge")}, "'rouge' is not known"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"resamples": 5}, "resamples must be at least 40"),
    ):
        with pytest.raises(InputError, match=match):
            EvaluationConfig(**changes)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    monkeypatch.setattr(sys.modules[judge.__module__], "complete", None)  # would fail if called
    with pytest.raises(MissingPackageError, match=r"pip install 'puna\[evaluate\]'"):
        judge(llama.model, llama.tokenizer, cases, config("bleu"))


def test_a_recipe_can_say_it() -> None:
    data = {"metrics": ["bleu", "chrf"], "bleu_tokenizer": "char", "limit": 5}
    found = from_dict(EvaluationConfig, data)
    assert found == EvaluationConfig(metrics=("bleu", "chrf"), bleu_tokenizer="char", limit=5)
    assert found.needs("scores") == [] and found.needs("outputs") == ["bleu", "chrf"]


def test_a_loss_that_is_no_number_is_an_error(cases: list[Case]) -> None:
    broken = tiny.twin(tiny.reference(vocab_size=400))
    with torch.no_grad():
        broken.model.norm.weight.fill_(math.nan)
    with pytest.raises(InputError, match=r"case 0: the model's loss is not a number"):
        score_answers(broken, cases)
