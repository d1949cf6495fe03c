"""Evaluations: a run's own figures again, other data and models, and what a user must be told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.tuned import make_tuning, opened
from flows.tuning_setup import METHODS, asked, judgement, pairs, run, save_base, write_rows
from puna.errors import InputError
from puna.evaluate import Judgement, compare
from puna.flows import evaluating as flow
from puna.flows import subject
from puna.flows.evaluate_data import DataOptions
from puna.flows.evaluate_options import AskOptions, EvaluateOptions, JudgeOptions, RunOptions
from puna.flows.evaluate_page import evaluation_page
from puna.flows.subject import find_subject
from puna.meter import MeterConfig
from puna.report import render

FAST = JudgeOptions(metrics=("exact_match", "bits_per_byte"), max_new_tokens=3)
Rows = Callable[..., DataOptions]


@pytest.fixture(autouse=True)
def plainly_metered(monkeypatch: pytest.MonkeyPatch) -> None:
    """codecarbon takes seconds to look around."""
    monkeypatch.setattr(flow, "MeterConfig", lambda: MeterConfig(use_codecarbon=False))


@pytest.fixture(scope="module")
def tuned_run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, pairs_file: Path) -> Path:
    out = tmp_path_factory.mktemp("evaluating") / "run"
    return run(out, asked(tiny_base, pairs_file)).path


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Writes rows, by default pairs that no run has seen, and names the file."""

    def make(given: list[dict[str, Any]] | None = None, **more: Any) -> DataOptions:
        path = write_rows(tmp_path / "rows.jsonl", pairs(6, begin=90) if given is None else given)
        return DataOptions((str(path),), **more)

    return make


def judged(name: object, **options: Any) -> dict[str, Any]:
    wanted = EvaluateOptions(**{"run": RunOptions(device="cpu"), "judging": FAST, **options})
    return dict(flow.evaluate(str(name), wanted, lambda what, done, total: None).told)


def without_clock(told: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key != "seconds"}


# --- a run ------------------------------------------------------------------------------------


def test_a_run_gets_its_own_figures_again(tuned_run: Path) -> None:
    heard: list[str] = []
    found = flow.evaluate(
        str(tuned_run), EvaluateOptions(), lambda what, done, total: heard.append(what)
    )
    told = found.told
    summary = json.loads((tuned_run / "summary.json").read_text())
    for side, name in (("before", "before.json"), ("after", "after.json")):
        assert without_clock(told[side]) == judgement(tuned_run, name)
    assert told["paired"] == summary["paired"]
    assert told["samples"] == summary["samples"]
    assert told["settings"] == summary["asked"]["evaluation"]
    assert (told["data"]["judged"], told["data"]["examples"]) == (5, 5)
    assert told["asked"]["wording"]["prompt"] == "Say: {source}"
    assert told["own_base"] is True
    assert told["notes"] == [note for note in told["notes"] if "were cut" in note]
    assert found.path is None
    base = summary["model"]["name"]
    assert {what.rpartition(": ")[0] for what in heard} == {base, str(tuned_run)}
    assert told["ledger"]["total"]["energy_joules"] > 0


def test_the_product_of_a_run_is_judged_as_the_run(tuned_run: Path) -> None:
    told = judged(tuned_run / "model", base="none")
    assert told["before"] is None
    assert told["base"] is None
    assert told["paired"] == {}
    assert told["data"]["of"] == "the run's own test split"
    assert set(told["samples"][0]) == {"question", "reference", "after"}


def test_changed_data_are_noticed(
    tmp_path: Path, tiny_base: Path, pairs_file: Path, tuned_run: Path
) -> None:
    summary = json.loads((tuned_run / "summary.json").read_text())
    data = write_rows(tmp_path / "data.jsonl", pairs(40))
    place = tmp_path / "run"
    done = run(place, asked(tiny_base, data, train={"max_steps": 1}))
    assert done.summary["data"]["identity"] == summary["data"]["identity"]
    write_rows(data, pairs(50))
    told = judged(place, base="none")
    assert "The data have changed since the run" in told["notes"][0]
    data.unlink()
    with pytest.raises(InputError, match=r"run's own test data cannot be read.*\n.*--data"):
        judged(place)


