"""The folder of a run: whose it is, who goes on in it, and what is never removed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.tuning_setup import Heard, assert_same_run, product, run
from puna.errors import InputError
from puna.flows import run_place, tuning
from puna.flows.run_place import held, open_place
from puna.tokens.rendering import PLAIN_TEMPLATE

Recipe = Callable[..., dict[str, Any]]


class Cut(Exception):
    """Ends a run from within."""


def cut() -> None:
    raise Cut


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its inode and time of change."""
    stats = {p: p.stat() for p in folder.rglob("*") if p.is_file()}
    return {str(p.relative_to(folder)): (s.st_ino, s.st_mtime_ns) for p, s in stats.items()}


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, recipe: Recipe) -> None:
    out, heard = tmp_path / "run", Heard()
    first = run(out, recipe())
    before = snapshot(out)
    again = run(out, recipe(title="T", meter={"power_watts": 300.0}, tensorboard=True), heard)
    assert (again.fresh, again.summary) == (False, first.summary)
    assert snapshot(out) == before
    assert (heard.steps, heard.stages) == ([], [])
    assert run(out, recipe(), resume=True).fresh is False


def test_what_a_finished_run_lost_is_made_again(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "run"
    run(out, recipe())
    before = product(out)
    for path in (out / "model").iterdir():
        path.unlink()
    (out / "model").rmdir()
    heard = Heard()
    assert run(out, recipe(), heard).fresh
    assert product(out) == before
    assert heard.steps == [], "the training itself is kept"


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"epochs": 3, "optim": {"learning_rate": 0.01}}},
        {"method_seed": 5},
        {"wording": {"prompt": "Say {source}"}},
        {"evaluation": {"resamples": 101}},
    ],
)
def test_another_recipe_is_refused(tmp_path: Path, recipe: Recipe, changes: dict[str, Any]) -> None:
    out = tmp_path / "run"
    run(out, recipe())
    before = snapshot(out)
    with pytest.raises(InputError, match="holds a run of another recipe, other data or anoth") as e:
        run(out, recipe(**changes))
    assert e.value.fix == "choose another --out, or add --force to begin again in this one"
    assert snapshot(out) == before


def test_a_template_file_that_changed_is_another_recipe(tmp_path: Path, recipe: Recipe) -> None:
    out, template = tmp_path / "run", tmp_path / "turns.jinja"
    template.write_text(PLAIN_TEMPLATE)
    asked = recipe(template=str(template))
    run(out, asked)
    assert not run(out, asked).fresh
    template.write_text(" " + PLAIN_TEMPLATE)
    with pytest.raises(InputError, match="holds a run of another recipe"):
        run(out, asked)


def test_other_data_are_refused_too(tmp_path: Path, recipe: Recipe) -> None:
    out, asked = tmp_path / "run", recipe()
    data = tmp_path / "mine.jsonl"
    data.write_bytes(Path(asked["data"]["train"]).read_bytes())
    asked["data"]["train"] = str(data)
    run(out, asked)
    with data.open("a") as file:
        file.write('{"source": "one more", "target": "pair"}\n')
    with pytest.raises(InputError, match="holds a run of another recipe, other data"):
        run(out, asked)


def test_force_begins_again(tmp_path: Path, recipe: Recipe) -> None:
    out, other = tmp_path / "run", recipe(method_seed=2)
    run(out, recipe(tensorboard=True))
    heard = Heard()
    assert run(out, other, heard, force=True).fresh
    assert heard.steps[0] == 1
    assert not (out / "tensorboard").exists()
    run(tmp_path / "whole", other)
    assert_same_run(out, tmp_path / "whole")


