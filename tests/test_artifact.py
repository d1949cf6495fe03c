"""What is written is whole or absent, whatever happens meanwhile; identities are canonical."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import puna
from puna.artifact import (
    MANIFEST,
    TensorDigest,
    check_free,
    digest_file,
    digest_json,
    find_manifest,
    format_bytes,
    manifest,
    manifest_path,
    model_identity,
    parse_json,
    read_json,
    write_json,
    writing_file,
    writing_folder,
)
from puna.errors import InputError

Writing = Callable[..., AbstractContextManager[Path]]


def fill(place: Path, writing: Writing, text: str) -> None:
    """Write `text` into a file, or into a folder as an artifact."""
    if writing is writing_folder:
        (place / "inner").mkdir()
        (place / "inner" / "data").write_text(text)
        write_json(place / MANIFEST, {"identity": {"files": {"inner/data": "sha256"}}})
    else:
        place.write_text(text)


def content(place: Path) -> str:
    return (place / "inner" / "data" if place.is_dir() else place).read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


BOTH = pytest.mark.parametrize("writing", [writing_file, writing_folder])


@BOTH
def test_a_result_appears_whole(tmp_path: Path, writing: Writing) -> None:
    target = tmp_path / "result"
    with writing(target) as place:
        fill(place, writing, "new")
        assert place.parent == target.parent, "a rename needs the same file system"
        assert not target.exists()
    assert content(target) == "new"
    assert names(target.parent) == ["result"]


@BOTH
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_a_failure_leaves_nothing(
    tmp_path: Path, writing: Writing, error: type[BaseException]
) -> None:
    with pytest.raises(error, match="midway"), writing(tmp_path / "result") as place:
        fill(place, writing, "half")
        raise error("midway")
    assert names(tmp_path) == []


@BOTH
def test_what_exists_is_kept_without_force(tmp_path: Path, writing: Writing) -> None:
    target = tmp_path / "result"
    with writing(target) as place:
        fill(place, writing, "old")
    with pytest.raises(InputError, match=r"result: already exists\n  fix: .*--force"):
        writing(target).__enter__()
    with pytest.raises(RuntimeError), writing(target, force=True) as place:
        fill(place, writing, "half")
        raise RuntimeError
    assert (content(target), names(tmp_path)) == ("old", ["result"])


@BOTH
def test_force_replaces(tmp_path: Path, writing: Writing) -> None:
    target = tmp_path / "result"
    for text in ("old", "new"):
        with writing(target, force=True) as place:
            fill(place, writing, text)
            assert not target.exists() or content(target) == "old"
    assert (content(target), names(tmp_path)) == ("new", ["result"])


def test_force_never_puts_one_kind_in_place_of_the_other(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("precious")
    with pytest.raises(InputError, match=r"script\.py: is a file, not a folder; --force does not"):
        check_free(tmp_path / "script.py", force=True, folder=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: is a folder, not a file; --force does not"):
        check_free(tmp_path / "empty", force=True)
    check_free(tmp_path / "empty", folder=True)  # nothing to lose
    with pytest.raises(InputError, match=r"the folder .*/typo does not exist\n  fix: mkdir -p"):
        check_free(tmp_path / "typo" / "result")


@pytest.mark.parametrize(
    "told", ["{}", "no JSON", '{"name": "my site"}', '{"identity": {"files": {"a": "1"}}}']
)
def test_force_spares_folders_that_hold_what_we_did_not_write(tmp_path: Path, told: str) -> None:
    target = tmp_path / "photos"
    target.mkdir()
    (target / "beach.jpg").write_text("sun")
    for name in ("config.json", MANIFEST):
        (target / name).write_text(told)
        with pytest.raises(InputError, match=r"photos: holds beach\.jpg, which puna did not write"):
            check_free(target, force=True, folder=True)
    assert names(target) == ["beach.jpg", "config.json", MANIFEST]


def test_the_old_folder_stays_if_the_new_one_cannot_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "result"
    with writing_folder(target) as place:
        fill(place, writing_folder, "old")
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with (
        pytest.raises(InputError, match="result: could not be written: Input/output error"),
        writing_folder(target, force=True) as place,
    ):
        fill(place, writing_folder, "new")
    assert (content(target), names(tmp_path)) == ("old", ["result"])


@BOTH
def test_a_full_disk_is_the_users_to_mend(tmp_path: Path, writing: Writing) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(InputError) as caught,
        writing(tmp_path / "result") as place,
        open("/dev/full", "w") as full,  # noqa: PTH123
    ):
        fill(place, writing, "half")
        full.write("x" * 10)
    assert str(caught.value) == (
        f"{tmp_path / 'result'}: could not be written: No space left on device\n"
        "  fix: free some space, or choose another disk; nothing was left behind"
    )
    assert names(tmp_path) == []


def test_a_sync_that_fails_is_a_write_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(InputError, match="No space left on device"),
        writing_file(tmp_path / "result") as place,
    ):
        place.write_text("x")
    assert names(tmp_path) == []


def test_another_files_error_names_that_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with (
        pytest.raises(InputError) as caught,
        writing_file(tmp_path / "result") as place,
    ):
        place.write_bytes(source.read_bytes())
    assert str(caught.value).startswith(f"{source}: No such file or directory, while ")
    assert names(tmp_path) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the folder .*file does not exist"):
        writing_file(tmp_path / "file" / "result").__enter__()


@BOTH
@pytest.mark.parametrize("old", [True, False])
def test_a_killed_writer_leaves_the_place_as_it_was(
    tmp_path: Path, writing: Writing, old: bool
) -> None:
    target = tmp_path / "result"
    if old:
        with writing(target) as place:
            fill(place, writing, "old")
    code = f"""
        import sys, time
        from pathlib import Path
        from puna.artifact import {writing.__name__} as writing
        with writing(Path(sys.argv[1]), force=True) as place:
            (place / "data" if place.is_dir() else place).write_text("half")
            print("midway", flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "midway\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert content(target) == "old" if old else not target.exists()
    with writing(target, force=True) as place:
        fill(place, writing, "new")
    assert content(target) == "new"


# --- digests and manifests --------------------------------------------------------------------


def test_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"puna")
    assert digest_file(tmp_path / "x") == hashlib.sha256(b"puna").hexdigest()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab中"), inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text("abc中"), JSON), data=st.data())
