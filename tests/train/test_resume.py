"""An interrupted run and an uninterrupted one end the same; damage is found; nothing is lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.errors import InputError
from puna.train import MetricsLog, TrainConfig, checkpoint_pieces, checkpoints
from puna.train.checkpoints import load, newest
from train.stub import CONFIG, Heard, assert_same, job, real_loader, train, values
from train.victim import run, whole_job

TESTS = Path(__file__).resolve().parent.parent
EVERY = replace(CONFIG, checkpoint_every_steps=2)


class Cut(Exception):
    """Ends a run from within, without a word to it."""


def cut() -> None:
    raise Cut


def figures(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without clocks and memory."""
    clocks = ("seconds", "tokens_per_second", "memory_bytes")
    rows = MetricsLog(folder).rows()
    return [{key: row[key] for key in row if key not in clocks} for row in rows]


def state(folder: Path) -> dict[str, Any]:
    """What the last checkpoint holds, without clocks."""
    saved, faults = newest(folder)
    assert saved is not None
    assert not faults
    progress = {**saved.state["progress"], "seconds": 0}
    tensors = {**saved.trained, **saved.optimizer}
    return {**saved.state, "progress": progress, "tensors": tensors}


def assert_same_end(one: Path, other: Path) -> None:
    first, second = state(one), state(other)
    assert_same(first.pop("tensors"), second.pop("tensors"))
    assert first == second
    assert figures(one) == figures(other)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_is_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, TESTS / "train" / "victim.py", tmp_path / "killed", str(seed)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    deaths = done.stdout.splitlines()[:-1]
    assert len(deaths) >= 3, done.stdout
    run(tmp_path / "whole", whole_job(), Heard())
    assert_same_end(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*")), "a killed writer's leavings"


@pytest.mark.parametrize("step", range(1, 8))
def test_any_step_is_a_good_one_to_stop_after(tmp_path: Path, step: int) -> None:
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
    with pytest.raises(Cut):
        train(job(dropout=True), tmp_path / "cut", EVERY, Heard({step: cut}))
    heard = Heard()
    train(job(dropout=True), tmp_path / "cut", EVERY, heard)
    train(job(dropout=True), tmp_path / "whole", EVERY)
    assert_same_end(tmp_path / "cut", tmp_path / "whole")
    kept = (step - 1) // 2 * 2
    assert heard.began == [(kept, 8)]
    if kept:
        assert heard.notes == [f"going on from the checkpoint after step {kept}"]


@pytest.mark.parametrize("step", [1, 4, 6])
def test_the_real_loader_goes_on_too(tmp_path: Path, step: int) -> None:
    config = replace(EVERY, micro_batches=2)
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
    with pytest.raises(Cut):
        train(job(real_loader(2)), tmp_path / "cut", config, Heard({step: cut}))
    train(job(real_loader(2)), tmp_path / "cut", config)
    result = train(job(real_loader(2)), tmp_path / "whole", config)
    assert_same_end(tmp_path / "cut", tmp_path / "whole")
    assert result.tokens == 2 * sum(len(example) for example in real_loader(1).examples)


def test_control_c_keeps_the_step_at_hand(tmp_path: Path) -> None:
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()
    heard = Heard({3: lambda: signal.raise_signal(signal.SIGINT)})
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(job(dropout=True), tmp_path / "cut", CONFIG, heard)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(heard.steps) == 3
    assert heard.notes == [
        "interrupted after step 3, whose checkpoint is written; "
        "the same command again goes on from there"
    ]
    assert [p.name for p in (tmp_path / "cut" / "checkpoints").iterdir()] == ["step-3"]
    train(job(dropout=True), tmp_path / "cut", CONFIG)
    train(job(dropout=True), tmp_path / "whole", CONFIG)
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_control_c_in_the_last_step_is_not_lost(tmp_path: Path) -> None:
    heard = Heard({8: lambda: signal.raise_signal(signal.SIGINT)})
    with pytest.raises(KeyboardInterrupt):
        train(job(), tmp_path, CONFIG, heard)
    assert heard.notes[0].startswith("interrupted after step 8, whose checkpoint is written")
    again = Heard()
    assert train(job(), tmp_path, CONFIG, again).stopped == "finished"
    assert again.steps == []


def test_control_c_ends_an_evaluation_at_once(tmp_path: Path) -> None:
    for name in ("cut", "whole"):
        (tmp_path / name).mkdir()

    def evaluate() -> dict[str, float]:
        if not told:
            told.append(1)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("still running")
        return {"validation_loss": 1.0}

    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train(job(dropout=True, evaluate=evaluate), tmp_path / "cut", CONFIG)
    train(job(dropout=True, evaluate=evaluate), tmp_path / "cut", CONFIG)
    train(job(dropout=True, evaluate=evaluate), tmp_path / "whole", CONFIG)
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_a_second_control_c_interrupts_within_a_step(tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    heard = Heard({3: twice})
    with pytest.raises(KeyboardInterrupt):
        train(job(), tmp_path, CONFIG, heard)
    assert heard.notes == []
    assert not (tmp_path / "checkpoints").exists(), "the state may not be whole"


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = train(job(), tmp_path)
    made, heard = job(), Heard()
    again = train(made, tmp_path, CONFIG, heard)
    assert heard.steps == []
    assert replace(again, seconds=0, peak_bytes=0) == replace(first, seconds=0, peak_bytes=0)
    assert_same(values(made), dict(load(tmp_path / "checkpoints" / "step-8").trained))


def damage(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        data = bytearray(path.read_bytes())
        data[-len(data) // 3] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("name", ["trained.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_a_damaged_checkpoint_is_left_out(tmp_path: Path, name: str, how: str) -> None:
    with pytest.raises(Cut):
        train(job(), tmp_path, EVERY, Heard({7: cut}))
    damage(tmp_path / "checkpoints" / "step-6" / name, how)
    made, heard = job(), Heard()
    train(made, tmp_path, EVERY, heard)
    assert heard.began == [(4, 8)]
    assert heard.notes[0].startswith("a checkpoint is damaged and left out: ")
    assert f"step-6/{name}" in heard.notes[0]
    assert heard.notes[1] == "going on from the checkpoint after step 4"
    (tmp_path / "whole").mkdir()
    train(job(), tmp_path / "whole", EVERY)
    assert_same_end(tmp_path, tmp_path / "whole")


def test_a_damaged_checkpoint_that_cannot_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step's new checkpoint would otherwise never be written, in silence."""
    with pytest.raises(Cut):
        train(job(), tmp_path, EVERY, Heard({7: cut}))
    damage(tmp_path / "checkpoints" / "step-6" / "state.json", "cut")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(InputError, match="step-6: is damaged, and could not be removed"):
        train(job(), tmp_path, EVERY)


def test_when_all_are_damaged_nothing_is_begun_anew(tmp_path: Path) -> None:
    train(job(), tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        damage(path / "state.json", "cut")
    with pytest.raises(InputError, match=r"step-8/state.json: no checkpoint can be read; the new"):
        train(job(), tmp_path)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_another_recipe_or_another_model_is_refused(tmp_path: Path) -> None:
    train(job(), tmp_path, TrainConfig(epochs=1))
    with pytest.raises(InputError, match="holds a run of another recipe or other data"):
        train(job(identity="another"), tmp_path)
    made = job()
    fewer = {name: p for name, p in made.parameters.items() if "mlp" in name}
    with pytest.raises(InputError, match=r"only the checkpoint has the parameter 'model.layers.1"):
        train(replace(made, parameters=fewer), tmp_path)
    cropped = {n: torch.nn.Parameter(p.detach()[:3].clone()) for n, p in made.parameters.items()}
    with pytest.raises(InputError, match=r"tensor .*: expected \[3.*\] of torch.float32, found"):
        train(replace(made, parameters=cropped), tmp_path)


def refuse(number: int, name: str) -> Any:
    def write(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize(
    ("module", "function"), [(checkpoint_pieces, "write_shard"), (checkpoints, "write_json")]
)
def test_a_disk_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, module: Any, function: str
) -> None:
    with monkeypatch.context() as patch:

        def fail() -> None:
            patch.setattr(module, function, refuse(code, function))

        with pytest.raises(InputError, match=rf"step-6: could not be.*{os.strerror(code)}") as told:
            train(job(), tmp_path, EVERY, Heard({5: fail}))
    assert "step-4 is whole: the run goes on from there" in str(told.value)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-2", "step-4"]
    (tmp_path / "whole").mkdir()
    train(job(), tmp_path, EVERY)
    train(job(), tmp_path / "whole", EVERY)
    assert_same_end(tmp_path, tmp_path / "whole")


def test_a_limit_on_file_sizes_is_told(tmp_path: Path) -> None:
    """A real refusal of the system, in a process of its own."""
    code = (
        "import resource, signal, sys, pathlib\n"
        "from train.stub import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "train(job(), pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert "step-4: could not be written: File too large" in done.stderr
    assert "no step is kept yet" in done.stderr
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_workspace_that_takes_no_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(InputError, match=r"checkpoints: could not be made: File exists"):
        train(job(), tmp_path)
    with pytest.raises(InputError, match=r"nowhere: is not a folder"):
        train(job(), tmp_path / "nowhere")


def test_a_checkpoint_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_VERSION", 99)
    train(job(), tmp_path)
    monkeypatch.undo()
    with pytest.raises(InputError, match="has the version 99, expected 2"):
        load(tmp_path / "checkpoints" / "step-8")
