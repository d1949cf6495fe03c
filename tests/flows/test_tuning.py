"""Whole tuning runs on a tiny model: what comes out, and that the same comes out again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import puna
from flows.tuning_setup import (
    METHODS,
    Heard,
    assert_same_run,
    figures,
    judgement,
    losses,
    product,
    run,
    write_rows,
)
from generate import tiny
from puna.errors import InputError, MissingPackageError
from puna.generate import Sampling

Recipe = Callable[..., dict[str, Any]]
FILES = {
    "full": {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"},
    "top_layers": {"tuning.json", "top.safetensors"},
    "lora": {"tuning.json", "adapter_config.json", "adapter_model.safetensors"},
    "dora": {"tuning.json", "adapter_config.json", "adapter_model.safetensors"},
    "adapter": {"tuning.json", "adapter.safetensors"},
}
ROUNDING = 2e-5  # relative, of losses that are computed in another order in float32


@pytest.mark.parametrize("method", METHODS)
def test_every_method_from_recipe_to_use(tmp_path: Path, recipe: Recipe, method: str) -> None:
    heard, out = Heard(), tmp_path / "run"
    done = run(out, recipe(method=METHODS[method]), heard)
    assert (done.path, done.product, done.fresh) == (out, out / "model", True)
    assert FILES[method] | {"asking.json", "manifest.json"} <= {
        p.name for p in done.product.iterdir()
    }
    assert losses(out, "evaluation")[-1] < losses(out)[0] - 0.5, "it learns"
    assert heard.steps == list(range(1, 9))
    summary = done.summary
    assert summary["method"]["name"] == method
    assert summary["method"]["start"] == (0 if method == "full" else 1)
    assert (summary["cache"] is None) == (method == "full")
    before, after = (
        summary[name]["metrics"]["perplexity"]["value"] for name in ("before", "after")
    )
    assert after < before
    # What is judged is what is used: the product gives the answers that were noted.
    llama, told = puna.load(str(out)), judgement(out, "after.json")
    for question, answer in zip(told["questions"], told["outputs"], strict=True):
        assert llama.ask(question, Sampling(max_tokens=4)).text.strip() == answer
    assert str(puna.load(str(done.product)).opened.identity) == llama.opened.identity
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_same_recipe_gives_the_same_bits(tmp_path: Path, recipe: Recipe, method: str) -> None:
    asked = recipe(method=METHODS[method])
    for name in ("one", "other"):
        run(tmp_path / name, asked)
    assert_same_run(tmp_path / "one", tmp_path / "other")
    other = recipe(method=METHODS[method], method_seed=1, train={"epochs": 2, "seed": 1})
    run(tmp_path / "third", other)
    assert product(tmp_path / "third") != product(tmp_path / "one")


@pytest.mark.parametrize(
    ("method", "packing"),
    [("top_layers", False), ("lora", False), ("lora", True), ("dora", True), ("adapter", False)],
)
def test_a_cached_run_loses_as_an_uncached_one(
    tmp_path: Path, recipe: Recipe, method: str, packing: bool
) -> None:
    changes: dict[str, Any] = {
        "method": METHODS[method],
        "train": {"epochs": 4, "optim": {"learning_rate": 0.003}},
        "batches": {"batch_tokens": None, "batch_examples": 8, "packing": packing},
    }
    cached = recipe(**changes, trunk_cache={"dtype": "float32", "folder": str(tmp_path / "trunk")})
    heard = Heard()
    done = run(tmp_path / "cached", cached, heard)
    run(tmp_path / "live", recipe(**changes, trunk_cache={"enabled": False}))
    for kind in ("step", "evaluation"):
        live = pytest.approx(losses(tmp_path / "live", kind), rel=ROUNDING)
        assert losses(tmp_path / "cached", kind) == live
    stats = done.summary["cache"]
    assert stats["computed"] == 35, "29 to learn from and 6 for validation, once"
    assert stats["hits"] == 4 * 35
    assert "trunk cache" in heard.stages
    again = run(tmp_path / "again", cached)
    assert again.summary["cache"]["computed"] == 0, "another run finds all of it"
    assert figures(tmp_path / "again") == figures(tmp_path / "cached")


def test_without_validation_and_test(tmp_path: Path, recipe: Recipe) -> None:
    asked = recipe()
    asked["data"]["splits"] = {"validation": 0, "test": 0}
    heard = Heard()
    done = run(tmp_path / "run", asked, heard)
    assert done.summary["before"] is done.summary["after"] is None
    assert done.summary["best_step"] == done.summary["training"]["steps"] == 10
    assert heard.evaluations == []
    assert not (tmp_path / "run" / "before.json").exists()
    assert "Neither the base nor the tuned model was judged" in done.report.read_text()
    assert puna.load(str(tmp_path / "run")).ask("llama 1", Sampling(max_tokens=2)).text


def test_a_model_that_learns_texts(tmp_path: Path, recipe: Recipe) -> None:
    texts = [{"text": f"Once upon a time there was a llama {n}. " * 3} for n in range(30)]
    data = {"train": str(write_rows(tmp_path / "t.jsonl", texts)), "splits": {"test": 3}}
    asked = recipe(
        data=data,
        objective="next_token",
        wording={},
        examples={"max_tokens": 16},
        evaluation={"metrics": ["perplexity", "bits_per_byte"], "resamples": 100},
    )
    done = run(tmp_path / "run", asked)
    told = judgement(tmp_path / "run", "after.json")
    assert told["metrics"]["perplexity"]["value"] < 200
    mask = done.summary["mask"]["train"]
    assert mask["masked_tokens"] == mask["examples"], "the first token of each"
    llama = puna.load(str(tmp_path / "run"))
    assert not llama.is_taught, "it continues texts"
    assert llama.generate("Once upon a", Sampling(max_tokens=4)).text


def test_texts_that_cannot_be_judged_by_answers(tmp_path: Path, recipe: Recipe) -> None:
    texts = [{"text": f"Once upon a time there was a llama {n}."} for n in range(30)]
    data = {"train": str(write_rows(tmp_path / "t.jsonl", texts))}
    asked = recipe(data=data, objective="next_token", wording={})
    with pytest.raises(InputError, match="has no question for the model to answer") as told:
        run(tmp_path / "run", asked)
    assert told.value.fix == "judge plain text by perplexity and bits_per_byte"
    asked["evaluation"] = {"metrics": ["perplexity"], "resamples": 100}
    run(tmp_path / "run", asked)  # nothing was there yet that this would throw away


def test_a_metric_of_the_task_chooses_the_best(tmp_path: Path, recipe: Recipe) -> None:
    asked = recipe(
        watch={"metrics": ["chrf"], "max_examples": 4},
        train={
            "epochs": 4,
            "best_metric": "validation_chrf",
            "best_is": "highest",
            "optim": {"learning_rate": 0.01},
        },
    )
    heard = Heard()
    done = run(tmp_path / "run", asked, heard)
    seen = [told["validation_chrf"] for told in heard.evaluations]
    assert len(seen) == 4
    best = seen.index(max(seen))
    assert done.summary["best_step"] == 4 * (best + 1)
    assert done.summary["training"]["best_value"] == max(seen)


WATCHED = {"metrics": ["exact_match"], "max_examples": 4}
BEST = {"epochs": 2, "best_metric": "validation_exact_match", "best_is": "highest"}


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("train.best_metric", {"train": BEST, "watch": WATCHED}),
        ("train.patience", {"train": {"epochs": 2, "patience": 1}}),
        ("watch.metrics", {"watch": WATCHED}),
    ],
)
def test_what_goes_by_validation_needs_some(
    tmp_path: Path, recipe: Recipe, key: str, changes: dict[str, Any]
) -> None:
    asked, heard = recipe(**changes), Heard()
    asked["data"]["splits"] = {"validation": 0, "test": 0}
    with pytest.raises(InputError, match=f"{key} goes by the validation examples, and there are"):
        run(tmp_path / "run", asked, heard)
    assert heard.steps == []
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_watched_is_refused_before_the_first_step(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [{"text": f"Once upon a time there was a llama {n}."} for n in range(30)]
    asked = recipe(
        data={"train": str(write_rows(tmp_path / "t.jsonl", texts))},
        objective="next_token",
        wording={},
        evaluation={"metrics": ["perplexity"], "resamples": 100},
        watch=WATCHED,
    )
    heard = Heard()
    with pytest.raises(InputError, match=r"watch\.metrics, .* has no question for the model"):
        run(tmp_path / "run", asked, heard)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(MissingPackageError, match="the metric 'chrf' needs the package"):
        run(tmp_path / "run", recipe(watch={"metrics": ["chrf"]}), heard)
    assert heard.steps == []


def test_an_example_beyond_the_context_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    base = tiny.save_folder(tmp_path / "base", context=16)
    asked = recipe(model=str(base))
    asked["data"]["splits"] = {"validation": 0, "test": 0}
    with pytest.raises(InputError, match=r"example has \d+ tokens; the model's context is 16") as e:
        run(tmp_path / "run", asked)
    assert e.value.fix == "set examples.max_tokens: 16"


def test_it_stops_early_and_keeps_the_best(tmp_path: Path, recipe: Recipe) -> None:
    train = {"epochs": 30, "patience": 2, "optim": {"learning_rate": 0.3}}
    done = run(tmp_path / "run", recipe(train=train))
    told = done.summary["training"]
    seen = losses(tmp_path / "run", "evaluation")
    assert told["stopped"] == "early"
    assert told["best_value"] == min(seen)
    assert len(seen) == seen.index(min(seen)) + 3
    assert done.summary["best_step"] == 4 * (seen.index(min(seen)) + 1)
    assert "The training was stopped early: nothing improved any more." in done.summary["notes"]


def test_tensorboard_events(tmp_path: Path, recipe: Recipe) -> None:
    pytest.importorskip("tensorboardX")
    run(tmp_path / "run", recipe(tensorboard=True))
    events = list((tmp_path / "run" / "tensorboard").iterdir())
    assert len(events) == 1
    assert b"validation_loss" in events[0].read_bytes()
    run(tmp_path / "run", recipe(tensorboard=True), force=True)
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


def test_memory_is_told_as_predicted_and_as_measured(tmp_path: Path, recipe: Recipe) -> None:
    done = run(tmp_path / "run", recipe())
    told = done.summary["memory"]
    assert told["peak_bytes"] == done.summary["training"]["peak_bytes"]
    assert told["predicted"]["runtime"] == told["resident_bytes"]
    assert told["predicted"]["total"] > told["resident_bytes"]
    assert "were predicted" in told["sentence"]
    assert told["sentence"] in done.report.read_text()


def test_what_the_summary_tells(tmp_path: Path, recipe: Recipe) -> None:
    done = run(tmp_path / "my-run", recipe())
    told = done.summary
    assert told["title"] == "my run"
    assert told["data"]["splits"] == {"train": 29, "validation": 6, "test": 5}
    assert told["data"]["quarantine"]["total"] == 0, "what is held out is not left out"
    assert [row["kind"] for row in told["lineage"]] == ["base", "data", "tuning"]
    assert told["ledger"]["total"]["wall_seconds"] > 0
    assert set(told["ledger"]["stages"]) >= {"data", "training", "trunk cache", "judging the base"}
    manifest = json.loads((done.product / "manifest.json").read_text())
    assert manifest["identity"]["parents"] == [f"model {told['model']['identity']}"]
    assert told["lineage"][-1]["digest"] == manifest["digest"]
    assert len(told["samples"]) == 5


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("lora", "lora"),
        ("lora", "full"),
        ("lora", "adapter"),
        ("full", "top_layers"),
        ("dora", "dora"),
        ("adapter", "lora"),
    ],
)
def test_a_tuning_on_a_tuning(tmp_path: Path, recipe: Recipe, lower: str, upper: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(first, recipe(method=METHODS[lower]))
    asked = recipe(model=str(first), method=METHODS[upper], wording={"prompt": "{source}?"})
    if lower == "adapter":  # it stays on its base as modules of its own
        with pytest.raises(InputError, match="first: cannot be tuned further: it is a tun") as told:
            run(second, asked)
        assert not second.exists()
        assert str(told.value.fix).startswith("tune the base that it stands on, by a method that")
        return
    before = judgement(first, "after.json")["metrics"]["perplexity"]["value"]
    done = run(second, asked)
    assert done.summary["before"]["metrics"]["perplexity"]["value"] != before, "another wording"
    llama, told = puna.load(str(second)), judgement(second, "after.json")
    for question, answer in zip(told["questions"], told["outputs"], strict=True):
        assert llama.ask(question, Sampling(max_tokens=4)).text.strip() == answer
    assert done.summary["lineage"][0]["identity"] == puna.load(str(first)).opened.identity
    (first / "model").rename(first / "gone")
    if upper == "full":
        puna.load(str(second))  # a whole model needs nothing else
    else:
        with pytest.raises(InputError, match=r"second/model: needs its base .*first"):
            puna.load(str(second))
