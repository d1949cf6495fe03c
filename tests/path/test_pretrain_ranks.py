"""`torchrun -m puna pretrain`: two ranks raise what one raises, and say it once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import puna
from flows.pretraining_setup import asked, make_shards, raise_model, texts
from flows.tuning_setup import figures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain-ranks")
    return make_shards(folder, {"tales": texts()}, {"train": {"size": 300}})


def launch(recipe: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The command on two ranks."""
    own = ("TORCHELASTIC", "RANK", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(Path(puna.__file__).parent.parent),
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = ["--nproc-per-node", "2", "-m", "puna", "pretrain", str(recipe), "--out", str(out)]
    return subprocess.run(
        [*launcher, *command],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        check=False,
    )


def test_two_ranks_raise_what_one_does(tmp_path: Path, shards: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(asked(shards, threads=1)))
    done = launch(recipe, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("report   ") == 1, done.stderr
    assert done.stderr.count("training: step 0 of 10") == 1, done.stderr
    raise_model(tmp_path / "one", asked(shards, threads=1))
    two, one = figures(tmp_path / "two"), figures(tmp_path / "one")
    assert [row["kind"] for row in two] == [row["kind"] for row in one]
    for mine, wanted in zip(two, one, strict=True):
        key = "loss" if mine["kind"] == "step" else "bits_per_byte"
        assert mine[key] == pytest.approx(wanted[key], rel=1e-4)
        assert mine.get("tokens") == wanted.get("tokens")
    written = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert (
        written["consumed"]
        == json.loads((tmp_path / "one" / "summary.json").read_text())["consumed"]
    )
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert names == {path.name for path in (tmp_path / "one").iterdir()}
    weights = (tmp_path / "two").rglob("trained-0000?.safetensors")
    assert {path.name for path in weights} == {
        "trained-00000.safetensors",
        "trained-00001.safetensors",
    }
    again = launch(recipe, tmp_path / "two")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("this run is finished already") == 1, again.stderr


def test_what_is_refused_is_told_once(tmp_path: Path, shards: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(asked(shards, threads=1, mixture={"weights": {"nowhere": 1}})))
    done = launch(recipe, tmp_path / "run")
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("puna: ")]
    assert len(told) == 1, done.stderr
    assert "nowhere" in told[0]
    assert not (tmp_path / "run").exists()
