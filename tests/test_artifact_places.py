"""Places without locks, and whose manifest speaks for what."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from puna.artifact import (
    MANIFEST,
    find_manifest,
    manifest,
    read_manifest,
    write_json,
    writing_file,
    writing_folder,
)


def told(**files: str) -> dict[str, Any]:
    return manifest("checkpoint", config={}, parents=[], files=files, measured={})


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("writing", [writing_file, writing_folder])
def test_without_locks_results_are_written_and_nothing_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writing: Any, number: int
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    live = tmp_path / ".result.0123abcd.partial"
    live.write_text("of a writer that may live")
    with writing(tmp_path / "result") as place:
        (place / "data" if place.is_dir() else place).write_text("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [live.name, "result"]


def test_a_folders_manifest_speaks_for_the_files_that_it_names(tmp_path: Path) -> None:
    for name in ("model.safetensors", "other.gguf"):
        (tmp_path / name).write_text("")
    write_json(tmp_path / MANIFEST, told(**{"model.safetensors": "1"}))
    assert find_manifest(tmp_path / "model.safetensors") == tmp_path / MANIFEST
    assert find_manifest(tmp_path / "other.gguf") is None
    (tmp_path / MANIFEST).write_text("{")
    assert find_manifest(tmp_path / "model.safetensors") is None


def test_a_link_has_the_manifest_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real.gguf").write_text("")
    (tmp_path / "link.gguf").symlink_to("real.gguf")
    write_json(tmp_path / "real.gguf.manifest.json", told())
    place = find_manifest(tmp_path / "link.gguf")
    assert place is not None
    assert place.samefile(tmp_path / "real.gguf.manifest.json")


def test_only_a_manifest_of_ours_is_read_as_one(tmp_path: Path) -> None:
    place, ours = tmp_path / MANIFEST, told(a="1")
    assert read_manifest(place) is None
    write_json(place, ours)
    assert read_manifest(place) == ours
    foreign: list[Any] = [
        [],
        "text",
        {},
        {"identity": {}, "measured": {}, "digest": ""},
        {**ours, "identity": {**ours["identity"], "config": []}},
        {**ours, "digest": "0" * 64},
        {**ours, "measured": None},
    ]
    for value in foreign:
        write_json(place, value)
        assert read_manifest(place) is None
    place.write_bytes(b"\xff{")
    assert read_manifest(place) is None
