"""Methods compared: the same ground for each, one row for each, and nothing done twice."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows.tuning_setup import Heard, losses
from puna.cli import run as main
from puna.config import from_dict
from puna.errors import InputError
from puna.flows.compare_rows import table
from puna.flows.compare_step import Step, work
from puna.flows.comparing import CompareOptions, Comparison, compare
from puna.flows.tune_recipe import TuneRecipe
from puna.flows.watcher import Watcher

Recipe = Callable[..., dict[str, Any]]
VARIANTS = {
    "lora": {"method": {"method": "lora", "rank": 4, "layers": 1}},
    "full": {"method": {"method": "full"}, "optim": {"learning_rate": 0.002}},
}


@dataclass
class Here:
    """Runs methods in this process; `broken` ones fail, `at` is called before one."""

    broken: tuple[str, ...] = ()
    at: dict[str, Callable[[], None]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)

    def __call__(self, step: Step, watcher: Watcher) -> str | None:
        name = step.out.name
        self.ran.append(name)
        self.at.get(name, lambda: None)()
        if name in self.broken:
            return "the loss was not finite"
        work(step, watcher)
        return None


def versus(
    out: Path, recipe: dict[str, Any], *names: str, run: Here | None = None, **options: Any
) -> tuple[Comparison, Here, Heard]:
    run, heard = run or Here(), Heard()
    asked = CompareOptions(names, out, **options)
    return compare(from_dict(TuneRecipe, recipe, "recipe"), asked, heard, run=run), run, heard


def compared(out: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((out / "compare.json").read_text())
    return told


def test_methods_stand_on_the_same_ground(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "all"
    evaluation = {"metrics": ["perplexity"], "resamples": 100}
    asked = recipe(compare=VARIANTS, evaluation=evaluation)
    done, here, _ = versus(out, asked, "full", "lora", "dora")
    assert here.ran == ["full", "lora", "dora"]
    assert done.told == compared(out)
    assert done.told["state"] == "finished"
    full, lora, dora = done.told["rows"]
    assert [row["name"] for row in done.told["rows"]] == ["full", "lora", "dora"]
    assert [row["learning_rate"] for row in (full, lora, dora)] == [0.002, 0.01, 0.01]
    assert full["trainable"] > lora["trainable"] and dora["trainable"] > lora["trainable"]
    base = done.base
    assert base is not None
    for row in (full, lora, dora):
        folder = out / row["name"]
        assert json.loads((folder / "before.json").read_text()) == base_judgement(out)
        assert row["metric"]["name"] == "perplexity"
        assert row["metric"]["low"] < row["metric"]["value"] < row["metric"]["high"]
        assert row["metric"]["value"] < base["value"]
        assert row["validation_loss"] == min(losses(folder, "evaluation"))
        assert (row["steps"], row["stopped"]) == (8, "finished")
        for measure in ("seconds", "energy_joules", "co2e_grams", "peak_bytes"):
            assert row[measure] >= 0
    assert losses(out / "lora")[0] == pytest.approx(losses(out / "full")[0]), "the same batch"
    page = (out / "compare.html").read_text()
    for word in ("full", "lora", "dora", "Quality against trained parameters", "learning rate"):
        assert word in page
    assert not (out / "trunks").exists()


def base_judgement(out: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((out / "base.json").read_text())["judgement"]
    return told


def test_each_method_fills_a_trunk_cache_of_its_own(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "all of them"
    variants = {
        name: {"method": {"method": "lora", "layers": 1, "rank": rank}}
        for name, rank in (("small", 2), ("large", 4))
    }
    versus(out, recipe(compare=variants), "small", "large")
    for name in variants:
        told = json.loads((out / name / "summary.json").read_text())
        assert told["cache"]["computed"] > 0, "it must not live on what another one computed"
        assert shlex.split(told["command"])[-2:] == ["--out", str(out / name)]


def test_what_is_finished_is_not_run_again(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "all"
    asked = recipe(compare=VARIANTS)
    first, *_ = versus(out, asked, "lora")
    again, here, heard = versus(out, asked, "lora", "full")
    assert here.ran == ["full"]
    assert "lora is finished already" in heard.notes
    assert not any("judging the base" in stage for stage in heard.stages)
    assert again.told["rows"][0] == first.told["rows"][0]
    _, here, _ = versus(out, asked, "lora", force=True)
    assert here.ran == ["lora"]


def test_one_that_fails_is_told_and_the_others_go_on(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "all"
    asked = recipe(compare=VARIANTS)
    done, here, heard = versus(out, asked, "full", "lora", run=Here(broken=("full",)))
    assert here.ran == ["full", "lora"]
    full, lora = done.told["rows"]
    assert full == {
        "name": "full", "error": "the loss was not finite", "folder": str(out / "full"),
    }  # fmt: skip
    assert lora["metric"] is not None
    assert "full failed: the loss was not finite" in heard.notes
    assert table(done.told["rows"], done.base)[-1] == "full failed: the loss was not finite"
    assert "full failed: the loss was not finite" in (out / "compare.html").read_text()
    done, here, _ = versus(out, asked, "full", "lora")
    assert here.ran == ["full"]
    assert not any("error" in row for row in done.told["rows"])


def test_ctrl_c_leaves_what_is_done_and_the_rest_goes_on(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "all"
    asked = recipe(compare=VARIANTS)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        versus(out, asked, "lora", "full", run=Here(at={"full": interrupt}))
    told = compared(out)
    assert told["state"] == "running"
    assert [row["name"] for row in told["rows"]] == ["lora"]
    _, here, _ = versus(out, asked, "lora", "full", resume=True)
    assert here.ran == ["full"]


def test_without_test_examples_the_validation_loss_is_compared(
    tmp_path: Path, recipe: Recipe
) -> None:
    asked = recipe(compare=VARIANTS)
    asked["data"]["splits"] = {"validation": 6, "test": 0}
    done, *_ = versus(tmp_path / "all", asked, "lora")
    (row,) = done.told["rows"]
    assert row["metric"]["name"] == "validation_loss"
    assert row["metric"]["value"] == row["validation_loss"]
    assert done.base is None
    assert "lora" in "\n".join(table(done.told["rows"], None))


def test_a_budget_of_time_replaces_epochs(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "all"
    asked = recipe(compare=VARIANTS)
    done, *_ = versus(out, asked, "lora", "full", budget_seconds=0.4)
    for row in done.told["rows"]:
        assert row["stopped"] == "time"
        assert row["seconds"] >= 0.4
        assert row["steps"] >= 1
    assert done.told["facts"]["budget"].startswith("0.4 s of training each")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("run.json", "holds a run of one method"),
        ("letters.txt", "holds letters.txt, which is not of a comparison"),
    ],
)
def test_other_peoples_folders_are_left_alone(
    tmp_path: Path, recipe: Recipe, name: str, message: str
) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=message):
        versus(tmp_path, recipe(compare=VARIANTS), "lora")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_place_that_cannot_be_is_refused_before_any_work(tmp_path: Path, recipe: Recipe) -> None:
    asked = recipe(compare=VARIANTS)
    with pytest.raises(InputError, match=r"the folder .*no does not exist"):
        versus(tmp_path / "no" / "all", asked, "lora")
    with pytest.raises(InputError, match="holds no comparison to go on with"):
        versus(tmp_path / "all", asked, "lora", resume=True)
    with pytest.raises(InputError, match="--force begins again, and --resume goes on"):
        versus(tmp_path / "all", asked, "lora", resume=True, force=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; a comparison is a folder"):
        versus(tmp_path / "file", asked, "lora")


def test_a_bad_recipe_leaves_an_earlier_comparison_as_it_was(
    tmp_path: Path, recipe: Recipe
) -> None:
    out = tmp_path / "all"
    versus(out, recipe(compare=VARIANTS), "lora")
    told = compared(out)
    bad = recipe(compare=VARIANTS)
    bad["data"] = {"train": str(tmp_path / "nothing.jsonl")}
    with pytest.raises(InputError, match="nothing"):
        versus(out, bad, "lora")
    assert compared(out) == told


def test_another_recipe_leaves_an_earlier_comparison_as_it_was(
    tmp_path: Path, recipe: Recipe
) -> None:
    out = tmp_path / "all"
    versus(out, recipe(compare=VARIANTS), "lora")
    told = compared(out)
    other = recipe(compare=VARIANTS, method_seed=3)
    with pytest.raises(InputError, match=r"all/lora: holds a run of another recipe, other data"):
        versus(out, other, "lora")
    assert compared(out) == told
    _, here, _ = versus(out, other, "lora", force=True)
    assert here.ran == ["lora"]


# --- from the command line, each method in its process --------------------------------------------


def command(recipe_file: Path, out: Path, *arguments: str) -> list[str]:
    start = [sys.executable, "-m", "puna", "tune", str(recipe_file), "--out", str(out)]
    return [*start, *arguments]


def write_recipe(path: Path, recipe: dict[str, Any]) -> Path:
    path.write_text(json.dumps(recipe))
    return path


@pytest.mark.slow
def test_the_command_runs_each_method_in_its_process(tmp_path: Path, recipe: Recipe) -> None:
    variants = {**VARIANTS, "deep": {"method": {"method": "lora", "layers": 99}}}
    asked = write_recipe(tmp_path / "recipe.yaml", recipe(compare=variants))
    out = tmp_path / "all"
    ran = subprocess.run(
        command(asked, out, "--compare", "lora,deep"),
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    head, lora, base, failure = ran.stdout.splitlines()
    assert head.split()[0] == "method" and lora.startswith("lora ") and base.startswith("base ")
    assert failure.startswith("deep failed:") and "layers is 99, but the model has 2" in failure
    assert "lora (1 of 2): rank 4, layers 1, learning rate 0.01" in ran.stderr
    assert "after step 8: validation_loss" in ran.stderr
    repeat = compared(out)["command"].split()
    assert repeat[:2] == ["puna", "tune"] and "--compare" in repeat


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_of_the_method_at_work(tmp_path: Path, recipe: Recipe) -> None:
    train = {"epochs": None, "max_seconds": 600}
    asked = recipe(compare=VARIANTS, train=train)
    start = command(write_recipe(tmp_path / "recipe.yaml", asked), tmp_path / "all")
    with subprocess.Popen(
        [*start, "--compare", "lora"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if "after step" in line:
                os.kill(process.pid, signal.SIGINT)
                break
        seen += process.stderr.read()
        assert process.wait(timeout=120) == 130
    assert "the same command again goes on from there" in seen, seen
    run = tmp_path / "all" / "lora"
    assert json.loads((run / "run.json").read_text())["state"] == "running"
    assert list((run / "checkpoints").glob("step-*"))


def test_what_is_asked_is_checked_first(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = str(write_recipe(tmp_path / "recipe.yaml", recipe(compare=VARIANTS)))
    assert main(["tune", asked, "--budget-seconds", "30"]) == 2
    told = capsys.readouterr().err
    assert "--budget-seconds goes with --compare" in told
    assert "train.max_seconds=30 train.epochs=null" in told
    assert main(["tune", asked, "--compare", "lora,lorra", "--out", str(tmp_path / "all")]) == 2
    assert "there is no method 'lorra' to compare" in capsys.readouterr().err
    assert main(["tune", asked, "--compare", "full, dora", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "full: learning rate 0.002",
        "dora: rank 4, layers 1, learning rate 0.01",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml"]