def test_what_it_learnt_is_no_test(tuned_run: Path, pairs_file: Path) -> None:
    aside = pairs_file.parent / ".." / pairs_file.parent.name / pairs_file.name
    for name in (pairs_file, pairs_file.parent, pairs_file.parent / "*.jsonl", aside):
        told = judged(tuned_run, base="none", data=DataOptions((str(name),)))
        assert any(note.startswith("The model was trained on") for note in told["notes"]), name


def test_a_run_without_test_examples(tmp_path: Path, tiny_base: Path, pairs_file: Path) -> None:
    data = {"train": str(pairs_file), "splits": {"validation": 0, "test": 0}}
    run(tmp_path / "run", asked(tiny_base, pairs_file, data=data, train={"max_steps": 1}))
    with pytest.raises(InputError, match=r"held out no test examples\n  fix: .*--data"):
        judged(tmp_path / "run")


# --- data and words -----------------------------------------------------------------------------


def test_a_tuning_is_asked_as_it_was_taught(tmp_path: Path, tiny_base: Path, rows: Rows) -> None:
    tuning = make_tuning(tmp_path / "tuning", tiny_base, METHODS["lora"])
    told = judged(tuning, data=rows())
    assert told["model"]["made_from"] == told["base"]["name"] == str(tiny_base)
    assert told["asked"]["wording"]["prompt"] == "Say: {source}"
    shown = "".join(text for text, _ in told["asked"]["sample"])
    assert "Say: " in shown
    other = judged(tuning, data=rows(), base="none", ask=AskOptions(prompt="{source}?"))
    assert other["after"]["rows"] != told["after"]["rows"]
    alone = judged(tiny_base, data=rows(), ask=AskOptions(prompt="Say: {source}"))
    assert alone["after"]["rows"] == told["before"]["rows"], "the base is asked in the same words"


def test_rows_that_are_there_twice_count_twice(tiny_base: Path, rows: Rows) -> None:
    told = judged(tiny_base, data=rows(pairs(3) + pairs(3)))
    assert (told["data"]["judged"], told["data"]["examples"]) == (6, 6)


def test_what_is_too_long_is_counted(tiny_base: Path, rows: Rows) -> None:
    long = {"source": "llama " * 90, "target": "sea"}
    told = judged(tiny_base, data=rows([*pairs(3), long], max_tokens=64))
    assert told["data"]["left_out"] == {"longer than max_tokens": 1}
    assert told["data"]["judged"] == 3
    with pytest.raises(InputError, match=r"no example is left.*\n.*1 x longer than max_tokens"):
        judged(tiny_base, data=rows([long], max_tokens=16))
    with pytest.raises(InputError, match="max_tokens must be at least 2, not 0"):
        judged(tiny_base, data=rows(pairs(3), max_tokens=0))


def test_texts_are_judged_by_how_likely_they_are(tiny_base: Path, rows: Rows) -> None:
    texts = [{"text": "Once upon a time there was a llama. " * 9}, {"text": "the sea"}]
    told = judged(tiny_base, data=rows(texts, max_tokens=32), judging=JudgeOptions())
    assert list(told["after"]["metrics"]) == ["perplexity", "bits_per_byte", "token_accuracy"]
    assert told["data"]["judged"] > 2, "windows"
    nats = told["after"]["rows"]["bits_per_byte"]
    tokenizer = opened(tiny_base).tokenizer
    rest = [tokenizer.encode(row["text"])[1:] for row in texts]  # nothing predicts the first
    assert sum(row[1] for row in nats) == sum(
        len(tokenizer.token_bytes(i)) for r in rest for i in r
    )
    assert told["samples"] == []
    assert "not asked to answer" in render(evaluation_page(told))
    with pytest.raises(InputError, match="has no question for the model to answer"):
        judged(tiny_base, data=rows(texts), judging=FAST)


