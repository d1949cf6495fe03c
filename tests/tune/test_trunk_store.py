"""Chunks on disk: bounded in size, whole or absent, and damage in any byte is seen."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.tune.trunk_codec import Codec, StoredDtype
from puna.tune.trunk_identity import sequence_key
from puna.tune.trunk_store import Chunk, ChunkStore, Damaged, planned_bytes
from tune.trunk_setup import WIDTH, draw

LENGTHS = (3, 5, 2)
fresh_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, dtype: StoredDtype = "auto") -> tuple[ChunkStore, Chunk]:
    torch.manual_seed(0)
    store = ChunkStore(folder, Codec.choose(dtype, torch.float32), WIDTH)
    return store, store.write(draw(LENGTHS), torch.randn(sum(LENGTHS), WIDTH), 0.5)


def contents(store: ChunkStore, chunk: Chunk) -> list[bytes]:
    """All that a run would read of a chunk."""
    found = []
    for position in range(len(chunk.keys)):
        raw, scales = store.read(chunk, position)
        found += [raw.tobytes(), b"" if scales is None else scales.tobytes()]
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_chunk_is_read_back_and_any_safetensors_reader_reads_it(
    tmp_path: Path, dtype: StoredDtype
) -> None:
    store, chunk = written(tmp_path, dtype)
    again = ChunkStore(tmp_path, store.codec, WIDTH)
    assert again.scan() == ([chunk], [])
    assert contents(again, chunk) == contents(store, chunk)
    tensors = safetensors.torch.load_file(chunk.path)
    hidden = tensors["hidden"]
    assert hidden.shape == (sum(LENGTHS), WIDTH)
    assert hidden.dtype is store.codec.stored
    assert hidden.view(torch.uint8).numpy().tobytes() == b"".join(contents(store, chunk)[::2])
    for ids, expected in zip(store.sequences(chunk), draw(LENGTHS), strict=True):
        assert ids is not None
        assert np.array_equal(ids, expected)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.sampled_from(["auto", "int8"]))
@fresh_folder
def test_a_file_is_no_larger_than_planned(
    tmp_path: Path, lengths: list[int], dtype: StoredDtype
) -> None:
    store = ChunkStore(tmp_path, Codec.choose(dtype, torch.float32), WIDTH)
    chunk = store.write(draw(lengths), torch.randn(sum(lengths), WIDTH), 1e6)
    assert chunk.path.stat().st_size == chunk.nbytes
    assert chunk.nbytes <= planned_bytes(sum(lengths), len(lengths), store.codec, WIDTH)


@given(at=st.integers(0), bit=st.integers(0, 7), dtype=st.sampled_from(["auto", "int8"]))
@fresh_folder
def test_a_flipped_bit_is_seen_or_changes_nothing(
    tmp_path: Path, at: int, bit: int, dtype: StoredDtype
) -> None:
    store, chunk = written(tmp_path, dtype)
    before = contents(store, chunk)
    data = bytearray(chunk.path.read_bytes())
    data[at % len(data)] ^= 1 << bit
    chunk.path.write_bytes(data)
    fresh = ChunkStore(tmp_path, store.codec, WIDTH)
    with contextlib.suppress(Damaged):
        assert contents(fresh, fresh.index(chunk.path)) == before
    for ids, key in zip(fresh.sequences(chunk), chunk.keys, strict=True):
        assert ids is None or sequence_key(ids) == key


@given(st.integers(0))
@fresh_folder
def test_a_file_that_was_cut_is_seen(tmp_path: Path, size: int) -> None:
    store, chunk = written(tmp_path)
    data = chunk.path.read_bytes()
    chunk.path.write_bytes(data[: size % len(data)])
    fresh = ChunkStore(tmp_path, store.codec, WIDTH)
    assert fresh.scan() == ([], [chunk.path])
    with pytest.raises(Damaged):
        fresh.read(chunk, 0)


@pytest.mark.parametrize(
    "header",
    [b"", b"{}", b"[]", b"null", b'{"__metadata__": {"index": 3, "digest": "x"}}', b"\xff"],
)
def test_what_is_no_chunk_is_broken_and_what_is_gone_is_not(tmp_path: Path, header: bytes) -> None:
    store, chunk = written(tmp_path)
    chunk.path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert store.scan() == ([], [chunk.path])
    chunk.path.unlink()
    assert store.scan() == ([], [])
    with pytest.raises(Damaged):
        ChunkStore(tmp_path, store.codec, WIDTH).read(chunk, 0)


def test_a_header_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    store, chunk = written(tmp_path)
    chunk.path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    assert store.scan() == ([], [chunk.path])


def test_a_chunk_of_another_width_is_broken(tmp_path: Path) -> None:
    store, chunk = written(tmp_path)
    assert ChunkStore(tmp_path, store.codec, WIDTH + 1).scan() == ([], [chunk.path])


def test_few_chunks_are_mapped_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("puna.tune.trunk_store.MAX_MAPPED", 2)
    store = ChunkStore(tmp_path, Codec.choose("auto", torch.float32), WIDTH)
    hidden = [torch.randn(n, WIDTH) for n in (2, 3, 4, 5)]
    chunks = [store.write(draw([len(h)]), h, 0.1) for h in hidden]
    for _ in range(2):
        for chunk, expected in zip(chunks, hidden, strict=True):
            assert np.array_equal(store.read(chunk, 0)[0], expected.numpy())
            assert len(store._mapped) <= 2
