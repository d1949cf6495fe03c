"""Under torchrun: ranks that stop say why, once; a restart goes on from the last checkpoint."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from puna.train.checkpoints import load_step, newest
from train.stub import assert_same

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parent.parent


def launch(
    folder: Path, mode: str, restarts: int = 0
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run two ranks; also gives what they say as `puna` does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--max-restarts", str(restarts)]
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("TORCHELASTIC", "RANK"))
    }
    environment |= {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, str(TESTS / "train" / "launched.py"), str(folder), mode],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        check=False,
    )
    return done, re.findall(r"^puna: (.*)$", done.stderr, re.MULTILINE)


def test_a_killed_rank_ends_the_others(tmp_path: Path) -> None:
    began = time.monotonic()
    done, told = launch(tmp_path / "run", "killed")
    assert done.returncode != 0
    assert len(told) == 1, done.stderr
    assert told[0].startswith(("another rank stopped", "told to stop (SIGTERM)"))
    assert "the same command goes on from the last checkpoint" in done.stderr
    assert time.monotonic() - began < 120, "nobody waits for the dead"
    saved, _ = newest(tmp_path / "run")
    assert saved is not None and saved.step in (2, 4)


def test_a_restart_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    done, told = launch(tmp_path / "killed", "killed", restarts=1)
    assert done.returncode == 0, done.stderr
    assert len(told) == 1, done.stderr
    assert re.search(r"going on from the checkpoint after step [24]", done.stdout)
    whole, told = launch(tmp_path / "whole", "whole")
    assert whole.returncode == 0, whole.stderr
    assert told == []
    found, wanted = (load_step(tmp_path / name, 6) for name in ("killed", "whole"))
    assert_same(dict(found.trained), dict(wanted.trained))
    assert_same(dict(found.optimizer), dict(wanted.optimizer))


def test_an_error_of_one_rank_is_told_by_it_alone(tmp_path: Path) -> None:
    done, told = launch(tmp_path / "run", "fault")
    assert done.returncode != 0
    assert told == ["the disk of this rank is gone"], done.stderr


def test_an_error_of_all_ranks_is_told_once(tmp_path: Path) -> None:
    done, told = launch(tmp_path / "run", "agreed")
    assert done.returncode != 0
    assert told == ["the recipe is wrong"], done.stderr