def test_a_run_on_texts_has_the_metrics_of_its_recipe(tmp_path: Path, tiny_base: Path) -> None:
    texts = [{"text": f"Once upon a time there was a llama {n}."} for n in range(20)]
    path = write_rows(tmp_path / "t.jsonl", texts)
    metrics = ["bits_per_byte", "perplexity"]
    done = run(
        tmp_path / "run",
        asked(
            tiny_base,
            path,
            data={"train": str(path), "splits": {"validation": 0, "test": 3}},
            objective="next_token",
            wording={},
            train={"max_steps": 1},
            evaluation={"metrics": metrics, "resamples": 100},
        ),
    )
    told = judged(done.path, base="none", judging=JudgeOptions())
    assert list(told["after"]["metrics"]) == metrics
    assert told["settings"] == done.summary["asked"]["evaluation"]


def test_conversations_keep_their_own_words(tmp_path: Path, tiny_base: Path, rows: Rows) -> None:
    tuning = make_tuning(tmp_path / "tuning", tiny_base, METHODS["lora"])
    turns = [{"role": "user", "content": "the sea?"}, {"role": "assistant", "content": "high"}]
    told = judged(tuning, data=rows([{"messages": turns}]))
    assert told["notes"][0] == "These rows are conversations: they are asked in their own words."
    with pytest.raises(InputError, match=r"wording\.prompt has no use"):
        judged(tuning, data=rows([{"messages": turns}]), ask=AskOptions(prompt="{source}"))


def test_translations_have_their_metrics(tmp_path: Path, tiny_base: Path) -> None:
    sides = [tmp_path / name for name in ("test.en", "test.zh")]
    sides[0].write_text("the sea\nthe land\n")
    sides[1].write_text("大海在哪里\n土地在哪里\n")
    data = DataOptions((str(sides[0]),), str(sides[1]))
    told = judged(tiny_base, data=data, judging=JudgeOptions(max_new_tokens=2))
    assert list(told["after"]["metrics"])[:2] == ["bleu", "chrf"]
    assert told["after"]["metrics"]["bleu"]["signature"].startswith("nrefs:1|")
    assert any("--target-language zh" in note for note in told["notes"])
    judging = JudgeOptions(("bleu",), "zh", max_new_tokens=2)
    told = judged(tiny_base, data=data, judging=judging)
    assert "tok:zh" in told["after"]["metrics"]["bleu"]["signature"]
    assert not any("--target-language" in note for note in told["notes"])
    more = DataOptions((str(sides[0]), str(sides[1])), str(sides[1]))
    with pytest.raises(InputError, match="--data is 2 files and --targets 1"):
        judged(tiny_base, data=more)


# --- two models ---------------------------------------------------------------------------------


def test_any_two_models_compare(tmp_path: Path, tiny_base: Path, rows: Rows) -> None:
    first = make_tuning(tmp_path / "first", tiny_base, METHODS["lora"])
    second = make_tuning(tmp_path / "second", tiny_base, METHODS["top_layers"])
    told = judged(second, data=rows(), base=str(first))
    assert told["own_base"] is False
    before, after = (Judgement.from_dict(told[side]) for side in ("before", "after"))
    wanted = {name: result.to_dict() for name, result in compare(before, after).items()}
    assert told["paired"] == wanted
    assert told["base"]["identity"] != told["model"]["identity"]
    again = judged(first, data=rows(), base=str(second))
    for name, pair in told["paired"].items():
        assert again["paired"][name]["difference"] == pytest.approx(-pair["difference"])


