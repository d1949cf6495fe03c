"""Shards: what is written is read again, by any reader; and what is damaged is refused."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

import puna.artifact
from puna.errors import InputError
from puna.store.checkpoint import TokenizerFiles
from puna.tokens import open_tokenizer
from puna.tokens import shards as reading
from puna.tokens.shard_file import open_shard_file, shard_name, write_shard_file
from puna.tokens.shard_index import INDEX, read_index
from puna.tokens.shard_writer import ShardWriter
from puna.tokens.shards import Documents, open_shards, vocabulary_identity
from tokens.samples import PLACE, tiny_json
from tokens.shard_setup import (
    VOCABULARY,
    document,
    key,
    seal,
    write_shards,
    write_split,
)

FIVE = [[1, 7, 2], [1, 2], [1, *range(10, 60), 2], [1, 8, 2], [1, 9, 9, 2]]
documents = st.lists(st.lists(st.integers(0, 499), min_size=1, max_size=20), min_size=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sources, several files."""
    sources = {"web": {"train": FIVE * 3, "held_out": FIVE[:2]}, "books": {"train": FIVE[:1]}}
    return write_shards(tmp_path / "shards", sources)


def files_of(path: Path, split: str = "train") -> list[Path]:
    return sorted(path.glob(f"{split}-*.safetensors"))


@given(documents, st.integers(1, 40), st.sampled_from([500, 65_536, 70_000]))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    written: list[list[int]],
    shard_tokens: int,
    size: int,
) -> None:
    place = tmp_path_factory.mktemp("split") / "web"
    write_split(place, written, size=size, shard_tokens=shard_tokens)
    files = [open_shard_file(path) for path in files_of(place)]
    for file in files:
        assert file.tokens <= shard_tokens or file.documents == 1, "one that is longer is alone"
        assert file.dtype == ("uint16" if size <= 65_536 else "uint32")
    found = Documents(files, size)
    assert found.count == len(written)
    assert found.tokens == sum(map(len, written))
    assert found.lengths.tolist() == [len(ids) for ids in written]
    assert found.text_bytes.tolist() == [3 * len(ids) for ids in written]
    for number, ids in enumerate(written):
        whole = found.read(number, 0, len(ids))
        assert whole.dtype == np.int64
        assert whole.tolist() == ids
        for start, stop in itertools.combinations(range(0, len(ids) + 1, 3), 2):
            assert found.read(number, start, stop).tolist() == ids[start:stop]
        assert found.id(number) == key(f"web train {number}")
        assert found.root(number) == key(f"root of web train {number}")
        assert found.licence(number) == len(f"web train {number}") % 2


def test_the_files_are_as_full_as_they_can_be(tmp_path: Path) -> None:
    write_split(tmp_path / "web", [[5] * 10] * 7, shard_tokens=30)
    assert [open_shard_file(path).documents for path in files_of(tmp_path / "web")] == [3, 3, 1]


def test_any_reader_of_safetensors_opens_a_file(tmp_path: Path) -> None:
    write_split(tmp_path / "web", FIVE, shard_tokens=1000)
    (path,) = files_of(tmp_path / "web")
    told = load_file(path)
    assert {name: (str(a.dtype), a.shape) for name, a in told.items()} == {
        "tokens": ("uint16", (64,)),
        "offsets": ("int64", (6,)),
        "ids": ("uint8", (5, 16)),
        "roots": ("uint8", (5, 16)),
        "licences": ("uint16", (5,)),
        "text_bytes": ("int64", (5,)),
    }
    assert told["tokens"].tolist() == [id_ for ids in FIVE for id_ in ids]
    assert told["offsets"].tolist() == [0, 3, 5, 57, 60, 64]
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {
            "format": "puna shard",
            "version": "1",
            "vocabulary": VOCABULARY,
            "source": "web",
            "split": "train",
        }


