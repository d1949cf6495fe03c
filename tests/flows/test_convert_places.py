"""What a conversion may replace, what it keeps, and what its product descends from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from generate.tiny import save_folder
from puna.errors import InputError
from puna.flows import convert as flow
from puna.flows.convert import Converted, ConvertOptions, convert
from puna.flows.verify import KL_BOUNDS, verify
from puna.store import open_checkpoint


def run(source: Path, target: Path, to: str, **options: Any) -> Converted:
    return convert(
        source, target, ConvertOptions(to=to, **options), progress=lambda what, done, total: None
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("source") / "model", context=2048)


def edited(source: Path, folder: Path, change: Any) -> Path:
    if source != folder:
        shutil.copytree(source, folder)
    weights = load_file(source / "model.safetensors")
    save_file({name: change(name, w) for name, w in weights.items()}, folder / "model.safetensors")
    return folder


# --- places -----------------------------------------------------------------------------------


def test_a_source_inside_the_target_is_safe(source: Path, tmp_path: Path) -> None:
    outer = tmp_path / "own"
    run(source, outer, "hf")
    run(source, outer / "x.gguf", "gguf")
    (tmp_path / "link.gguf").symlink_to(outer / "x.gguf")
    for inside in (outer / "model.safetensors", outer / "x.gguf", tmp_path / "link.gguf"):
        for force in (False, True):
            with pytest.raises(InputError, match="lies inside the target, which would replace it"):
                run(inside, outer, "hf", dtype="float16", force=force)
    assert open_checkpoint(outer).tensors["model.norm.weight"].stored == "F32"


def test_a_foreign_manifest_beside_a_gguf_is_never_replaced(source: Path, tmp_path: Path) -> None:
    beside = tmp_path / "x.gguf.manifest.json"
    beside.write_text("mine")
    with pytest.raises(InputError, match=r"x\.gguf\.manifest\.json: already exists"):
        run(source, tmp_path / "x.gguf", "gguf")
    with pytest.raises(InputError, match="is no manifest of puna; --force does not replace it"):
        run(source, tmp_path / "x.gguf", "gguf", force=True)
    assert [path.name for path in tmp_path.iterdir()] == [beside.name]
    assert beside.read_text() == "mine"


def test_a_gguf_and_its_manifest_are_replaced_together_or_not(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, beside = tmp_path / "x.gguf", tmp_path / "x.gguf.manifest.json"
    run(source, place, "gguf")
    before = (place.read_bytes(), beside.read_bytes())

    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(flow, "write_json", failing)
        with pytest.raises(InputError, match="No space left on device"):
            run(source, place, "gguf", dtype="float16", force=True)
    assert (place.read_bytes(), beside.read_bytes()) == before
    run(source, place, "gguf", dtype="float16", force=True)
    assert json.loads(beside.read_text())["identity"]["config"]["dtype"] == "float16"
    assert sorted(path.name for path in tmp_path.iterdir()) == [place.name, beside.name]


@pytest.mark.parametrize(("to", "name"), [("hf", "real"), ("gguf", "real.gguf")])
def test_a_link_is_written_through(source: Path, tmp_path: Path, to: str, name: str) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / name, tmp_path / f"link{Path(name).suffix}"
    run(source, real, to)
    link.symlink_to(real)
    done = run(source, link, to, dtype="bfloat16", force=True)
    assert link.is_symlink()
    assert done.path == real.resolve()
    assert open_checkpoint(real).tensors["lm_head.weight"].stored == "BF16"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["there", link.name])
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError):
        run(source, tmp_path / "loop", "hf", force=True)


# --- dtypes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["hf", "meta"])
def test_keep_is_the_dtype_of_the_matrices(source: Path, tmp_path: Path, to: str) -> None:
    half = edited(source, tmp_path / "half", lambda _, w: w.half())
    run(half, tmp_path / "half.gguf", "gguf")
    done = run(tmp_path / "half.gguf", tmp_path / "back", to)
    assert done.verdict is not None
    assert done.verdict.rounding == "exact"
    kinds = {tensor.dtype for tensor in open_checkpoint(tmp_path / "back").tensors.values()}
    assert kinds == {torch.float16}


def test_keep_keeps_norms_that_the_matrices_dtype_cannot_hold(source: Path, tmp_path: Path) -> None:
    def norms(name: str, values: torch.Tensor) -> torch.Tensor:
        return values.half() if values.dim() > 1 else values + 1e-5

    mixed = edited(source, tmp_path / "mixed", norms)
    run(mixed, tmp_path / "mixed.gguf", "gguf")
    done = run(tmp_path / "mixed.gguf", tmp_path / "back", "hf")
    assert done.verdict is not None
    assert done.verdict.rounding == "exact"
    tensors = open_checkpoint(tmp_path / "back").tensors
    assert tensors["lm_head.weight"].dtype == torch.float16
    assert tensors["model.norm.weight"].dtype == torch.float32
    named = run(tmp_path / "mixed.gguf", tmp_path / "named", "hf", dtype="float16")
    assert named.verdict is not None
    assert named.verdict.rounding == "float16", "the norms were rounded"


def test_float64_is_written_where_a_dtype_is_named(source: Path, tmp_path: Path) -> None:
    double = edited(source, tmp_path / "double", lambda _, w: w.double() + 1e-12)
    with pytest.raises(InputError, match=r"weights in torch\.float64\n  fix: --dtype float32"):
        run(double, tmp_path / "out", "hf")
    done = run(double, tmp_path / "out", "hf", dtype="float32")
    assert done.verdict is not None
    assert done.verdict.rounding == "float32"
    assert done.verdict.mean_kl <= KL_BOUNDS["float32"]


# --- lineage ----------------------------------------------------------------------------------


def test_a_manifest_is_a_parent_only_of_what_it_speaks_of(source: Path, tmp_path: Path) -> None:
    first = run(source, tmp_path / "a", "hf")
    model = f"model {first.manifest['identity']['config']['model']}"
    for to, options in (("gguf", {}), ("hf", {"dtype": "bfloat16"}), ("meta", {})):
        target = tmp_path / f"{to}.gguf" if to == "gguf" else tmp_path / to
        done = run(tmp_path / "a", target, to, **options)
        assert done.manifest["identity"]["parents"] == [first.manifest["digest"]]
    edited(tmp_path / "a", tmp_path / "a", lambda _, w: w * 1.01)
    for options in ({}, {"dtype": "bfloat16"}):
        done = run(tmp_path / "a", tmp_path / "b", "hf", force=True, **options)
        (parent,) = done.manifest["identity"]["parents"]
        assert parent.startswith("model ")
        assert parent != model


@pytest.mark.parametrize("text", ["{", "[]", '{"digest": "x"}'])
def test_a_broken_manifest_in_the_source_means_made_elsewhere(
    source: Path, tmp_path: Path, text: str
) -> None:
    copy = edited(source, tmp_path / "copy", lambda _, w: w)
    (copy / "manifest.json").write_text(text)
    done = run(copy, tmp_path / "out", "hf")
    model = done.manifest["identity"]["config"]["model"]
    assert done.manifest["identity"]["parents"] == [f"model {model}"]


@pytest.mark.parametrize(
    ("place", "title"),
    [
        ("Llama-3.2-1B", "Llama-3.2-1B"),
        ("Llama-3.2-1B/model.safetensors", "Llama-3.2-1B"),
        ("v1.5.Q8.gguf", "v1.5.Q8"),
        ("models--owner--name/snapshots/0123", "name"),
    ],
)
def test_a_product_is_called_after_its_source(tmp_path: Path, place: str, title: str) -> None:
    path = tmp_path / place
    if path.suffix in (".gguf", ".safetensors"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    else:
        path.mkdir(parents=True)
    assert flow._title(path) == title


@pytest.mark.parametrize(("to", "name"), [("gguf", "x.gguf"), ("meta", "x"), ("hf", "x")])
def test_how_to_generate_is_kept(source: Path, tmp_path: Path, to: str, name: str) -> None:
    told = {"eos_token_id": [2, 7], "temperature": 0.6, "top_p": 0.9}
    copy = edited(source, tmp_path / "copy", lambda _, w: w)
    (copy / "generation_config.json").write_text(json.dumps(told))
    run(copy, tmp_path / name, to)
    kept = open_checkpoint(tmp_path / name).generation_config
    assert {key: kept[key] for key in told} == told


# --- comparison -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_position_embeddings": 4096}, "max_position_embeddings is 4096, not 2048"),
        ({"sliding_window": 64, "model_type": "mistral"}, "window_tokens is 64, not None"),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
            r"rope_scaling\.kind is linear, not default",
        ),
    ],
)
def test_a_product_of_another_shape_is_refused(
    source: Path, changes: dict[str, Any], field: str
) -> None:
    whole = open_checkpoint(source)
    other = dataclasses.replace(whole, config={**whole.config, **changes})
    with pytest.raises(InputError, match=f"differs from its source in its config: {field}"):
        verify(whole, other, tokenizers=(None, None), rounding="exact", tick=lambda: None)
