"""Conversions: the chain through all formats, what is refused, and that failures leave nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import puna
from generate.tiny import save_folder
from puna.errors import InputError
from puna.flows import convert as flow
from puna.flows import verify as check
from puna.flows.convert import Converted, ConvertOptions, convert
from puna.store import open_checkpoint

Progress = Callable[[str, int, int], None]


def run(source: Path, target: Path, to: str, **options: object) -> Converted:
    return convert(
        source, target, ConvertOptions(to=to, **options), progress=lambda what, done, total: None
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("source") / "model", context=2048)


def greedy(path: Path) -> str:
    llama = puna.load(str(path), device="cpu", dtype="float32", threads=1)
    asked = [{"role": "user", "content": "where is the sea?"}]
    return llama.chat(asked, puna.Sampling(max_tokens=12)).text


def test_the_chain_through_all_formats_keeps_values_text_and_identity(
    source: Path, tmp_path: Path
) -> None:
    text = greedy(source)
    assert text.strip()
    steps = [("gguf", "a.gguf"), ("hf", "b"), ("meta", "c"), ("hf", "d"), ("gguf", "e.gguf")]
    place, models = source, set()
    for to, name in steps:
        done = run(place, tmp_path / name, to)
        assert done.verdict is not None
        assert done.verdict.rounding == "exact"
        assert done.verdict.tokenizer == "same"
        assert done.verdict.largest_difference == 0
        models.add(done.manifest["identity"]["config"]["model"])
        place = tmp_path / name
        assert greedy(place) == text
    assert len(models) == 1
    original = load_file(source / "model.safetensors")
    final = open_checkpoint(place).tensors
    assert set(final) == set(original)
    assert all(torch.equal(final[name].load(), original[name]) for name in original)


def test_the_manifest_tells_the_lineage(source: Path, tmp_path: Path) -> None:
    first = run(source, tmp_path / "a", "hf")
    second = run(tmp_path / "a", tmp_path / "b.gguf", "gguf")
    assert first.manifest["identity"]["parents"][0].startswith("model ")
    assert second.manifest["identity"]["parents"] == [first.manifest["digest"]]
    written = json.loads((tmp_path / "b.gguf.manifest.json").read_text())
    assert written == second.manifest
    assert written["identity"]["config"]["verified"] is True
    assert written["measured"]["comparison"]["mean_kl"] == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "q8_0"])
def test_rounding_is_measured_against_a_bound(source: Path, tmp_path: Path, dtype: str) -> None:
    done = run(source, tmp_path / "x.gguf", "gguf", dtype=dtype)
    assert done.verdict is not None
    assert done.verdict.rounding == dtype
    assert 0 <= done.verdict.mean_kl <= check.KL_BOUNDS[dtype]
    kinds = {t.stored for t in open_checkpoint(tmp_path / "x.gguf").tensors.values()}
    assert kinds == {{"float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}[dtype], "F32"}


def test_widening_is_exact(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "half", "hf", dtype="bfloat16")
    done = run(tmp_path / "half", tmp_path / "wide", "hf", dtype="float32")
    assert done.verdict is not None
    assert done.verdict.rounding == "exact"


def test_meta_shards_and_safetensors_shards_come_back(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "meta", "meta", shards=2)
    assert sorted(p.name for p in (tmp_path / "meta").glob("*.pth")) == [
        "consolidated.00.pth",
        "consolidated.01.pth",
    ]
    run(tmp_path / "meta", tmp_path / "hf", "hf", max_shard_bytes=40_000)
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists()
    assert greedy(tmp_path / "hf") == greedy(source)


def test_a_product_that_differs_is_refused_and_nothing_is_left(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = flow.write_hf

    def damage(folder: Path, **wanted: object) -> object:
        digests = whole(folder, **wanted)
        weights = load_file(folder / "model.safetensors")
        weights["model.layers.1.mlp.up_proj.weight"][0, 0] += 1.0
        save_file(weights, folder / "model.safetensors")
        return digests

    monkeypatch.setattr(flow, "write_hf", damage)
    with pytest.raises(InputError, match="the output of block 1 by"):
        run(source, tmp_path / "out", "hf")
    assert list(tmp_path.iterdir()) == []
    done = run(source, tmp_path / "out", "hf", verify=False)
    assert done.verdict is None
    assert done.manifest["identity"]["config"]["verified"] is False


def test_a_lossy_product_that_is_too_far_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "KL_BOUNDS", {"q8_0": 1e-12})
    with pytest.raises(InputError, match=r"mean KL of .* 1e-12 is allowed"):
        run(source, tmp_path / "x.gguf", "gguf", dtype="q8_0")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_tokenizer_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = flow._side_files

    def other(*wanted: object) -> dict[str, bytes]:
        files = whole(*wanted)
        backend = json.loads(files["tokenizer.json"])
        backend["model"]["merges"] = backend["model"]["merges"][:1]
        return {**files, "tokenizer.json": json.dumps(backend).encode()}

    monkeypatch.setattr(flow, "_side_files", other)
    with pytest.raises(InputError, match="differs from its source in the token ids of"):
        run(source, tmp_path / "out", "hf")
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_taken_or_wrong(source: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    run(source, taken, "hf")
    with pytest.raises(InputError, match=r"already exists\n  fix: .*--force"):
        run(source, taken, "hf")
    run(source, taken, "hf", force=True)
    with pytest.raises(InputError, match="source and target are the same place"):
        run(taken, taken, "hf", force=True)
    foreign = tmp_path / "holiday"
    foreign.mkdir()
    (foreign / "photo.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds photo\.jpg, which puna did not write"):
        run(source, foreign, "hf", force=True)
    assert (foreign / "photo.jpg").exists()
    (tmp_path / "notes.gguf").write_text("not a model")
    with pytest.raises(InputError, match="is no GGUF file; --force does not replace it"):
        run(source, tmp_path / "notes.gguf", "gguf", force=True)
    with pytest.raises(InputError, match=r"one file ending in \.gguf"):
        run(source, tmp_path / "x", "gguf")
    with pytest.raises(InputError, match="is a folder"):
        run(source, tmp_path / "x.gguf", "hf")
    with pytest.raises(InputError, match="q8_0 belongs to GGUF"):
        run(source, tmp_path / "x", "hf", dtype="q8_0")
    with pytest.raises(InputError, match="--shards belongs to --to meta"):
        run(source, tmp_path / "x", "hf", shards=2)


def test_a_disk_without_room_is_seen_before_writing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = dataclasses.make_dataclass("Usage", ["free"])
    monkeypatch.setattr(flow.shutil, "disk_usage", lambda place: usage(free=1000))
    with pytest.raises(InputError, match="the disk has 1000 B left"):
        run(source, tmp_path / "x", "hf")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_while_writing_leaves_the_old_product(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, tmp_path / "out", "hf")
    before = (tmp_path / "out" / "manifest.json").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(flow, "write_hf", full)
    with pytest.raises(InputError, match="could not be written: No space left on device"):
        run(source, tmp_path / "out", "hf", force=True)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_model_without_a_tokenizer_is_compared_by_its_weights(
    source: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((source / name).read_bytes())
    done = run(bare, tmp_path / "out", "hf")
    assert done.verdict is not None
    assert done.verdict.tokenizer == "the source has none"


def test_nan_in_the_weights_stops_the_conversion(source: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in source.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.norm\.weight.*not finite"):
        run(broken, tmp_path / "out", "hf")
    assert not (tmp_path / "out").exists()