def test_a_folder_is_opened_as_it_was_made(folder: Path) -> None:
    shards = open_shards(folder)
    assert list(shards.sources) == ["web", "books"]
    web, books = shards.sources["web"], shards.sources["books"]
    assert (web.licence, web.language, web.split("train").count) == ("CC0-1.0", "en", 15)
    assert web.split("held_out").read(1, 0, 2).tolist() == FIVE[1]
    assert books.split("held_out").count == books.split("held_out").tokens == 0
    assert books.split("held_out").text_bytes.sum() == 0
    assert (shards.vocabulary_size, shards.bos_id, shards.eos_id) == (500, 1, 2)
    assert shards.vocabulary_identity == VOCABULARY
    assert shards.identity == json.loads((folder / "manifest.json").read_text())["digest"]
    heard: list[tuple[int, int]] = []
    shards.verify(lambda done, total: heard.append((done, total)))
    count = len(list(folder.rglob("*.safetensors")))
    assert heard == [(done, count) for done in range(count + 1)]


def test_few_files_are_mapped_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAPPED_FILES", 2)
    write_split(tmp_path / "web", [[n] for n in range(20)], shard_tokens=2)
    found = Documents([open_shard_file(path) for path in files_of(tmp_path / "web")], 500)
    order = np.random.default_rng(0).permutation(20).tolist()
    assert [found.read(number, 0, 1).tolist() for number in order] == [[n] for n in order]
    assert len(found._mapped) == 2


def test_a_writer_goes_on_behind_the_last_whole_file(tmp_path: Path) -> None:
    write_split(tmp_path / "one" / "web", FIVE * 3, shard_tokens=10)
    half = write_split(tmp_path / "two" / "web", FIVE, shard_tokens=10)
    assert half.kept.count == 0
    label = open_shard_file(files_of(tmp_path / "two" / "web")[0]).label
    last = files_of(tmp_path / "two" / "web")[-1]
    last.unlink()  # which a writer that goes on would have filled up
    writer = ShardWriter(tmp_path / "two" / "web", label, vocabulary_size=500, shard_tokens=10)
    kept = writer.kept.count
    assert kept == 3
    for number, ids in enumerate(FIVE * 3):
        if number >= kept:
            writer.add(document(f"web train {number}", ids))
    writer.close()
    one, two = (
        {path.name: path.read_bytes() for path in files_of(tmp_path / name / "web")}
        for name in ("one", "two")
    )
    assert one == two


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(puna.artifact, "_sync", full)
    with pytest.raises(InputError, match="could not be written: No space left on device"):
        write_split(tmp_path / "web", FIVE)
    assert list((tmp_path / "web").iterdir()) == []


# --- what is refused ------------------------------------------------------------------------------


def refused(path: Path, told: str) -> None:
    with pytest.raises(InputError, match=told):
        open_shards(path)


def test_a_place_that_holds_no_shards(tmp_path: Path) -> None:
    refused(tmp_path / "none", "none: does not exist")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file; shards are a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"holds no shards: there is no shards\.json\n  fix: .*--out")


