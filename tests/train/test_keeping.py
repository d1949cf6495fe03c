"""Checkpoints written at once and beside the steps: what is in them, when, and what goes wrong."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.errors import InputError
from puna.scale.pieces import piece
from puna.train import checkpoint_pieces
from puna.train.checkpoints import load_step, newest
from puna.train.keeping import Content, Keeper
from train.stub import SINGLE


def content(step: int, value: float, best: int | None = None) -> Content:
    """A checkpoint of one matrix that is filled with a value."""
    weight = torch.full((3, 2), value)
    state = {"weight/exp_avg": torch.full((3, 2), -value), "weight/step": torch.tensor(1.0 * step)}
    places = {"weight": piece(weight)}
    return Content(step, {"of": step}, {"weight": weight}, state, places, False, best)


def keeper(folder: Path, background: bool = True, keep: int = 2) -> Keeper:
    return Keeper(folder, SINGLE, newest=keep, background=background)


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


class Gate:
    """Holds writers until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.open = threading.Event()
        write = checkpoint_pieces.write_shard

        def held(path: Path, tensors: Any) -> Any:
            assert self.open.wait(30)
            return write(path, tensors)

        patch.setattr(checkpoint_pieces, "write_shard", held)


@pytest.mark.parametrize("background", [False, True])
def test_what_is_kept_comes_back(tmp_path: Path, background: bool) -> None:
    made = keeper(tmp_path, background)
    made.keep(content(1, 0.5))
    made.finish()
    saved = load_step(tmp_path, 1)
    assert (saved.step, saved.state) == (1, {"of": 1})
    assert saved.trained["weight"].tolist() == [[0.5] * 2] * 3
    assert saved.optimizer["weight/exp_avg"].tolist() == [[-0.5] * 2] * 3
    assert float(saved.optimizer["weight/step"]) == 1
    assert sorted(path.name for path in saved.path.iterdir()) == [
        "optimizer.safetensors",
        "state.json",
        "trained.safetensors",
    ]


def test_steps_go_on_while_one_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, made = Gate(monkeypatch), keeper(tmp_path)
    kept = content(1, 0.5)
    assert not made.is_written
    made.keep(kept)
    kept.trained["weight"].add_(1)  # the steps that follow
    kept.optimizer["weight/exp_avg"].add_(1)
    assert not made.is_written
    made.settle(made.is_written)
    assert newest(tmp_path) == (None, [])
    gate.open.set()
    made.finish()
    saved = load_step(tmp_path, 1)
    assert saved.trained["weight"].tolist() == [[0.5] * 2] * 3
    assert saved.optimizer["weight/exp_avg"].tolist() == [[-0.5] * 2] * 3
    assert not made.is_written, "nothing is left to give a place to"


def test_what_is_written_gets_its_place(tmp_path: Path) -> None:
    made = keeper(tmp_path)
    made.keep(content(1, 0.5))
    pending = made._pending
    assert pending is not None
    pending.writer.join(30)
    assert made.is_written
    assert newest(tmp_path) == (None, [])
    made.settle(False)  # another rank is not so far
    assert newest(tmp_path) == (None, [])
    made.settle(True)
    assert steps(tmp_path) == ["step-1"]


def test_the_next_one_waits_for_the_one_before(tmp_path: Path) -> None:
    made = keeper(tmp_path)
    for step in range(1, 6):
        made.keep(content(step, step, best=1))
    assert "step-4" in steps(tmp_path)
    made.finish()
    assert steps(tmp_path) == ["step-1", "step-4", "step-5"]
    made.finish()


def test_none_is_removed_where_that_is_not_wanted(tmp_path: Path) -> None:
    made = keeper(tmp_path, background=False, keep=1)
    for step in (1, 2):
        kept = content(step, 1.0)
        object.__setattr__(kept, "prune", False)
        made.keep(kept)
    assert steps(tmp_path) == ["step-1", "step-2"]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_disk_that_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool, code: int
) -> None:
    made = keeper(tmp_path, background)
    made.keep(content(1, 0.5))

    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    made.finish()
    monkeypatch.setattr(checkpoint_pieces, "write_shard", refuse)
    text = f"step-2: could not be written: {os.strerror(code)}"
    with pytest.raises(InputError, match=text) as told:
        made.keep(content(2, 0.5))
        made.finish()
    assert "step-1 is whole: the run goes on from there" in str(told.value)
    assert steps(tmp_path) == ["step-1"]
    monkeypatch.undo()
    made.keep(content(2, 0.5))
    made.finish()
    assert steps(tmp_path) == ["step-1", "step-2"]


@pytest.mark.parametrize("background", [False, True])
def test_a_value_that_is_not_finite_is_told(tmp_path: Path, background: bool) -> None:
    made = keeper(tmp_path, background)
    with pytest.raises(InputError, match="tensor 'weight': 6 of 6 values are not finite"):
        made.keep(content(1, float("nan")))
        made.finish()
    assert steps(tmp_path) == []


@pytest.mark.parametrize("background", [False, True])
def test_a_defect_in_the_thread_is_raised_where_one_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    def break_down(*_: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(checkpoint_pieces, "write_shard", break_down)
    made = keeper(tmp_path, background)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        made.keep(content(1, 0.5))
        made.finish()
    assert steps(tmp_path) == []


def test_a_failure_of_the_run_does_not_lose_what_is_written(tmp_path: Path) -> None:
    made = keeper(tmp_path)
    made.keep(content(1, 0.5))
    made.close()
    assert steps(tmp_path) == ["step-1"]
    made.close()


def test_a_write_that_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    made = keeper(tmp_path, background=False)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_pieces, "write_shard", interrupt)
        with pytest.raises(KeyboardInterrupt):
            made.keep(content(1, 0.5))
    made.close()
    assert steps(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(InputError, match="checkpoints: could not be made: File exists"):
        keeper(tmp_path).keep(content(1, 0.5))
