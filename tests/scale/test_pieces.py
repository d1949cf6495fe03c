"""What of a tensor lies on a rank: of plain tensors, and of spread ones by their own word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.scale.pieces import (
    Piece,
    copies,
    is_spread,
    let_go,
    local,
    piece,
    refuse_spread,
    sync_gradients,
    whole,
)
from puna.scale.spread import SpreadConfig


@dataclass
class Mesh:
    """As many ranks as a mesh has, and where this one is."""

    sizes: tuple[int, ...]
    place: tuple[int, ...]

    def size(self, dimension: int) -> int:
        return self.sizes[dimension]

    def get_coordinate(self) -> tuple[int, ...]:
        return self.place


class Placement:
    """Rows, columns or copies."""

    def __init__(self, kind: str):
        self.kind = kind

    def is_replicate(self) -> bool:
        return self.kind == "copy"

    def is_shard(self, dimension: int) -> bool:
        return self.kind == ("rows", "columns")[dimension]

    def __repr__(self) -> str:
        return self.kind


class Spread:
    """As much of a spread tensor as is asked for."""

    def __init__(self, rows: int, mesh: Mesh, placements: tuple[str, ...]):
        self.shape = torch.Size([rows, 3])
        self.device_mesh = mesh
        self.placements = tuple(Placement(kind) for kind in placements)
        at = placements.index("rows") if "rows" in placements else 0
        parts: Any = torch.arange(rows * 3.0).view(rows, 3).chunk(mesh.sizes[at])
        here = mesh.place[at]
        self.own = parts[here] if here < len(parts) else torch.empty(0, 3)

    def to_local(self) -> torch.Tensor:
        return self.own


def test_a_plain_tensor_is_whole() -> None:
    tensor = torch.zeros(4, 2)
    assert local(tensor) is tensor
    assert whole(tensor) is tensor
    assert piece(tensor) == Piece((4, 2), 0, 4)
    assert piece(tensor).is_whole
    assert not is_spread(tensor)
    assert copies(tensor) == 1
    refuse_spread([tensor], "muon")


def test_a_scalar_is_whole() -> None:
    place = piece(torch.tensor(3.0))
    assert place == Piece((), 0, 1)
    assert place.is_whole
    assert place.local_shape == ()


@given(rows=st.integers(1, 40), ranks=st.integers(1, 9))
def test_rows_are_dealt_out_once(rows: int, ranks: int) -> None:
    found: list[int] = []
    for rank in range(ranks):
        spread: Any = Spread(rows, Mesh((ranks,), (rank,)), ("rows",))
        place = piece(spread)
        assert place.local_shape == tuple(spread.own.shape)
        assert place.owned
        found += range(place.start, place.stop)
    assert found == list(range(rows))


def test_copies_are_owned_by_the_first_group() -> None:
    owned = []
    for group in range(3):
        spread: Any = Spread(8, Mesh((3, 2), (group, 1)), ("copy", "rows"))
        assert copies(spread) == 3
        assert (piece(spread).start, piece(spread).rows) == (4, 4)
        owned.append(piece(spread).owned)
    assert owned == [True, False, False]


def test_columns_are_refused() -> None:
    spread: Any = Spread(8, Mesh((2,), (0,)), ("columns",))
    with pytest.raises(InputError, match="a tensor is spread as columns, expected rows or copies"):
        piece(spread)


def test_a_model_that_is_not_spread_needs_no_switch() -> None:
    model = torch.nn.Linear(2, 2)
    sync_gradients(model, False)
    let_go(model)


def test_a_configuration_that_contradicts_itself() -> None:
    with pytest.raises(InputError, match="group_ranks goes with shards, not with copies"):
        SpreadConfig("copies", 2)
    with pytest.raises(InputError, match="group_ranks must be at least 2, found 1"):
        SpreadConfig(group_ranks=1)
