"""Tensors in runs of rows: whatever the ranks that wrote them, the same rows come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.artifact import digest_json, write_json
from puna.errors import InputError
from puna.scale.pieces import Piece
from puna.train.checkpoint_pieces import (
    TRAINED,
    Listing,
    Part,
    Stored,
    merged,
    parts_of,
    read_parts,
    to_write,
    write_parts,
)
from puna.train.checkpoints import load, load_trained


def written(folder: Path, whole: dict[str, torch.Tensor], ranks: int) -> Listing:
    """What so many ranks write of tensors, each its rows."""
    listings = []
    for rank in range(ranks):
        parts = {name: part_of(tensor, rank, ranks) for name, tensor in whole.items()}
        own = to_write(parts, first=rank == 0)
        listings.append(write_parts(folder, {TRAINED: own}, rank))
    return merged(listings)


def part_of(tensor: torch.Tensor, rank: int, ranks: int) -> Part:
    shape = tuple(tensor.shape)
    if not shape:
        return Part(tensor, Piece(shape, 0, 1))
    each = -(-shape[0] // ranks)
    start = min(rank * each, shape[0])
    rows = min(each, shape[0] - start)
    return Part(tensor[start : start + rows], Piece(shape, start, rows))


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "matrix": torch.randn(7, 3),
        "norm": torch.randn(5).to(torch.bfloat16),
        "row": torch.randn(1, 4),
        "step": torch.tensor(3.0),
    }


@given(ranks=st.integers(1, 9), data=st.data())
def test_any_rows_of_any_number_of_ranks(
    ranks: int,
    data: st.DataObject,
    whole: dict[str, torch.Tensor],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    listing = written(folder, whole, ranks)
    stored = read_parts(folder, listing[TRAINED], 0, 1)
    assert stored.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(stored[name], tensor)
        assert (stored.shape(name), stored.dtype(name)) == (tuple(tensor.shape), tensor.dtype)
    start = data.draw(st.integers(0, 7))
    stop = data.draw(st.integers(start, 7))
    assert torch.equal(stored.rows("matrix", start, stop), whole["matrix"][start:stop])
    others = data.draw(st.integers(1, 9))
    for rank in range(others):
        for name, tensor in whole.items():
            part = part_of(tensor, rank, others)
            assert torch.equal(stored.at(name, part.place), part.tensor), name


def test_every_byte_is_checked_by_one_of_the_readers(
    tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    listing = written(tmp_path, whole, 2)[TRAINED]
    for file in sorted(listing):
        for name in listing[file]:
            changed = json.loads(json.dumps(listing))
            changed[file][name]["sha256"] = "0" * 64
            found = [raises(tmp_path, changed, rank) for rank in range(3)]
            assert sum(text is not None for text in found) == 1, (file, name)
            (text,) = [text for text in found if text is not None]
            assert f"{file}: tensor {name!r} is not as it was written" in text


def raises(folder: Path, listing: dict[str, Any], rank: int) -> str | None:
    try:
        read_parts(folder, listing, rank, 3)
    except InputError as error:
        return str(error)
    return None


def test_rows_that_are_missing_or_twice(tmp_path: Path, whole: dict[str, torch.Tensor]) -> None:
    listing = written(tmp_path, whole, 2)[TRAINED]
    first, second = sorted(listing)
    with pytest.raises(InputError, match=r"tensor 'matrix' has 4 rows of \[7, 3\]"):
        read_parts(tmp_path, {first: listing[first]}, 0, 1)
    listing[second]["matrix"]["start"] = 3
    with pytest.raises(InputError, match="the parts of tensor 'matrix' do not fit together"):
        read_parts(tmp_path, listing, 0, 1)
    del listing[second]["matrix"]
    with pytest.raises(InputError, match=f"{second}: holds other tensors than were written"):
        read_parts(tmp_path, listing, 0, 1)


def test_what_lies_where(whole: dict[str, torch.Tensor]) -> None:
    """Moments lie where their parameter does; a count of steps is whole."""
    places = {"matrix": Piece((7, 3), 4, 3), "norm": Piece((5,), 0, 5)}
    own = {"matrix": whole["matrix"][4:], "norm": whole["norm"]}
    state = {"matrix/exp_avg": torch.zeros(3, 3), "matrix/step": torch.tensor(1.0)}
    trained, optimizer = parts_of(own, places), parts_of(state, places)
    assert trained["matrix"].place == places["matrix"]
    assert optimizer["matrix/exp_avg"].place == places["matrix"]
    assert optimizer["matrix/step"].place == Piece((), 0, 1)
    assert to_write(trained, first=False).keys() == {"matrix"}
    assert to_write(optimizer, first=False).keys() == {"matrix/exp_avg"}
    assert to_write(optimizer, first=True).keys() == optimizer.keys()
    copy = {"matrix": Part(own["matrix"], Piece((7, 3), 4, 3, owned=False))}
    assert to_write(copy, first=False) == {}


def test_a_copy_stays_as_it_was() -> None:
    part = Part(torch.zeros(2), Piece((2,), 0, 2))
    frozen = part.frozen()
    part.tensor.add_(1)
    assert frozen.tensor.tolist() == [0.0, 0.0]


def test_an_empty_part_is_a_file_too(tmp_path: Path) -> None:
    listing = write_parts(tmp_path, {TRAINED: {}}, 1)
    assert listing == {TRAINED: {"trained-00001.safetensors": {}}}
    assert dict(read_parts(tmp_path, listing[TRAINED], 0, 1)) == {}
    assert isinstance(read_parts(tmp_path, {}, 0, 1), Stored)


def test_a_checkpoint_of_the_first_version_is_read(tmp_path: Path) -> None:
    """Its listing has digests only; every tensor is whole."""
    folder = tmp_path / "checkpoints" / "step-4"
    folder.mkdir(parents=True)
    weight, moment = torch.randn(3, 2), torch.randn(3, 2)
    parts = {
        "trained": {"weight": Part(weight, Piece((3, 2), 0, 3))},
        "optimizer": {"weight/exp_avg": Part(moment, Piece((3, 2), 0, 3))},
    }
    files = write_parts(folder, parts, None)
    digests = {
        f"{kind}.safetensors": {
            name: told["sha256"] for name, told in files[kind][f"{kind}.safetensors"].items()
        }
        for kind in parts
    }
    content = {"version": 1, "step": 4, "run": {"identity": "x"}, "tensors": digests}
    write_json(folder / "state.json", {"content": content, "digest": digest_json(content)})
    saved = load(folder)
    assert (saved.step, saved.state) == (4, {"identity": "x"})
    assert torch.equal(saved.trained["weight"], weight)
    assert torch.equal(saved.optimizer["weight/exp_avg"], moment)
    parameter = torch.nn.Parameter(torch.zeros(3, 2))
    load_trained(tmp_path, 4, {"weight": parameter})
    assert torch.equal(parameter, weight)