def test_a_file_that_is_missing_or_cut_short(folder: Path) -> None:
    path = folder / "web" / shard_name("train", 1)
    data = path.read_bytes()
    for length in (len(data) - 1, len(data) // 2, 100, 8, 3, 0):
        path.write_bytes(data[:length])
        refused(folder, r"web/train-00001\.safetensors: .*\n  fix: the file is cut short")
    path.unlink()
    refused(folder, r"web/train-00001\.safetensors: cannot be read: No such file")
    path.mkdir()
    refused(folder, "is a folder; expected a regular file")


def test_a_shard_of_another_vocabulary(folder: Path, tmp_path: Path) -> None:
    other = write_shards(tmp_path / "other", {"books": {"train": FIVE[:1]}}, vocabulary="f" * 64)
    name = f"books/{shard_name('train', 0)}"
    (folder / name).write_bytes((other / name).read_bytes())
    refused(folder, r"train-00000\.safetensors: is a shard of another vocabulary \(ffffffffffff")


def test_a_shard_that_is_not_the_one_of_the_index(folder: Path) -> None:
    train, held_out = (folder / "web" / shard_name(s, 0) for s in ("train", "held_out"))
    data = train.read_bytes()
    train.write_bytes(held_out.read_bytes())
    refused(folder, "is not the file that shards.json names: split is held_out, expected train")
    (books,) = files_of(folder / "books")
    told = books.read_bytes().replace(b'"source":"books"', b'"source":"web"  ')
    train.write_bytes(told)
    refused(folder, "is not the file that shards.json names: documents is 1, expected 5")
    train.write_bytes((folder / "web" / shard_name("train", 1)).read_bytes())
    with pytest.raises(InputError, match="is damaged: its digest is not the one that was written"):
        open_shards(folder).verify()
    train.write_bytes(data)
    open_shards(folder).verify()


def test_a_file_that_is_no_shard(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = folder / "books" / shard_name("train", 0)
    arrays = load_file(path)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()

    def changed(told: str, new: dict[str, np.ndarray], about: dict[str, str] = metadata) -> None:
        save_file(new, path, metadata=about)
        refused(folder, told)

    changed("is no shard file: it is not labelled as one", arrays, {"format": "pt"})
    changed(
        "is a shard of format 2; this puna reads format 1", arrays, {**metadata, "version": "2"}
    )
    changed("does not say its vocabulary", arrays, {**metadata, "split": "other"})
    changed("holds the tensors ids, ", {k: v for k, v in arrays.items() if k != "tokens"})
    changed("stores tokens as I64, not U16 or U32", {**arrays, "tokens": np.zeros(3, np.int64)})
    changed(
        r"has 1 documents, and ids of the shape \[2, 16\]",
        {**arrays, "ids": np.zeros((2, 16), np.uint8)},
    )
    changed("holds no documents", {**arrays, "licences": np.zeros(0, np.uint16)})
    changed("its offsets are not those", {**arrays, "offsets": np.array([0, 2])})
    changed("its offsets are not those", {**arrays, "offsets": np.array([1, 3])})
    changed("do not say the bytes of text", {**arrays, "text_bytes": np.array([4])})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "is of format 2; this puna reads format 1"),
        ({"version": None}, "is of format None"),
        ({"dtype": 7}, "dtype: expected str"),
        ({"more": 1}, "unknown key 'more'"),
        ({"sources": []}, "names a source twice, or none at all"),
        ({"licences": ["MIT"]}, "was changed since it was written"),
    ],
)
def test_an_index_that_says_something_else(folder: Path, change: dict, told: str) -> None:
    place = folder / INDEX
    place.write_text(json.dumps({**json.loads(place.read_text()), **change}))
    refused(folder, told)


def test_an_index_cannot_lead_out_of_its_folder(folder: Path) -> None:
    index, _ = read_index(folder)

    def with_source(**changes: object) -> None:
        source = dataclasses.replace(index.sources[1], **changes)
        seal(folder, dataclasses.replace(index, sources=(index.sources[0], source)))

    for name in ("../books", "..", "", "a/b", "."):
        with_source(name=name)
        refused(folder, "is no name of a source")
    file = dataclasses.replace(index.sources[1].files[0], name="../../secret.safetensors")
    with_source(files=(file,))
    refused(folder, r"the files of books are \['\.\./\.\./secret")
    with_source(name="web")
    refused(folder, "names a source twice")
    other = dataclasses.replace(index.vocabulary, eos_id=500)
    seal(folder, dataclasses.replace(index, vocabulary=other))
    refused(folder, r"the ids \[500, 1\] are not of a vocabulary of 500")


def test_a_manifest_that_is_missing_or_of_something_else(folder: Path) -> None:
    place = folder / "manifest.json"
    told = json.loads(place.read_text())
    told["identity"]["kind"] = "checkpoint"
    place.write_text(json.dumps(told))
    refused(folder, "manifest.json: is missing, damaged, or not that of shards")
    place.unlink()
    refused(folder, "manifest.json: is missing, damaged, or not that of shards")


def test_an_id_beyond_the_vocabulary_is_refused_where_it_is_read(tmp_path: Path) -> None:
    written = [[1, 2], [3, 4, 600, 5], [6]]
    path = write_shards(tmp_path / "shards", {"web": {"train": written}}, size=70_000)
    index, _ = read_index(path)
    small = dataclasses.replace(index.vocabulary, size=500)
    seal(path, dataclasses.replace(index, vocabulary=small))
    shards = open_shards(path)
    found = shards.sources["web"].split("train")
    assert found.read(1, 0, 2).tolist() == [3, 4]
    told = r"train-00000\.safetensors: token 4 is 600, beyond the vocabulary of 500 ids"
    with pytest.raises(InputError, match=told):
        found.read(1, 1, 4)
    with pytest.raises(InputError, match=told):
        shards.verify()