def test_digest_of_json_is_canonical(value: dict[str, object], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(value.items()))))
    assert digest_json(shuffled) == digest_json(value)
    assert digest_json(json.loads(json.dumps(value, indent=3))) == digest_json(value)
    assert digest_json({**value, "one more": 1}) != digest_json(value)


def test_digest_of_json_is_this_one() -> None:
    canonical = '{"a":[1,null],"ü":"中"}'.encode()
    assert digest_json({"ü": "中", "a": [1, None]}) == hashlib.sha256(canonical).hexdigest()


def test_identity_of_a_model_is_that_of_its_tensors() -> None:
    tensors = [
        TensorDigest("a", "float32", (2, 3), "11"),
        TensorDigest("b", "float32", (3,), "22"),
        TensorDigest("c", "bfloat16", (), "33"),
    ]
    found = {model_identity(order) for order in itertools.permutations(tensors)}
    assert len(found) == 1
    changed = [
        TensorDigest("d", "bfloat16", (), "33"),
        TensorDigest("c", "float32", (), "33"),
        TensorDigest("c", "bfloat16", (1,), "33"),
        TensorDigest("c", "bfloat16", (), "44"),
    ]
    others = {model_identity([*tensors[:2], tensor]) for tensor in changed}
    assert len(others | found) == 5
    assert model_identity(tensors[:2]) not in found


def test_a_manifest_hashes_what_it_is_and_not_what_it_cost() -> None:
    told = {"config": {"to": "gguf"}, "parents": ["p"], "files": {"b": "2", "a": "1"}}
    cheap = manifest("checkpoint", **told, measured={"seconds": 1})  # type: ignore[arg-type]
    dear = manifest("checkpoint", **told, measured={"seconds": 9})  # type: ignore[arg-type]
    assert cheap["identity"] == {
        "kind": "checkpoint",
        "config": {"to": "gguf"},
        "parents": ["p"],
        "files": {"a": "1", "b": "2"},
        "puna": puna.__version__,
    }
    assert cheap["digest"] == dear["digest"] == digest_json(cheap["identity"])
    assert (cheap["measured"]["seconds"], dear["measured"]["seconds"]) == (1, 9)
    assert cheap["measured"]["finished"].endswith("Z")
    other = manifest("adapter", **told, measured={})  # type: ignore[arg-type]
    assert other["digest"] != cheap["digest"]


def test_where_a_manifest_lies(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "model.gguf"
    folder.mkdir()
    file.write_text("")
    assert manifest_path(folder, folder=True) == folder / "manifest.json"
    assert manifest_path(file, folder=False) == tmp_path / "model.gguf.manifest.json"
    for place, is_folder in ((folder, True), (file, False)):
        assert find_manifest(place) is None
        write_json(manifest_path(place, folder=is_folder), {"a": 1})
        assert find_manifest(place) == manifest_path(place, folder=is_folder)


def test_json_for_people(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": "中", "a": [1]})
    assert (tmp_path / "x.json").read_text() == '{\n  "b": "中",\n  "a": [\n    1\n  ]\n}\n'
    assert read_json(tmp_path / "x.json") == {"b": "中", "a": [1]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1,\n "b" 2}', "here: is not JSON: Expecting ':' delimiter at line 2, column 6"),
        (b'{"a": "\xff"}', "here: is not UTF-8 at byte 7"),
        (b"[" * 200_000, "here: is not usable JSON: nested too deeply"),
        (b"", "here: is not JSON: Expecting value at line 1, column 1"),
    ],
)
def test_json_that_is_none(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_json(data, where="here")
    assert str(caught.value) == message


def test_json_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.json: cannot be read: No such file or directory"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (98_400_000, "93.8 MiB"),
        (1023 * 1024, "1023 KiB"),
        (2**40 * 3.5, "3.5 TiB"),
    ],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert format_bytes(size) == text


@BOTH
def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path, writing: Writing) -> None:
    code = (
        "import os, sys; from pathlib import Path; from puna.artifact import *\n"
        f"with {writing.__name__}(Path(sys.argv[1])) as place:\n"
        "    (place / 'x' if place.is_dir() else place).write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    target = tmp_path / "result"
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert [name.endswith(".partial") for name in names(tmp_path)] == [True]
    with writing(target) as place:
        fill(place, writing, "whole")
    assert (content(target), names(tmp_path)) == ("whole", ["result"])


@BOTH
def test_a_writer_at_work_is_left_alone(tmp_path: Path, writing: Writing) -> None:
    target = tmp_path / "result"
    with writing(target) as first:
        fill(first, writing, "first")
        with writing(target) as second:
            fill(second, writing, "second")
        assert first.exists()
        assert content(first) == "first"
        assert content(target) == "second"
        target.rename(tmp_path / "elsewhere")
    assert names(tmp_path) == ["elsewhere", "result"]
    assert content(target) == "first"


def test_a_kill_between_the_renames_is_mended(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with writing_folder(target) as place:
        fill(place, writing_folder, "old")
    target.rename(tmp_path / ".result.0123abcd.old")
    with pytest.raises(InputError, match="already exists"), writing_folder(target):
        pass
    assert (content(target), names(tmp_path)) == ("old", ["result"])
