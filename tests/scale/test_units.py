"""Units are whole or absent: a rerun makes what is missing, and nothing else, into the same."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.artifact import MANIFEST, read_json, write_json
from puna.errors import InputError
from puna.scale.executor import Task, Work, run_tasks
from puna.scale.units import UnitStore, unit_key

KEY = unit_key({"path": "a.jsonl", "bytes": 3}, ["clean"])


def fill(store: UnitStore, key: str = KEY, text: str = "text") -> Path:
    with store.writing(key, config={"steps": 1}, parents=["p"], measured={"seconds": 2}) as folder:
        (folder / "inner").mkdir()
        (folder / "rows.txt").write_text(text)
        (folder / "inner" / "more.txt").write_text("more")
    return store.place(key)


def test_a_unit_is_found_again(tmp_path: Path) -> None:
    store = UnitStore(tmp_path / "run" / "units", kind="curated unit")
    assert not store.is_done(KEY)
    assert store.written() == []
    assert store.missing([KEY]) == [KEY]
    place = fill(store)
    assert store.is_done(KEY)
    assert store.written() == [KEY]
    assert store.missing(["other", KEY]) == ["other"]
    unit = UnitStore(store.folder, kind="curated unit").reading(KEY)
    assert unit.folder == place
    assert (unit.folder / "rows.txt").read_text() == "text"
    identity = unit.manifest["identity"]
    assert sorted(identity["files"]) == ["inner/more.txt", "rows.txt"]
    assert identity["config"] == {"steps": 1, "key": KEY}
    assert (identity["kind"], identity["parents"]) == ("curated unit", ["p"])
    assert unit.manifest["measured"]["seconds"] == 2


def test_the_block_may_fill_in_what_it_cost(tmp_path: Path) -> None:
    store, cost = UnitStore(tmp_path), {}
    with store.writing(KEY, measured=cost):
        cost["documents"] = 7
    assert store.reading(KEY).manifest["measured"]["documents"] == 7
    assert store.is_done(KEY), "a unit without files is one too"


def test_the_same_content_has_the_same_identity(tmp_path: Path) -> None:
    one, two = UnitStore(tmp_path / "1"), UnitStore(tmp_path / "2")
    fill(one)
    fill(two)
    assert one.reading(KEY).identity == two.reading(KEY).identity
    fill(two, text="other")
    assert one.reading(KEY).identity != two.reading(KEY).identity


@given(inputs=st.dictionaries(st.text(), st.integers()), steps=st.lists(st.text()))
def test_a_key_is_the_name_of_a_folder(inputs: dict[str, int], steps: list[str]) -> None:
    key = unit_key(inputs, steps)
    assert key == unit_key(dict(reversed(inputs.items())), steps)
    assert key != unit_key(inputs, [*steps, "one more"])
    assert UnitStore(Path("x")).place(key).parent == Path("x")


def test_a_unit_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not there, or damaged\n  fix: run the same command"):
        UnitStore(tmp_path).reading(KEY)
    with pytest.raises(AssertionError):
        UnitStore(tmp_path).place("../elsewhere")


# --- damage -------------------------------------------------------------------------------------


def _flip(place: Path) -> None:
    file = place / "rows.txt"
    data = bytearray(file.read_bytes())
    data[1] ^= 1
    file.write_bytes(data)


def _of_another(place: Path) -> None:
    told = read_json(place / MANIFEST)
    other = UnitStore(place.parent)
    fill(other, "other")
    assert told != read_json(other.place("other") / MANIFEST)
    (place / MANIFEST).write_bytes((other.place("other") / MANIFEST).read_bytes())


def _edited(place: Path) -> None:
    told = read_json(place / MANIFEST)
    told["identity"]["parents"] = []
    write_json(place / MANIFEST, told)


DAMAGES = {
    "one bit": (_flip, "rows.txt is not what was written"),
    "cut": (lambda place: os.truncate(place / "rows.txt", 2), "rows.txt is not what was written"),
    "file gone": (
        lambda place: (place / "inner" / "more.txt").unlink(),
        "inner/more.txt: No such file",
    ),
    "manifest gone": (lambda place: (place / MANIFEST).unlink(), "manifest is missing"),
    "manifest cut": (lambda place: os.truncate(place / MANIFEST, 40), "manifest is missing or"),
    "manifest edited": (_edited, "manifest is missing or cannot be read"),
    "manifest of another": (_of_another, "manifest is that of something else"),
    "one file more": (lambda place: (place / "z").write_text("z"), "z does not belong to it"),
    "empty": (lambda place: [(place / MANIFEST).write_text("")], "manifest is missing or"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_unit_is_told_and_made_again(tmp_path: Path, damage: str) -> None:
    told: list[str] = []
    store = UnitStore(tmp_path, tell=told.append)
    fill(store)
    sound = store.reading(KEY).identity
    assert store.is_done(KEY)
    assert told == []
    harm, words = DAMAGES[damage]
    harm(store.place(KEY))
    assert not store.is_done(KEY)
    assert words in told[0]
    assert told[0].endswith("it is made again")
    assert str(store.place(KEY)) in told[0]
    fill(store)
    assert store.is_done(KEY)
    assert store.reading(KEY).identity == sound
    assert len(told) == 1
    assert [file.name for file in tmp_path.iterdir() if file.name != "other"] == [KEY]


def test_a_unit_of_another_kind_is_none_of_ours(tmp_path: Path) -> None:
    fill(UnitStore(tmp_path, kind="edges"))
    assert not UnitStore(tmp_path, kind="documents").is_done(KEY)


# --- what fails, fails whole --------------------------------------------------------------------


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    store = UnitStore(tmp_path)
    with pytest.raises(KeyError), store.writing(KEY) as folder:
        (folder / "rows.txt").write_text("half")
        raise KeyError("a bug")
    assert list(tmp_path.iterdir()) == []
    fill(store)
    with pytest.raises(KeyError), store.writing(KEY):
        raise KeyError("a bug")
    assert store.is_done(KEY)


def test_two_that_write_the_same_unit_do_not_harm_each_other(tmp_path: Path) -> None:
    """As when a machine of a cluster is taken for dead, and is not."""
    one, two = UnitStore(tmp_path), UnitStore(tmp_path)
    with one.writing(KEY) as first:
        (first / "rows.txt").write_text("text")
        with two.writing(KEY) as second:
            (second / "rows.txt").write_text("text")
        assert two.is_done(KEY)
    assert one.is_done(KEY)
    assert [file.name for file in tmp_path.iterdir()] == [KEY]


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    store = UnitStore(tmp_path)
    left = tmp_path / ".other.01234567.partial"
    left.mkdir()
    (left / "rows.txt").write_text("half")
    with store.writing(KEY):
        store.sweep()
    assert [file.name for file in tmp_path.iterdir()] == [KEY]
    assert store.is_done(KEY)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(tmp_path: Path) -> None:
    store = UnitStore(tmp_path)
    full = "No space left on device\n  fix: free some space, .* nothing was left behind"
    with pytest.raises(InputError, match=full), store.writing(KEY) as folder:
        (folder / "rows.txt").write_text("half")
        Path("/dev/full").write_text("a real ENOSPC")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_when_the_manifest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, value: object) -> None:
        path.write_text("{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    store = UnitStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("puna.scale.units.write_json", refuse)
        with pytest.raises(InputError, match="No space left"):
            fill(store)
    assert list(tmp_path.iterdir()) == []
    fill(store)
    assert store.is_done(KEY)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be made: Not a directory"):
        fill(UnitStore(tmp_path / "file" / "units"))


# --- killed at any moment -----------------------------------------------------------------------

UNITS = 8
RUN = """
    import sys
    from pathlib import Path
    from puna.scale.executor import Task, Work, run_tasks
    from puna.scale.units import UnitStore, unit_key

    keys = {unit_key(number, []): number for number in range(%d)}
    store = UnitStore(Path(sys.argv[1]), tell=print)
    tasks = [Task(key, {"key": key, "number": keys[key]}) for key in store.missing(keys)]
    work = Work("scale.executor_work:make_unit", {"folder": sys.argv[1], "seconds": 0.05})
    print("begun", flush=True)
    assert all(one.error is None for one in run_tasks(tasks, work, workers=2))