def test_what_does_not_exist_cannot_be_read(folder: Path) -> None:
    found = open_shards(folder).sources["web"].split("held_out")
    for place in ((2, 0, 1), (-1, 0, 1), (0, 0, 4), (0, 2, 1), (0, -1, 1)):
        with pytest.raises(IndexError):
            found.read(*place)
    with pytest.raises(IndexError):
        found.id(2)


def test_a_file_that_shrinks_after_it_was_opened(folder: Path) -> None:
    found = open_shards(folder).sources["books"].split("train")
    path = folder / "books" / shard_name("train", 0)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="has become shorter since it was opened"):
        found.read(0, 0, 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.data())
def test_a_changed_byte_is_always_seen_and_never_a_crash(folder: Path, data: st.DataObject) -> None:
    path = folder / "web" / shard_name("train", 0)
    sound = path.read_bytes()
    place = data.draw(st.integers(0, len(sound) - 1))
    flip = data.draw(st.integers(1, 255))
    broken = bytearray(sound)
    broken[place] ^= flip
    path.write_bytes(broken)
    try:
        with pytest.raises(InputError):
            open_shards(folder).verify()
    finally:
        path.write_bytes(sound)


def test_what_a_writer_finds_must_be_its_own(tmp_path: Path) -> None:
    write_split(tmp_path / "web", FIVE, shard_tokens=10)
    with pytest.raises(InputError, match=r"is not of this run\n  fix: begin again with --force"):
        write_split(tmp_path / "web", FIVE, vocabulary="f" * 64)
    files_of(tmp_path / "web")[0].unlink()
    with pytest.raises(InputError, match="one before them is missing"):
        write_split(tmp_path / "web", FIVE)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    write_split(tmp_path / "web", FIVE)
    (path, *_) = files_of(tmp_path / "web")
    file = open_shard_file(path)
    with pytest.raises(InputError, match="already exists"):
        write_shard_file(path, file.label, file.map())


# --- the identity of a vocabulary -----------------------------------------------------------------


def opened(data: bytes, size: int | None = None, **more: bytes):
    files = {"tokenizer.json": data, **{name.replace("__", "."): v for name, v in more.items()}}
    return open_tokenizer(TokenizerFiles(files), where=PLACE, vocab_size=size)


def test_a_vocabulary_is_known_again_from_its_files() -> None:
    tokenizer = opened(tiny_json())
    again = open_tokenizer(TokenizerFiles(tokenizer.to_files()), where=PLACE)
    assert vocabulary_identity(again) == vocabulary_identity(tokenizer)
    template = opened(tiny_json(), chat_template__jinja=b"{{ messages }}")
    assert vocabulary_identity(template) == vocabulary_identity(tokenizer)
    padded = opened(tiny_json(), size=tokenizer.vocab_size + 64)
    assert vocabulary_identity(padded) == vocabulary_identity(tokenizer)


def changed_piece(data: bytes, pieces: Sequence[str]) -> bytes:
    """Two pieces of a vocabulary exchanged."""
    told = json.loads(data)
    vocab = told["model"]["vocab"]
    one, other = pieces
    vocab[one], vocab[other] = vocab[other], vocab[one]
    return json.dumps(told).encode()


def test_another_vocabulary_has_another_identity() -> None:
    sound = vocabulary_identity(opened(tiny_json()))
    other = opened(changed_piece(tiny_json(), ("a", "b")))
    assert vocabulary_identity(other) != sound
    specials = opened(tiny_json(specials=("<|bos|>", "<|other|>")))
    assert vocabulary_identity(specials) != sound
    ended = opened(tiny_json(), tokenizer_config__json=b'{"eos_token": "<|bos|>"}')
    assert vocabulary_identity(ended) != sound
