"""What each of four ranks checks, two of which share one copy of the model in shards."""

from __future__ import annotations

from collections.abc import Callable

import torch

from model.reference import TINY, tiny_model, token_ids
from model.tolerances import assert_close
from puna.model import LlamaModel
from puna.scale.pieces import Piece, copies, piece, sync_gradients, whole
from puna.scale.shard import shard
from puna.scale.world import World
from scale.pool import run_checks

RANKS = 4


def hybrid(world: World) -> LlamaModel:
    """A model in two copies, each in two shards."""
    model = tiny_model(TINY, seed=4)
    return shard(model, world, blocks=model.model.layers, doors=LlamaModel.DOORS, hybrid=2)


def check_places(world: World) -> None:
    """Neighbours share a copy; the first copy's rows are the owned ones."""
    model = hybrid(world)
    weight = model.lm_head.weight
    each = -(-TINY.vocab_size // 2)
    start = each * (world.rank % 2)
    rows = min(each, TINY.vocab_size - start)
    assert piece(weight) == Piece(tuple(weight.shape), start, rows, owned=world.rank < 2)
    assert copies(weight) == 2


def check_gradients_are_summed_over_all(world: World) -> None:
    """Within groups and over them, with a pass before the last one."""
    model, alone = hybrid(world), tiny_model(TINY, seed=4)
    batches = [token_ids(2, 5, seed=rank) for rank in range(RANKS)]
    for last in (False, True):
        sync_gradients(model, last)
        ids = batches[world.rank]
        model.head_loss(model.run(model.embed(ids)), ids.roll(-1, 1)).backward()
        for ids in batches:
            alone.head_loss(alone.run(alone.embed(ids)), ids.roll(-1, 1)).backward()
    expected = {key: p.grad for key, p in alone.named_parameters()}
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert_close(whole(parameter.grad), expected[key], "reduction over ranks")


CHECKS: dict[str, Callable[[World], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def start(rank: int, port: int, folder: str) -> None:
    """The entry of a spawned rank."""
    torch.manual_seed(rank)
    run_checks(rank, port, folder, CHECKS, RANKS)