def test_a_model_without_template_is_asked_by_the_others(
    tmp_path: Path, tiny_base: Path, rows: Rows
) -> None:
    bare = save_base(tmp_path / "bare")
    config = json.loads((bare / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    told = judged(tiny_base, data=rows(), base=str(bare))
    assert any("has no chat template: it is asked by that of" in note for note in told["notes"])
    with pytest.raises(InputError, match="no chat template"):
        judged(bare, data=rows())


def test_figures_per_token_of_other_tokens_are_not_compared(
    tmp_path: Path, tiny_base: Path, rows: Rows
) -> None:
    other = save_base(tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    judging = replace(FAST, metrics=("perplexity", "bits_per_byte"))
    told = judged(tiny_base, data=rows(), base=str(other), judging=judging)
    assert list(told["paired"]) == ["bits_per_byte"]
    assert any(note.startswith("perplexity is not compared") for note in told["notes"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r"brings no test data of its own\n  fix: .*--data"),
        ({"data": DataOptions(("/no/such/file.jsonl",))}, r"/no/such/file\.jsonl"),
        ({"base": "/no/such/model"}, r"/no/such/model"),
        ({"judging": JudgeOptions(("blue",))}, r"metric 'blue' is not known"),
    ],
)
def test_mistakes(tiny_base: Path, rows: Rows, options: dict[str, Any], said: str) -> None:
    given = {} if not options else {"data": rows()}
    with pytest.raises(InputError, match=said):
        judged(tiny_base, **{**given, **options})


def test_a_model_is_not_compared_with_itself(tiny_base: Path, rows: Rows) -> None:
    with pytest.raises(InputError, match="is compared with itself"):
        judged(tiny_base, data=rows(), base=str(tiny_base))


def test_a_base_that_is_gone(tmp_path: Path, tiny_base: Path, rows: Rows) -> None:
    base = save_base(tmp_path / "base")
    whole = make_tuning(tmp_path / "whole", base, METHODS["full"])
    shutil.rmtree(base)
    with pytest.raises(InputError, match=r"base, to compare with: .*\n  fix: .*; or --base none"):
        judged(whole, data=rows())
    assert judged(whole, data=rows(), base="none")["before"] is None
    assert judged(whole, data=rows(), base=str(tiny_base))["own_base"] is False


def test_subjects_name_what_they_were_made_from(
    tmp_path: Path, tiny_base: Path, tuned_run: Path
) -> None:
    whole = make_tuning(tmp_path / "whole", tiny_base, METHODS["full"])
    assert find_subject(str(whole)).base == str(tiny_base)
    assert find_subject(str(tiny_base)).base is None
    assert find_subject(str(tuned_run)).run == tuned_run
    assert find_subject(str(tuned_run / "model")).run == tuned_run.resolve()


def test_as_many_tunings_stack_as_opening_allows(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = make_tuning(tmp_path / "tuning", tiny_base, METHODS["lora"])
    monkeypatch.setattr(subject, "MAX_STACKED", 1)
    assert find_subject(str(tuning)).foundation == tiny_base
    told = json.loads((tuning / "tuning.json").read_text())
    told["base"]["name"] = str(tuning)
    (tuning / "tuning.json").write_text(json.dumps(told))
    (tuning / "asking.json").unlink()
    circle = find_subject(str(tuning))
    uses: tuple[Callable[[], object], ...] = (circle.asking, circle.tokenizer)
    for use in uses:
        with pytest.raises(InputError, match="stands on more than 1 other tunings"):
            use()


# --- what is written ----------------------------------------------------------------------------


def test_the_folder_has_all_of_it(tmp_path: Path, tuned_run: Path) -> None:
    out = tmp_path / "evaluation"
    told = judged(tuned_run, out=out, command="puna evaluate run")
    assert {path.name for path in out.iterdir()} == {
        "evaluation.json",
        "report.html",
        "manifest.json",
    }
    assert json.loads((out / "evaluation.json").read_text()) == told
    page = (out / "report.html").read_text()
    for text in ("Bits per byte", "puna evaluate run", "Say: ", "What it cost"):
        assert text in page
    manifest = json.loads((out / "manifest.json").read_text())["identity"]
    assert manifest["kind"] == "evaluation"
    assert manifest["parents"] == [f"model {told[side]['identity']}" for side in ("model", "base")]
    with pytest.raises(InputError, match="already exists"):
        judged(tuned_run, out=out)
    again = judged(tuned_run, out=out, force=True)
    assert again["paired"] == told["paired"], "nothing is random"


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, tiny_base: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(flow, "write", full)
    with pytest.raises(InputError, match=r"No space left on device\n  fix: free some space"):
        judged(tiny_base, data=rows(), out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_hostile_texts_are_shown_as_they_are(tiny_base: Path, rows: Rows) -> None:
    bad = "</td><script>alert(1)</script>"
    told = judged(tiny_base, data=rows([{"source": bad, "target": bad}]))
    page = render(evaluation_page(told))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
