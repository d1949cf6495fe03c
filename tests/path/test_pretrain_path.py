"""From texts to a base model through kills, and the whole of runs/laptop.sh in a minute."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from flows.pretraining_setup import asked, assert_same_raised, make_shards, raise_model, texts
from house.source import REPOSITORY
from path import pretrain_victim

TESTS = Path(__file__).resolve().parent.parent
SCRIPT = REPOSITORY / "runs" / "laptop_text.py"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain-path")
    return make_shards(folder, {"tales": texts()}, {"train": {"size": 300}})


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """runs/laptop_text.py as a module."""
    spec = importlib.util.spec_from_file_location("laptop_text", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_run_that_is_killed_all_along_the_way(tmp_path: Path, shards: Path) -> None:
    done = subprocess.run(
        [sys.executable, TESTS / "path" / "pretrain_victim.py", tmp_path / "killed", shards],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    ends = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    dead = [[place, str(int(signal.SIGKILL))] for place in pretrain_victim.PLACES]
    assert ends == [*dead, ["nowhere", "0"]], done.stderr
    raise_model(tmp_path / "whole", asked(shards, threads=1))
    assert_same_raised(tmp_path / "killed", tmp_path / "whole")
    names = {path.name for path in (tmp_path / "killed").iterdir()}
    assert names == {path.name for path in (tmp_path / "whole").iterdir()}, "nothing is left over"


# --- the texts of the laptop's run ---------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_docstrings_become_documents(script: ModuleType) -> None:
    import ast

    source = (
        '"""A module."""\n\nclass Llama:\n    """It spits."""\n\n'
        '    def feed(self, hay=1, *more):\n        """Give hay.\n\n'
        '        Or more.\n        """\n\n'
        "    def silent(self):\n        pass\n\n"
        'async def run():\n    """Run."""\n\nx = 1\n\ndef bare(): ...\n'
    )
    found = list(script.docstrings("zoo.llama", ast.parse(source)))
    assert [row["path"] for row in found] == ["zoo.llama", "zoo.llama.Llama", "zoo.llama.run"]
    assert found[0]["text"] == "zoo.llama\n\nA module."
    assert found[1]["text"] == (
        "zoo.llama.Llama\n\nclass Llama\n    It spits.\n\n    def feed(self, hay=1, *more)\n"
        "        Give hay.\n\n        Or more."
    )


def test_questions_ask_for_the_module(script: ModuleType) -> None:
    import ast

    tree = ast.parse(
        'def a():\n    """Feed the llama with a lot of hay."""\n'
        'def b():\n    """Short."""\n'
        'def c():\n    """Lead the llama over\n    the high grassland.\n\n    And on."""\n'
    )
    found = script.questions([("zoo.llama", tree), ("zoo.sheep", tree)], least=2)
    assert found == [
        {"source": "Feed the llama with a lot of hay.", "target": "zoo"},
        {"source": "Lead the llama over the high grassland.", "target": "zoo"},
    ]
    assert script.questions([("zoo", tree)], least=3) == []


def test_the_texts_are_there(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PUNA_DATA", raising=False)
    assert script.main([str(tmp_path / "t"), "--quick"]) == 0
    rows = rows_of(tmp_path / "t" / "python.jsonl")
    assert len(rows) > 100
    assert {row["license"] for row in rows} == {"PSF-2.0"}
    assert all(len(row["text"]) >= script.LEAST_CHARS and row["path"] for row in rows)
    assert rows_of(tmp_path / "t" / "questions.jsonl")
    sources = (tmp_path / "t" / "sources.txt").read_text().splitlines()
    assert len(sources) == 1
    assert sources[0].startswith("sources.python={files: ")
    before = (tmp_path / "t" / "python.jsonl").read_bytes()
    assert script.main([str(tmp_path / "t"), "--quick"]) == 0
    assert (tmp_path / "t" / "python.jsonl").read_bytes() == before
    assert script.main([]) == 2


def test_the_overrides_are_read_by_the_recipes(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from puna.config import load_recipe
    from puna.flows.curate_recipe import CurateRecipe
    from puna.flows.pretrain_recipe import PretrainRecipe

    monkeypatch.delenv("PUNA_DATA", raising=False)
    script.main([str(tmp_path / "a folder, here"), "--quick"])
    sources = (tmp_path / "a folder, here" / "sources.txt").read_text().splitlines()
    sizes = {"python": {"kept": {"bytes": 12_300_000}}, "none": {"kept": {"bytes": 0}}}
    (tmp_path / "summary.json").write_text(json.dumps({"sources": sizes}))
    weights = script.weights(tmp_path)
    read = load_recipe(REPOSITORY / "recipes/curate-laptop.yaml", CurateRecipe, sources)
    assert Path(str(read.sources["python"].files)).is_file()
    raised = load_recipe(REPOSITORY / "recipes/pretrain-laptop.yaml", PretrainRecipe, [weights])
    assert raised.mixture.weights == {"python": 12.3}
    assert raised.mixture.weights.keys() == read.sources.keys()


def test_more_texts_where_the_environment_names_them(
    script: ModuleType, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUNA_DATA", str(shared_data))
    found = script.extra()
    assert len(found["stories"]) > 100
    assert not any("<|endoftext|>" in row["text"] for row in found["stories"])
    assert len(found["articles"]) > 10
    assert not any("<doc" in row["text"] for row in found["articles"])
    monkeypatch.setenv("PUNA_DATA", "/nowhere/at/all")
    with pytest.raises(SystemExit, match="which is no folder"):
        script.extra()


@pytest.mark.slow
def test_the_whole_of_it_in_a_minute(tmp_path: Path) -> None:
    command = ["sh", str(REPOSITORY / "runs" / "laptop.sh"), "--quick", str(tmp_path / "out")]
    puna = Path(sys.executable).parent / "puna"
    environment = {name: value for name, value in os.environ.items() if name != "PUNA_DATA"}
    environment |= {"PUNA": str(puna), "OMP_NUM_THREADS": "1"}
    for attempt in range(2):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600, env=environment, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said = "this run is finished already"
        assert (said in done.stderr) == bool(attempt), "the same command again goes on"
    for name in (
        "corpus/report.html",
        "base/report.html",
        "tuned/report.html",
        "judged/report.html",
    ):
        assert (tmp_path / "out" / name).stat().st_size > 1000