def test_a_killed_removal_leaves_no_half_run(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "run", recipe(method_seed=2)
    run(out, recipe())
    with monkeypatch.context() as patch:
        left = [3]

        def removing(path: Path) -> None:
            left[0] -= 1
            if not left[0]:
                raise Cut
            remove(path)

        remove = run_place._remove
        patch.setattr(run_place, "_remove", removing)
        with pytest.raises(Cut):
            run(out, other, force=True)
    assert (out / "before.json").exists(), "of the old run, and never to be taken for the new one's"
    run(out, other)
    run(tmp_path / "whole", other)
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.parametrize("name", ["notes.txt", "model", "report.html", ".hidden"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, recipe: Recipe, name: str) -> None:
    out, heard = tmp_path / "mine", Heard()
    (out / name).mkdir(parents=True) if name == "model" else (out.mkdir(), (out / name).touch())
    for force in (False, True):
        with pytest.raises(InputError, match=f"holds {name}, which is not of a run"):
            run(out, recipe(), heard, force=force)
    assert [p.name for p in out.iterdir()] == [name]
    assert heard.told == {}, "before anything is read"


@pytest.mark.parametrize("name", ["notes.txt", "model/notes.txt"])
def test_force_removes_no_foreign_file(tmp_path: Path, recipe: Recipe, name: str) -> None:
    out = tmp_path / "run"
    run(out, recipe())
    (out / name).write_text("mine")
    before = snapshot(out)
    with pytest.raises(InputError, match=f"holds {name}, which is not of a run"):
        run(out, recipe(method_seed=2), force=True)
    assert snapshot(out) == before
    assert not run(out, recipe()).fresh, "without --force it does no harm"


def test_resume_needs_a_run(tmp_path: Path, recipe: Recipe) -> None:
    for place in (tmp_path / "nowhere", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="holds no run to go on with") as told:
            run(place, recipe(), resume=True)
        assert told.value.fix == "leave out --resume to begin one"
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(InputError, match="--force begins again, and --resume goes on"):
        run(tmp_path / "empty", recipe(), resume=True, force=True)


def test_resume_goes_on(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "run"
    with pytest.raises(Cut):
        run(out, recipe(), Heard({"step 6": cut}))
    heard = Heard()
    done = run(out, recipe(), heard, resume=True)
    assert heard.steps == [5, 6, 7, 8], "from the checkpoint after the first epoch"
    assert any("interrupted and continued" in note for note in done.summary["notes"])
    run(tmp_path / "whole", recipe())
    assert_same_run(out, tmp_path / "whole")


def test_a_run_with_nothing_to_lose_makes_room(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "run"
    with pytest.raises(Cut):
        run(out, recipe(), Heard({"judging the base: scoring": cut}))
    assert [p.name for p in out.iterdir()] == ["run.json"]
    assert run(out, recipe(method_seed=3)).fresh


def test_places_that_cannot_be(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; a run is a folder"):
        run(tmp_path / "file", recipe())
    with pytest.raises(InputError, match=r"the folder .*/no does not exist") as told:
        run(tmp_path / "no" / "run", recipe())
    assert told.value.fix == f"mkdir -p {tmp_path / 'no'}"


def test_a_damaged_note(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "run"
    run(out, recipe())
    (out / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run.json: is not JSON.*\n  fix: begin again with --fo"):
        run(out, recipe())
    (out / "run.json").write_text("[]")
    with pytest.raises(InputError, match="holds a run of another recipe"):
        run(out, recipe())
    assert run(out, recipe(), force=True).fresh


def test_two_processes_on_one_run(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "run"
    seen: list[str] = []

    def another() -> None:
        for force in (False, True):
            with pytest.raises(InputError, match="is in use: another process is at work") as told:
                run(out, recipe(), force=force)
            seen.append(str(told.value))

    run(out, recipe(), Heard({"step 3": another}))
    assert len(seen) == 2
    with held(out):
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("function", ["save_tuned", "write_json"])
def test_a_disk_that_refuses_the_product(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, code: int, function: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(f"puna.flows.products.{function}", fail)
        with pytest.raises(InputError, match=rf"model: could not be written: {os.strerror(code)}"):
            run(out, recipe())
    assert not (out / "model").exists()
    assert not list(out.glob(".*"))
    heard = Heard()
    run(out, recipe(), heard)
    assert heard.steps == []
    run(tmp_path / "whole", recipe())
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.parametrize("name", ["before.json", "after.json", "summary.json"])
def test_a_disk_that_refuses_a_file(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(path: Path, value: Any) -> None:
        if path.name.startswith(f".{name}."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_json(path, value)

    out, write_json = tmp_path / "run", tuning.write_json
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "write_json", fail)
        with pytest.raises(InputError, match=rf"{name}: could not be written: No space left"):
            run(out, recipe())
    assert not (out / name).exists()
    assert json.loads((out / "run.json").read_text())["state"] == "running"
    assert run(out, recipe()).fresh


def test_a_place_that_takes_nothing(recipe: Recipe) -> None:
    with pytest.raises(InputError, match=r"/proc/puna: could not be made") as told:
        run(Path("/proc/puna"), recipe())
    assert told.value.fix == "choose a folder that you may write to"


def test_open_place_tells_what_it_found(tmp_path: Path) -> None:
    place = open_place(tmp_path / "run", "a")
    assert (place.finished, place.begun) == (False, False)
    (place.path / "before.json").write_text("{}")
    place = open_place(tmp_path / "run", "a")
    assert (place.finished, place.begun) == (False, True)
    place.finish()
    assert not open_place(place.path, "a").finished, "there is no model"
    for name in ("model", "summary.json", "report.html"):
        (place.path / name).mkdir()
    assert open_place(place.path, "a").finished