"""


def begin(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RUN % UNITS), str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )


def made(folder: Path) -> dict[str, tuple[str, int]]:
    """Identity and inode of each unit."""
    store = UnitStore(folder)
    assert store.missing(store.written()) == []
    return {
        key: (store.reading(key).identity, (store.place(key) / "a.txt").stat().st_ino)
        for key in store.written()
    }


@pytest.mark.slow
def test_a_rerun_after_a_kill_makes_what_is_missing(tmp_path: Path) -> None:
    folder, chance = tmp_path / "killed", random.Random(11)
    seen: dict[str, tuple[str, int]] = {}
    kills = 0
    for _ in range(20):
        with begin(folder) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == "begun\n", "and no word of damage"
            _wait_for_one_more(folder, run, len(seen))
            time.sleep(chance.uniform(0, 0.15))
            run.send_signal(signal.SIGKILL)
        kills += run.returncode == -signal.SIGKILL
        time.sleep(0.1)  # for the workers to go with it
        now = made(folder)
        assert seen.items() <= now.items(), "what was whole was made again"
        seen = now
        if run.returncode == 0:
            break
    assert len(seen) == UNITS
    assert kills >= 2, "it was over before it was killed"
    work = Work("scale.executor_work:make_unit", {"folder": str(tmp_path / "u"), "seconds": 0})
    tasks = [Task(k, {"key": k, "number": n}) for n, k in enumerate(map(_key, range(UNITS)))]
    assert all(one.error is None for one in run_tasks(tasks, work, workers=0))
    undisturbed = made(tmp_path / "u")
    assert {k: one for k, (one, _) in seen.items()} == {k: i for k, (i, _) in undisturbed.items()}
    left = [file.name for file in folder.iterdir() if file.name.startswith(".")]
    assert left == [], "what killed writers left was swept"


def _wait_for_one_more(folder: Path, run: subprocess.Popen[str], before: int) -> None:
    while len(UnitStore(folder).written()) <= before and run.poll() is None:
        time.sleep(0.01)


def _key(number: int) -> str:
    return unit_key(number, [])
