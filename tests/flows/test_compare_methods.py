"""Which recipe each method of a comparison is run by, and what is told of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from flows.tuning_setup import Heard, asked
from puna.config import from_dict
from puna.errors import InputError
from puna.flows.compare_methods import entrants
from puna.flows.compare_rows import row_of, table
from puna.flows.compare_step import Sender, _hear
from puna.flows.tune_recipe import TuneRecipe
from puna.train import StepMetrics
from report.summaries import bleu, compared


def recipe(**changes: Any) -> TuneRecipe:
    method = {"method": "lora", "rank": 4, "layers": 6}
    plain = asked(Path("base"), Path("pairs.jsonl"), **{"method": method, **changes})
    return from_dict(TuneRecipe, plain, "recipe")


def test_methods_share_what_both_know() -> None:
    names = ["lora", "dora", "adapter", "top_layers", "full"]
    methods = {e.name: e.recipe.method for e in entrants(recipe(), names)}
    assert methods["lora"] == recipe().method
    assert (methods["dora"].rank, methods["dora"].layers) == (4, 6)  # type: ignore[union-attr]
    assert methods["adapter"].layers == 6  # type: ignore[union-attr]
    assert methods["top_layers"].layers == 6  # type: ignore[union-attr]
    assert methods["full"].method == "full"


def test_null_is_not_shared_with_a_method_that_needs_a_number() -> None:
    (top,) = entrants(recipe(method={"method": "lora"}), ["top_layers"])
    assert top.recipe.method.layers == 4  # type: ignore[union-attr]


def test_methods_that_move_the_models_weights_learn_at_a_tenth_of_the_rate() -> None:
    rates = [e.recipe.train.optim.learning_rate for e in entrants(recipe(), ["full", "dora"])]
    assert rates == pytest.approx([0.001, 0.01])
    turned = recipe(method={"method": "full"})
    rates = [e.recipe.train.optim.learning_rate for e in entrants(turned, ["top_layers", "lora"])]
    assert rates == pytest.approx([0.01, 0.1])


def test_a_variant_has_its_own_settings() -> None:
    variant = {"method": {"method": "lora", "rank": 32}, "optim": {"weight_decay": 0.1}}
    (wide,) = entrants(recipe(compare={"wide": variant}), ["wide"])
    assert wide.told() == "lora, rank 32, learning rate 0.01"
    assert wide.recipe.train.optim.weight_decay == 0.1
    assert wide.recipe.train.optim.learning_rate == 0.01
    assert wide.recipe.compare == {}
    assert wide.recipe.data == recipe().data and wide.recipe.batches == recipe().batches


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match=r"no method 'lorra'.*\n.*did you mean 'lora'\?.*adapter"):
        entrants(recipe(), ["lorra"])
    named = recipe(compare={"wide": {"method": {"method": "lora"}}})
    with pytest.raises(InputError, match="the recipe names wide; methods are full, top_layers"):
        entrants(named, ["x"])
    with pytest.raises(InputError, match="'lora' is named twice"):
        entrants(recipe(), ["lora", "lora"])
    with pytest.raises(InputError, match="there is nothing to compare"):
        entrants(recipe(), [])
    odd = recipe(compare={"../up": {"method": {"method": "lora"}}})
    with pytest.raises(InputError, match=r"compare\.\.\./up: cannot be the name of a folder"):
        entrants(odd, ["../up"])
    typo = recipe(compare={"a": {"method": {"method": "lora"}, "optim": {"learning_rat": 1.0}}})
    with pytest.raises(InputError, match=r"compare\.a\.optim.*learning_rat"):
        entrants(typo, ["a"])


def test_a_budget_of_time_is_the_only_limit() -> None:
    (lora,) = entrants(recipe(), ["lora"], 30.0)
    train = lora.recipe.train
    assert (train.epochs, train.max_steps, train.max_seconds) == (None, None, 30.0)


# --- rows -----------------------------------------------------------------------------------------


def summary(**training: Any) -> dict[str, Any]:
    stage = {"energy_joules": 30.0, "co2e_grams": 0.5}
    figures = {
        "seconds": 8.0, "seconds_before": 2.0, "steps": 6, "stopped": "finished",
        "peak_bytes": 900, "resident_bytes": 700, "resumed": False,
    }  # fmt: skip
    return {
        "training": {**figures, **training},
        "method": {"trainable": 12, "layers": 2},
        "after": {"metrics": {"bleu": bleu(20.0, 2.0), "chrf": bleu(40.0, 2.0)}},
        "history": [{"epoch": 1.5}],
        "evaluations": [{"step": n, "validation_loss": 3.0 - n} for n in (1, 2)],
        "best_step": 1,
        "asked": {"train": {"optim": {"learning_rate": 0.1}}},
        "ledger": {"stages": {"training": stage, "trunk cache": stage, "judging": stage}},
    }


def test_a_row_is_charged_with_its_training_and_its_trunk_cache() -> None:
    row = row_of("a", summary(), Path("all/a"), "bleu")
    assert (row["seconds"], row["energy_joules"], row["co2e_grams"]) == (10.0, 60.0, 1.0)
    assert row["peak_bytes"] == 200
    assert row["validation_loss"] == 2.0, "of the step that was published"
    assert row["metric"]["value"] == 20.0
    assert set(row["metrics"]) == {"bleu", "chrf"}


def test_energy_of_an_interrupted_run_is_not_made_up() -> None:
    row = row_of("a", summary(resumed=True), Path("all/a"), "bleu")
    assert (row["energy_joules"], row["seconds"]) == (None, 10.0)
    assert "interrupted" in row["notes"][0]


def test_the_table_has_a_line_for_each() -> None:
    rows = [row for row in compared() if "error" not in row]
    lines = table([*rows, {"name": "prefix", "error": "it diverged"}], bleu(2.1, 0.6))
    assert lines[0].split()[:3] == ["method", "BLEU", "validation"]
    assert [line.split()[0] for line in lines[1:]] == [
        "full", "top_layers", "lora", "dora", "adapter", "base", "prefix",
    ]  # fmt: skip
    assert "31.0 [28.8 to 33.2]" in lines[1]
    assert lines[-1] == "prefix failed: it diverged"
    assert len({len(line) for line in lines[1:-2]}) <= 2, "columns stand below one another"


def test_what_is_told_through_a_pipe_is_told_the_same() -> None:
    pipe = io.StringIO()
    sender = Sender(pipe)
    metrics = StepMetrics(
        step=1, epoch=0.5, loss=float("nan"), terms={"a": 2.0}, learning_rate=1e-3, grad_norm=1.0,
        tokens=3, trained_tokens=2, tokens_per_second=4.0, seconds=1.0, memory_bytes=5,
        skipped=True,
    )  # fmt: skip
    sender.begin(0, None)
    sender.step(metrics)
    sender.evaluated(1, {"validation_loss": 1.0}, True)
    sender.note("é")
    sender.progress("trunk cache", 1, 2)
    sender.lines("data", ["told elsewhere"])
    sender.end()
    sender.say("failed", "it diverged")
    heard = Heard()
    torn = '["note", "lo'
    assert list(_hear(io.StringIO(pipe.getvalue() + torn), heard)) == ["it diverged"]
    assert (heard.steps, heard.notes, heard.stages) == ([1], ["é"], ["trunk cache"])
    assert heard.evaluations == [{"validation_loss": 1.0}]
    assert heard.told == {}
