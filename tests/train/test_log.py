"""metrics.jsonl and its cousins: whole lines, no line twice, nothing that is not JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from puna.errors import InputError
from puna.train import MetricsLog, Several, StepMetrics, TensorBoard
from train.stub import Heard


def metrics(step: int, loss: float = 2.0) -> StepMetrics:
    return StepMetrics(
        step=step,
        epoch=step / 4,
        loss=loss,
        terms={"next_token": loss},
        learning_rate=1e-4,
        grad_norm=0.5,
        tokens=100,
        trained_tokens=40,
        tokens_per_second=1000.0,
        seconds=float(step),
        memory_bytes=1 << 20,
        skipped=not math.isfinite(loss),
    )


def test_lines_are_json_even_where_figures_are_not_finite(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    assert log.rows() == []
    log.step(metrics(1, math.nan))
    log.evaluated(1, {"validation_loss": math.inf, "bleu": 3.5})

    def never(constant: str) -> None:
        raise AssertionError(constant)

    lines = log.path.read_text().splitlines()
    step, evaluation = (json.loads(line, parse_constant=never) for line in lines)
    assert step["loss"] is None
    assert step["terms"] == {"next_token": None}
    assert step["skipped"] is True
    assert evaluation == {"kind": "evaluation", "step": 1, "validation_loss": None, "bleu": 3.5}


def test_what_came_after_a_checkpoint_is_cut(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.cut(0, 0)
    assert not log.path.exists()
    for step in range(1, 5):
        log.step(metrics(step))
        log.evaluated(step, {"validation_loss": 1.0})
    with log.path.open("a") as file:
        file.write('{"kind": "step", "st')  # a writer that was killed
    log.cut(3, 2)
    assert [(r["kind"], r["step"]) for r in log.rows()] == [
        *[(kind, step) for step in (1, 2) for kind in ("step", "evaluation")],
        ("step", 3),
    ]
    log.step(metrics(4))
    assert [r["step"] for r in log.rows()] == [1, 1, 2, 2, 3, 4]


def test_events_are_cut_by_their_number(tmp_path: Path) -> None:
    """A run that went back has events of steps that are yet to come."""
    log = MetricsLog(tmp_path)
    for number, step in enumerate((2, 7, 8), 1):
        log.event(step, {"event": "skipped", "loss": math.nan, "number": number})
    log.step(metrics(3))
    log.cut(3, 0, 2)
    assert [(r["kind"], r["step"]) for r in log.rows()] == [("event", 2), ("event", 7), ("step", 3)]
    assert log.rows()[1] == {
        "kind": "event",
        "step": 7,
        "event": "skipped",
        "loss": None,
        "number": 2,
    }
    log.cut(3, 0)
    assert [r["kind"] for r in log.rows()] == ["step"]


def test_what_the_optimizer_tells_is_logged(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.step(metrics(1))
    log.step(replace(metrics(2), optimizer={"trust_ratio": {"min": 0.5}}))
    plain, telling = log.rows()
    assert "optimizer" not in plain
    assert telling["optimizer"] == {"trust_ratio": {"min": 0.5}}


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    log = MetricsLog(tmp_path)
    log.path.symlink_to(full)
    with pytest.raises(InputError, match=r"metrics.jsonl: could not be written: No space left"):
        log.step(metrics(1))


def test_several_reporters_hear_the_same() -> None:
    heard = [Heard(), Heard()]
    several = Several(heard)
    several.begin(0, 9)
    several.step(metrics(1))
    several.evaluated(1, {"x": 1.0}, True)
    several.note("a note")
    several.end()
    for one in heard:
        assert one.began == [(0, 9)]
        assert [m.step for m in one.steps] == [1]
        assert one.evaluations == [(1, {"x": 1.0}, True)]
        assert one.notes == ["a note"]
        assert one.ended == 1


def test_tensorboard_events_can_be_read(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    board = TensorBoard(tmp_path)
    board.end()  # a run that ends before it begins
    board.begin(0, 2)
    board.step(metrics(1))
    board.evaluated(1, {"validation_loss": 1.25}, True)
    board.end()
    found = {}
    for path in tmp_path.glob("events*"):
        data, position = path.read_bytes(), 0
        while position < len(data):  # a record: length, checksum, data, checksum
            length = int.from_bytes(data[position : position + 8], "little")
            event = Event.FromString(data[position + 12 : position + 12 + length])
            found |= {value.tag: value.simple_value for value in event.summary.value}
            position += length + 16
    assert found["train/loss"] == 2.0
    assert found["train/tokens_per_second"] == 1000.0
    assert found["evaluation/validation_loss"] == 1.25


def test_tensorboard_forgets_what_a_run_went_back_behind(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    board = TensorBoard(tmp_path)
    board.begin(0, 9)
    for step in (1, 2, 3, 2, 3):
        board.step(metrics(step))
    board.end()
    first, second = sorted(tmp_path.glob("events*"))
    assert (first.name[-2:], second.name[-2:]) == (".1", ".2")
    assert second.stat().st_size > 0
