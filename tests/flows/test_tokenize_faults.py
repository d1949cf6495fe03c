"""Tokenizing runs that are killed, interrupted, out of space or out of step with their files."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import puna.artifact
from flows import tokenize_victim
from flows.tokenizing_setup import asked, content, left_behind, rows, run, text, texts_of
from flows.tuning_setup import Heard
from puna.artifact import locked
from puna.errors import InputError
from puna.flows import tokenizing
from puna.flows.tokenize_place import DOING
from puna.flows.workspace import workspace_path
from puna.tokens.shard_writer import ShardWriter

TESTS = Path(__file__).resolve().parent.parent
SOURCES = {"web": rows(60), "books": rows(30, begin=500)}


@pytest.fixture
def recipe(tmp_path: Path, tiny_base: Path) -> dict[str, Any]:
    """With the vocabulary of a tiny model."""
    return asked(tmp_path / "data", SOURCES, {"model": str(tiny_base)}, shard_tokens=800)


@pytest.fixture
def whole(tmp_path: Path, recipe: dict[str, Any]) -> dict[str, str]:
    """What comes of it undisturbed."""
    run(tmp_path / "whole", recipe)
    return content(tmp_path / "whole")


def dying(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """From the count-th document on, an error."""
    add, left = ShardWriter.add, [count]

    def call(writer: ShardWriter, document: Any) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise error
        add(writer, document)

    monkeypatch.setattr(ShardWriter, "add", call)


def test_a_run_that_is_killed_all_along_the_way(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            TESTS / "flows" / "tokenize_victim.py",
            tmp_path / "killed",
            tmp_path / "data",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    ends = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    dead = [[place, str(int(signal.SIGKILL))] for place in tokenize_victim.PLACES]
    assert ends == [*dead, ["nowhere", "0"]], done.stderr
    run(tmp_path / "whole", tokenize_victim.recipe(tmp_path / "data"))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert left_behind(tmp_path / "killed") == [], "nothing is left over"


def test_only_what_is_missing_is_encoded_again(
    tmp_path: Path, recipe: dict[str, Any], whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dying(patch, 50, KeyboardInterrupt())
        heard = Heard()
        run(tmp_path / "cut", recipe, heard)
    assert heard.notes[-1] == "what is done is kept; the same command goes on"
    assert not (tmp_path / "cut").exists()
    kept = list(workspace_path(tmp_path / "cut", DOING).rglob("*.safetensors"))
    assert kept
    monkeypatch.setattr(tokenizing, "make_plan", None)  # which is there
    monkeypatch.setattr(tokenizing, "make_vocabulary", None)
    heard = Heard()
    done = run(tmp_path / "cut", recipe, heard)
    assert "going on with what an earlier run left" in heard.notes[0]
    total = sum(file.tokens for source in done.index.sources for file in source.files)
    assert 0 < done.tokens_encoded < total
    assert content(tmp_path / "cut") == whole
    assert left_behind(tmp_path / "cut") == []


@pytest.mark.parametrize("moment", [1, 4, 8, 15, 22, 30])
def test_a_full_disk(
    tmp_path: Path,
    recipe: dict[str, Any],
    whole: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    moment: int,
) -> None:
    sync, left = puna.artifact._sync, [moment]

    def full(path: Path) -> None:
        left[0] -= 1
        if left[0] <= 0 and path.is_file():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(puna.artifact, "_sync", full)
        with pytest.raises(InputError, match=r"No space left on device.*\n  fix: free some space"):
            run(tmp_path / "full", recipe)
    assert not (tmp_path / "full").exists()
    assert not list(workspace_path(tmp_path / "full", DOING).rglob("*.partial"))
    run(tmp_path / "full", recipe)
    assert content(tmp_path / "full") == whole


def test_the_same_command_again_does_nothing(
    tmp_path: Path, recipe: dict[str, Any], whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "open_workspace", None)
    done = run(tmp_path / "whole", recipe)
    assert not done.fresh
    assert done.tokens_encoded == 0
    assert "tokens/s" not in "\n".join(done.lines())
    assert content(tmp_path / "whole") == whole


def test_another_recipe_does_not_go_on_with_the_work(
    tmp_path: Path, recipe: dict[str, Any], whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dying(patch, 50, KeyboardInterrupt())
        run(tmp_path / "cut", recipe)
    other = {**recipe, "seed": 7}
    told = r"cut: was begun in \.cut\.tokenizing with another recipe, .*\n  fix: .*--force"
    with pytest.raises(InputError, match=told):
        run(tmp_path / "cut", other)
    run(tmp_path / "cut", other, force=True)
    assert content(tmp_path / "cut") != whole
    with pytest.raises(InputError, match="already exists"):
        run(tmp_path / "cut", recipe)
    run(tmp_path / "cut", recipe, force=True)
    assert content(tmp_path / "cut") == whole
    run(tmp_path / "whole", recipe, force=True)
    assert content(tmp_path / "whole") == whole


def test_files_that_change_while_they_are_read(
    tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    web = Path(recipe["sources"]["web"]["files"])
    sound = web.read_text()

    def changing(told: str) -> None:
        web.write_text(sound)
        load = tokenizing.load_vocabulary

        def change(folder: Path) -> Any:
            web.write_text(told)
            return load(folder)

        with monkeypatch.context() as patch:
            patch.setattr(tokenizing, "load_vocabulary", change)
            run(tmp_path / "out", recipe, force=True)

    for told in (sound[: len(sound) // 2], sound + json.dumps({"text": "more"}) + "\n"):
        with pytest.raises(InputError, match=r"sources\.web: its documents are not those that"):
            changing(told)
    with pytest.raises(InputError, match="some files changed while they were read"):
        changing(sound.replace("number 7:", "number 8:"))
    assert not (tmp_path / "out").exists()


def test_work_whose_files_changed_is_not_gone_on_with(
    tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dying(patch, 50, KeyboardInterrupt())
        run(tmp_path / "cut", recipe)
    web = Path(recipe["sources"]["web"]["files"])
    web.write_text(web.read_text() + json.dumps({"text": text(9999)}) + "\n")
    with pytest.raises(InputError, match="with another recipe, other files or another vocabulary"):
        run(tmp_path / "cut", recipe)


def test_work_that_is_damaged(
    tmp_path: Path, recipe: dict[str, Any], whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dying(patch, 50, KeyboardInterrupt())
        run(tmp_path / "cut", recipe)
    work = workspace_path(tmp_path / "cut", DOING)
    plan = work / "plan" / "web.npz"
    sound = plan.read_bytes()
    plan.write_bytes(sound[:-30])
    with pytest.raises(InputError, match=r"plan: is damaged\n  fix: begin again with --force"):
        run(tmp_path / "cut", recipe)
    plan.write_bytes(sound)
    (shard, *_) = sorted(work.rglob("train-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="the file is cut short"):
        run(tmp_path / "cut", recipe)
    run(tmp_path / "cut", recipe, force=True)
    assert content(tmp_path / "cut") == whole


def test_two_runs_into_one_folder(tmp_path: Path, recipe: dict[str, Any]) -> None:
    work = workspace_path(tmp_path / "out", DOING)
    work.mkdir()
    told = "out: is in use: another process is tokenizing into this folder"
    with locked(work), pytest.raises(InputError, match=told):
        run(tmp_path / "out", recipe)


def test_a_disk_without_hard_links(
    tmp_path: Path, recipe: dict[str, Any], whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    run(tmp_path / "copied", recipe)
    assert content(tmp_path / "copied") == whole


def test_what_was_published_survives_a_failed_replacement(
    tmp_path: Path, recipe: dict[str, Any], whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dying(patch, 50, KeyboardInterrupt())
        run(tmp_path / "whole", {**recipe, "seed": 3}, force=True)
    assert content(tmp_path / "whole") == whole
    assert texts_of(tmp_path / "whole")["web"]["train"]
