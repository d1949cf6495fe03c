"""Checkpoints that are written beside the steps change no bit of a run, and lose none of it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from puna.errors import InputError
from puna.train import checkpoint_pieces, fit
from puna.train.checkpoints import newest
from train.stub import CONFIG, SINGLE, Heard, job, train
from train.test_resume import Cut, assert_same_end, cut
from train.victim import run, whole_job

TESTS = Path(__file__).resolve().parent.parent
EVERY = replace(CONFIG, checkpoint_every_steps=2)
BESIDE = replace(EVERY, background_checkpoints=True)


@pytest.mark.parametrize("seed", [2, 3])
def test_a_run_that_is_killed_while_a_thread_writes(tmp_path: Path, seed: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            sys.executable,
            TESTS / "train" / "background_victim.py",
            tmp_path / "killed",
            str(seed),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deaths = done.stdout.splitlines()[:-1]
    assert len(deaths) >= 3, done.stdout
    run(tmp_path / "whole", whole_job(), Heard())  # whose checkpoints are written at once
    assert_same_end(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*")), "a killed writer's leavings"


@pytest.mark.parametrize("step", range(1, 8))
def test_any_step_is_a_good_one_to_stop_after(tmp_path: Path, step: int) -> None:
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
    with pytest.raises(Cut):
        train(job(dropout=True), tmp_path / "cut", BESIDE, Heard({step: cut}))
    heard = Heard()
    train(job(dropout=True), tmp_path / "cut", BESIDE, heard)
    train(job(dropout=True), tmp_path / "whole", EVERY)
    assert_same_end(tmp_path / "cut", tmp_path / "whole")
    assert heard.began == [((step - 1) // 2 * 2, 8)], "what was being written was finished"


@pytest.mark.parametrize("calls", [1, 3])
def test_a_full_disk_ends_the_run_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    write, left = checkpoint_pieces.write_shard, [calls]

    def refuse(path: Path, tensors: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, tensors)

    monkeypatch.setattr(checkpoint_pieces, "write_shard", refuse)
    text = "could not be written: No space left on device"
    with pytest.raises(InputError, match=text) as told:
        train(job(), tmp_path, BESIDE)
    saved, faults = newest(tmp_path)
    assert not faults
    if calls == 1:
        assert saved is None
        assert "no step is kept yet" in str(told.value)
    else:
        assert saved is not None
        assert saved.step == 2
        assert "step-2 is whole: the run goes on from there" in str(told.value)
    assert not list((tmp_path / "checkpoints").glob(".*"))
    monkeypatch.undo()
    (tmp_path / "whole").mkdir()
    train(job(), tmp_path, BESIDE)
    train(job(), tmp_path / "whole", EVERY)
    assert_same_end(tmp_path, tmp_path / "whole")


def test_the_best_one_is_there_at_the_end(tmp_path: Path) -> None:
    """An evaluation's checkpoint has its place before the run's result names it."""
    figures = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    made = job(evaluate=lambda: {"validation_loss": next(figures)})
    config = replace(BESIDE, evaluate_every_steps=2, keep_checkpoints=1)
    result = fit(made, config, tmp_path, world=SINGLE, report=Heard())
    assert result.best_step == 4
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-4", "step-8"]
