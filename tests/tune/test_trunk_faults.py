"""What goes wrong with a trunk cache: kills, damage, full disks, others in the same folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from puna.tune.trunk_cache import TrunkCache
from puna.tune.trunk_places import in_use, make_room
from puna.tune.trunk_store import using
from tune.trunk_setup import (
    START,
    assert_same_to_rounding,
    chunk_files,
    config,
    everything,
    filled,
    some,
    tiny_model,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from tune.trunk_setup import START, config, some, tiny_model
from puna.tune.trunk_cache import TrunkCache

folder, chunks = Path(sys.argv[1]), int(sys.argv[2])
whole = Path.write_bytes

def write_bytes(path, data):
    if len(list(folder.glob("*/chunk-*"))) == chunks:
        whole(path, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, data)

Path.write_bytes = write_bytes
TrunkCache(tiny_model(), START, some(), config(folder)).fill()
"""


def test_a_kill_in_the_middle_of_a_write_costs_the_chunk_at_hand_only(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole", some())
    folder = tmp_path / "killed"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(folder), "3"]
    ended = subprocess.run(command, env=env, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(chunk_files(folder)) == 3
    assert len(list(folder.glob("*/.chunk-*.partial"))) == 1
    again = filled(folder, some())
    stats = again.stats()
    assert 0 < stats.found < len(some())
    assert stats.found + stats.computed == len(some())
    assert torch.equal(everything(again, some()), everything(whole, some()))
    names = [[path.name for path in chunk_files(tmp_path / f)] for f in ("killed", "whole")]
    assert names[0] == names[1]
    again.close()
    assert {p.suffix for p in folder.glob("*/*")} == {".safetensors"}


def test_an_interrupt_leaves_what_was_stored(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    cache = TrunkCache(tiny_model(), START, some(), config(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        cache.fill(interrupt)
    files = chunk_files(tmp_path)
    cache.fill()
    assert cache.stats().computed == len(some())
    assert 0 < len(files) < len(chunk_files(tmp_path))
    whole = filled(tmp_path / "whole", some())
    assert torch.equal(everything(cache, some()), everything(whole, some()))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    first, _ = hidden_extent(data)
    data[first + 3] ^= 8
    path.write_bytes(data)


def hidden_extent(data: bytes) -> tuple[int, int]:
    """The bytes of a chunk that are hidden states."""
    size = int.from_bytes(data[:8], "little")
    first, last = json.loads(data[8 : 8 + size])["hidden"]["data_offsets"]
    return 8 + size + first, 8 + size + last


def flip_index(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


HARMS: dict[str, Callable[[Path], None]] = {
    "flipped value": flip,
    "flipped index": flip_index,
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("when", ["before opening", "after opening", "after filling"])
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("dtype", ["auto", "int8"])
def test_damage_is_computed_again_to_the_same_bits(
    tmp_path: Path, harm: str, when: str, dtype: str
) -> None:
    expected = everything(filled(tmp_path, some(), dtype=dtype), some())
    files = chunk_files(tmp_path)
    harmed = (files[1], files[-2])
    if when == "before opening":
        for path in harmed:
            HARMS[harm](path)
    cache = TrunkCache(tiny_model(), START, some(), config(tmp_path, dtype=dtype))
    if when == "after opening":
        for path in harmed:
            HARMS[harm](path)
    cache.fill()
    if when == "after filling":
        for path in harmed:
            HARMS[harm](path)
    assert torch.equal(everything(cache, some()), expected)
    stats = cache.stats()
    # What is gone before it is looked for is no damage; a flipped index is not read again.
    seen = harm != "gone" or when != "before opening"
    if harm == "flipped index" and when != "before opening":
        seen = False
    assert stats.damaged == (2 if seen else 0)
    assert (stats.computed > 0) == (seen or harm == "gone")
    assert stats.live == 0
    assert cache.notes == []
    assert torch.equal(everything(filled(tmp_path, some(), dtype=dtype), some()), expected)


def test_another_runs_damaged_chunk_is_computed_again_in_its_own_batch(tmp_path: Path) -> None:
    sequences = some()
    whole = everything(filled(tmp_path, sequences), sequences)
    part = [sequences[i] for i in range(0, len(sequences), 3)]
    cache = filled(tmp_path, part)
    assert cache.stats().found == len(part)
    for path in chunk_files(tmp_path):
        data = bytearray(path.read_bytes())
        first, last = hidden_extent(data)
        data[first:last] = bytes(last - first)
        path.write_bytes(data)
    hidden = everything(cache, part)
    width = hidden.shape[1]
    assert torch.equal(hidden, whole[::3, :width])
    assert cache.stats().damaged == len(cache._used()) > 3


def test_another_runs_chunk_that_is_gone_is_computed_in_ours(tmp_path: Path) -> None:
    sequences = some()
    whole = everything(filled(tmp_path, sequences), sequences)
    part = [sequences[i] for i in range(0, len(sequences), 3)]
    cache = filled(tmp_path, part)
    for path in chunk_files(tmp_path):
        path.unlink()
    hidden = everything(cache, part)
    assert_same_to_rounding(hidden, whole[::3, : hidden.shape[1]])
    assert cache.stats().live == 0
    assert torch.equal(everything(filled(tmp_path, part), part), hidden)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_is_told_and_the_rest_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    expected = everything(filled(tmp_path / "whole", some()), some())
    folder, whole = tmp_path / "full", Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        if len(chunk_files(folder)) == 3:
            raise OSError(number, os.strerror(number), str(path))
        return whole(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    cache = filled(folder, some())
    stats = cache.stats()
    hidden = everything(cache, some())
    assert_same_to_rounding(hidden, expected)
    assert cache.stats().live == len(some()) - cache.stats().hits > 0
    (note,) = cache.notes
    assert note.startswith("trunk cache: a chunk could not be written (")
    assert os.strerror(number) in note
    assert f"; {cache.stats().live} sequences are computed for every batch instead" in note
    assert stats.bytes_on_disk == sum(path.stat().st_size for path in chunk_files(folder))
    monkeypatch.undo()
    assert torch.equal(everything(filled(folder, some()), some()), expected)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = filled(tmp_path / "file", some(3))
    assert_same_to_rounding(
        everything(cache, some(3)), everything(filled(tmp_path, some(3)), some(3))
    )
    (note,) = cache.notes
    assert "cannot be used (Not a directory)" in note
    assert "3 sequences are computed" in note


def test_two_caches_fill_one_folder_at_once(tmp_path: Path) -> None:
    """The second is opened before the first has filled; each finds the other's chunks."""
    caches = [TrunkCache(tiny_model(), START, some(), config(tmp_path)) for _ in range(2)]

    def other(done: int, total: int) -> None:
        if 0 < done < total / 2:
            caches[1].fill()

    caches[0].fill(other)
    assert sum(cache.stats().computed for cache in caches) == len(some())
    hidden = [everything(cache, some()) for cache in caches]
    assert torch.equal(*hidden)
    assert all(cache.stats().damaged == 0 for cache in caches)


def test_what_was_not_used_for_longest_leaves_for_others(tmp_path: Path) -> None:
    size = filled(tmp_path / "size", some()).stats().bytes_on_disk
    limit = int(size * 2.7)
    for number, seed in enumerate((1, 2)):
        cache = filled(tmp_path, some(seed=seed), max_bytes=limit)
        for path in chunk_files(tmp_path):
            if path.name in {chunk.path.name for chunk in cache._used()}:
                os.utime(path, (number, number))
        cache.close()
    old = TrunkCache(tiny_model(), START, some(seed=1), config(tmp_path))  # touches its chunks
    old.close()
    new = filled(tmp_path, some(seed=3), max_bytes=limit)
    assert new.stats().evicted > 0
    assert sum(path.stat().st_size for path in chunk_files(tmp_path)) <= limit
    found = [
        TrunkCache(tiny_model(), START, some(seed=s), config(tmp_path)).stats().found
        for s in (1, 2, 3)
    ]
    assert found[0] == found[2] == len(some()) > found[1]


def test_chunks_in_use_stay_and_the_excess_is_told(tmp_path: Path) -> None:
    held = filled(tmp_path, some(seed=1))
    limit = int(held.stats().bytes_on_disk * 1.1)
    new = filled(tmp_path, some(seed=2), max_bytes=limit)
    assert new.stats().evicted == 0
    assert "other runs at work hold their chunks" in new.notes[0]
    expected = everything(held, some(seed=1))
    del held  # the end of the object lets go, as the end of its process does
    new.fill()
    assert new.stats().evicted > 0
    assert sum(path.stat().st_size for path in chunk_files(tmp_path)) <= limit
    again = filled(tmp_path, some(seed=1))
    assert torch.equal(everything(again, some(seed=1)), expected)


def test_chunks_that_are_only_partly_ours_give_way_to_the_budget(tmp_path: Path) -> None:
    other = filled(tmp_path, some(200))
    other.close()
    part = some(200)[::9]
    size = filled(tmp_path / "size", part).stats().bytes_on_disk
    limit = size * 2
    assert limit < other.stats().bytes_on_disk / 4
    for _ in range(2):
        cache = filled(tmp_path, part, max_bytes=limit)
        assert cache.stats().bytes_on_disk <= limit
        assert cache.stats().beyond == 0
        everything(cache, part)
        assert cache.stats().live == 0
    assert cache.stats().computed == 0


def test_the_list_of_a_process_that_died_protects_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "trunk"
    folder.mkdir()
    chunk = folder / "chunk-x.safetensors"
    chunk.write_bytes(bytes(10))
    with using(folder, [chunk.name]):
        assert in_use(tmp_path) == {chunk}
        assert make_room(tmp_path, set(), 5, 10).evicted == 0
    stale = folder / ".0123.use"
    stale.write_text(chunk.name)
    (folder / ".chunk-y.0123abcd.partial").write_bytes(b"half")
    room = make_room(tmp_path, set(), 5, 10)
    assert (room.evicted, room.used_bytes) == (1, 0)
    assert list(folder.iterdir()) == []


def test_chunks_are_kept_where_locks_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unsupported)
    sequences = some(4)
    cache = filled(tmp_path, sequences)
    assert len(in_use(tmp_path)) == len(chunk_files(tmp_path))
    assert np.isfinite(everything(cache, sequences).numpy()).all()
