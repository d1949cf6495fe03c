"""What each rank of the spawned world checks; its outcomes go to a file, one line per check.

Every rank has its own batch. The expected gradient is the sum over the ranks' batches, computed
by each rank alone on a whole copy of the model.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor

from model.reference import TINY, tiny_model, token_ids
from model.tolerances import assert_close
from puna.errors import InputError
from puna.model import AttentionSpec, ContiguousCache, LlamaModel
from puna.model.llama import IGNORED
from puna.scale.pieces import (
    Piece,
    copies,
    is_spread,
    let_go,
    local,
    piece,
    refuse_spread,
    sync_gradients,
)
from puna.scale.pieces import whole as gathered
from puna.scale.shard import shard
from puna.scale.spread import SpreadConfig
from puna.scale.spread import spread as spread_model
from puna.scale.world import World
from scale.pool import RANKS, run_checks

TOKENS = 7
UNTIED, TIED = TINY, replace(TINY, tie_word_embeddings=True)
CONFIGS = {"untied": UNTIED, "tied": TIED}


def pair(
    world: World, name: str, dtype: torch.dtype | None = None
) -> tuple[LlamaModel, LlamaModel]:
    """(spread over the ranks, whole on this one), of the same weights."""
    spread, whole = tiny_model(CONFIGS[name], seed=4), tiny_model(CONFIGS[name], seed=4)
    layers = spread.model.layers
    shard(spread, world, blocks=layers, doors=LlamaModel.DOORS, compute_dtype=dtype)
    return spread, whole


def batches() -> list[Tensor]:
    """The ids [B, T] of every rank."""
    return [token_ids(2, TOKENS, seed=10 + rank) for rank in range(RANKS)]


def check_parameters_are_spread(world: World) -> None:
    """Each rank holds its part only, and the parts make up the whole."""
    for name in CONFIGS:
        spread, whole = pair(world, name)
        wanted = dict(whole.named_parameters())
        assert dict(spread.named_parameters()).keys() == wanted.keys()
        for key, parameter in spread.named_parameters():
            assert isinstance(parameter, DTensor), key
            assert parameter.to_local().numel() < parameter.numel(), key
            assert torch.equal(parameter.full_tensor(), wanted[key]), key


def check_embed(world: World) -> None:
    """The first door, used before any other."""
    for name in CONFIGS:
        spread, whole = pair(world, name)
        ids = batches()[world.rank]
        assert torch.equal(spread.embed(ids), whole.embed(ids))


def check_run(world: World) -> None:
    """The second door, whole and in pieces, with and without a spec."""
    for name in CONFIGS:
        spread, whole = pair(world, name)
        hidden = torch.randn(2, TOKENS, TINY.hidden_size)
        valid = torch.arange(TOKENS) >= torch.tensor([[0], [3]])
        for spec in (None, AttentionSpec("bidirectional", valid=valid)):
            expected = whole.run(hidden, attention=spec)
            assert_close(spread.run(hidden, attention=spec), expected, "logits")
            half = spread.run(hidden, 0, 1, spec)
            assert_close(spread.run(half, 1, 2, spec), expected, "logits")


def check_head(world: World) -> None:
    """The third door, used before any other."""
    for name in CONFIGS:
        spread, whole = pair(world, name)
        hidden = torch.randn(2, TOKENS, TINY.hidden_size)
        assert_close(spread.head(hidden), whole.head(hidden), "logits")


def check_head_loss(world: World) -> None:
    """The fourth door: the loss, and the gradient of the hidden states."""
    for name in CONFIGS:
        spread, whole = pair(world, name)
        first = torch.randn(2, TOKENS, TINY.hidden_size, requires_grad=True)
        second = first.detach().clone().requires_grad_()
        targets = batches()[world.rank]
        loss, expected = spread.head_loss(first, targets), whole.head_loss(second, targets)
        loss.backward()
        expected.backward()
        assert_close(loss, expected, "loss")
        assert first.grad is not None
        assert second.grad is not None
        assert_close(first.grad, second.grad, "gradient")


def check_forward(world: World) -> None:
    """All doors in one call, with gradients and without."""
    for name in CONFIGS:
        spread, whole = pair(world, name)
        ids = batches()[world.rank]
        assert_close(spread(ids), whole(ids), "logits")
        with torch.no_grad():
            assert_close(spread(ids), whole(ids), "logits")


def check_cache(world: World) -> None:
    """Generation over a cache, each rank with its own."""
    spread, whole = pair(world, "untied")
    ids = batches()[world.rank]
    cache = ContiguousCache(TINY, batch=2, max_tokens=TOKENS)
    with torch.no_grad():
        parts = [spread(part, cache=cache) for part in ids.split([4, 1, 2], 1)]
        assert_close(torch.cat(parts, 1), whole(ids), "logits")


Loss = Callable[[LlamaModel, Tensor, Tensor], Tensor]


def by_forward(model: LlamaModel, ids: Tensor, targets: Tensor) -> Tensor:
    """The loss as a user of `forward` writes it."""
    return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="sum")


def by_doors(model: LlamaModel, ids: Tensor, targets: Tensor) -> Tensor:
    """The loss as the training loop takes it, with the blocks in two pieces."""
    hidden = model.run(model.embed(ids), 0, 1)
    return model.head_loss(model.run(hidden, 1), targets)


def expect_summed_gradients(world: World, name: str, loss: Loss, targets: list[Tensor]) -> None:
    """Run one backward pass on the spread model; compare with the sum over all ranks' batches."""
    spread, whole = pair(world, name)
    loss(spread, batches()[world.rank], targets[world.rank]).backward()
    for ids, wanted in zip(batches(), targets, strict=True):
        loss(whole, ids, wanted).backward()
    expected = {key: p.grad for key, p in whole.named_parameters()}
    for key, parameter in spread.named_parameters():
        assert isinstance(parameter.grad, DTensor), f"{key} has no gradient"
        gradient = parameter.grad.full_tensor()
        assert_close(gradient, expected[key], "reduction over ranks")


def check_gradients_by_forward(world: World) -> None:
    """Tied and untied."""
    targets = [ids.roll(-1, 1) for ids in batches()]
    for name in CONFIGS:
        expect_summed_gradients(world, name, by_forward, targets)


def check_gradients_by_doors(world: World) -> None:
    """A tied weight gets its gradient from two doors."""
    targets = [ids.roll(-1, 1) for ids in batches()]
    for name in CONFIGS:
        expect_summed_gradients(world, name, by_doors, targets)


def check_gradients_of_uneven_ranks(world: World) -> None:
    """One rank has nothing to predict: no rank waits for it, and its part counts as zero."""
    targets = [ids.roll(-1, 1) for ids in batches()]
    targets[0] = torch.full_like(targets[0], IGNORED)
    targets[1][0, :5] = IGNORED
    for name in CONFIGS:
        expect_summed_gradients(world, name, by_doors, targets)


def check_gradients_over_two_passes(world: World) -> None:
    """Two backward passes before a step add up, as they do on one process."""
    targets = [ids.roll(-1, 1) for ids in batches()]
    for name in CONFIGS:
        spread, whole = pair(world, name)
        for _ in range(2):
            by_doors(spread, batches()[world.rank], targets[world.rank]).backward()
        for _ in range(2):
            for ids, wanted in zip(batches(), targets, strict=True):
                by_doors(whole, ids, wanted).backward()
        expected = {key: p.grad for key, p in whole.named_parameters()}
        for key, parameter in spread.named_parameters():
            assert isinstance(parameter.grad, DTensor), f"{key} has no gradient"
            assert_close(parameter.grad.full_tensor(), expected[key], "reduction over ranks")


def check_gradients_travel_once(world: World) -> None:
    """Passes before the last one add up on each rank; the last one sums all of them."""
    targets = [ids.roll(-1, 1) for ids in batches()]
    spread, whole = pair(world, "tied")
    sync_gradients(spread, False)
    by_doors(spread, batches()[world.rank], targets[world.rank]).backward()
    assert all(parameter.grad is None for parameter in spread.parameters()), "not yet"
    sync_gradients(spread, True)
    by_doors(spread, batches()[world.rank], targets[world.rank]).backward()
    for _ in range(2):
        for ids, wanted in zip(batches(), targets, strict=True):
            by_doors(whole, ids, wanted).backward()
    expected = {key: p.grad for key, p in whole.named_parameters()}
    for key, parameter in spread.named_parameters():
        assert isinstance(parameter.grad, DTensor), f"{key} has no gradient"
        assert_close(parameter.grad.full_tensor(), expected[key], "reduction over ranks")


def check_pieces(world: World) -> None:
    """What lies on a rank is told truly, and changes the model when it is changed."""
    spread, whole = pair(world, "tied")
    wanted = dict(whole.named_parameters())
    for key, parameter in spread.named_parameters():
        here, place = local(parameter), piece(parameter)
        assert not hasattr(here, "device_mesh") and not here.requires_grad
        assert place.shape == tuple(wanted[key].shape)
        assert place.local_shape == tuple(here.shape)
        assert place.owned and not place.is_whole
        assert copies(parameter) == 1
        assert torch.equal(here, wanted[key][place.start : place.stop]), key
        assert torch.equal(gathered(parameter), wanted[key])
        with pytest.raises(InputError, match="muon needs whole matrices, and these are spread"):
            refuse_spread([parameter], "muon")
    ids = batches()[world.rank]
    for key, parameter in spread.named_parameters():
        local(parameter).mul_(1.5)
        with torch.no_grad():
            wanted[key].mul_(1.5)
    assert_close(spread(ids), whole(ids), "logits")


def check_rows_that_do_not_divide(world: World) -> None:
    """Three rows on two ranks, and one row, of which the second rank has nothing."""
    for rows, mine in ((3, [2, 1]), (1, [1, 0])):
        layer = torch.nn.Linear(4, rows)
        torch.nn.init.constant_(layer.weight, 2.0)
        layer.bias = None
        shard(layer, world, blocks=[], doors=[])
        place = piece(layer.weight)
        assert place == Piece((rows, 4), min(2, rows) * world.rank, mine[world.rank])
        assert len(local(layer.weight)) == mine[world.rank]


def check_weights_are_let_go(world: World) -> None:
    """After a pass without a backward one the model still holds what it gathered."""
    spread, whole = pair(world, "untied")
    ids = batches()[world.rank]
    parameters = dict(spread.named_parameters())
    with torch.no_grad():
        spread(ids)
        for key, parameter in whole.named_parameters():
            local(parameters[key]).mul_(0.5)
            parameter.mul_(0.5)
        let_go(spread)
        assert_close(spread(ids), whole(ids), "logits")


def check_groups_that_do_not_fit(world: World) -> None:
    """Two ranks are no group of three; a group of all ranks is no group at all."""
    with pytest.raises(InputError, match=r"2 ranks do not make up groups of 3\n  fix: choose 2"):
        shard(tiny_model(TINY), world, blocks=[], doors=[], hybrid=3)
    model = shard(tiny_model(TINY), world, blocks=[], doors=[], hybrid=2)
    assert copies(next(model.parameters())) == 1


def check_spreading_by_a_configuration(world: World) -> None:
    """Copies leave the model as it is."""
    whole = tiny_model(TINY)
    own = {"blocks": whole.model.layers, "doors": LlamaModel.DOORS}
    assert spread_model(whole, world, SpreadConfig("copies"), **own) is whole
    assert not is_spread(whole.model.norm.weight)
    spread_model(whole, world, SpreadConfig(), **own)
    assert is_spread(whole.model.norm.weight)


def check_a_lost_rank_is_named(world: World) -> None:
    """What torch says of a broken connection becomes a sentence; other errors stay."""
    for text in ("[gloo/transport/tcp/pair.cc:534] Connection closed by peer", "NCCL error"):
        with pytest.raises(InputError, match="another rank stopped"), world.working():
            raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="shapes cannot"), world.working():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def check_a_step_keeps_the_tie(world: World) -> None:
    """After an optimizer's step the spread model is the whole one after the same step."""
    targets = [ids.roll(-1, 1) for ids in batches()]
    for name in CONFIGS:
        spread, whole = pair(world, name)
        by_doors(spread, batches()[world.rank], targets[world.rank]).backward()
        for ids, wanted in zip(batches(), targets, strict=True):
            by_doors(whole, ids, wanted).backward()
        for model in (spread, whole):
            torch.optim.SGD(model.parameters(), lr=0.01).step()
        tied = spread.lm_head.weight is spread.model.embed_tokens.weight
        assert tied == (name == "tied")
        ids = batches()[world.rank]
        assert_close(spread(ids), whole(ids), "reduction over ranks")


def check_compute_dtype(world: World) -> None:
    """Gathered in bfloat16; kept, and reduced, in float32."""
    for name in CONFIGS:
        spread, whole = pair(world, name, torch.bfloat16)
        ids = batches()[world.rank]
        assert spread.embed(ids).dtype == torch.bfloat16
        logits = spread(ids)
        assert logits.dtype == torch.bfloat16
        assert_close(logits, whole(ids), "against float32", torch.bfloat16)
        loss = by_doors(spread, ids, ids.roll(-1, 1))
        assert loss.dtype == torch.float32
        loss.backward()
        for ids in batches():
            by_doors(whole, ids, ids.roll(-1, 1)).backward()
        expected = {key: p.grad for key, p in whole.named_parameters()}
        for key, parameter in spread.named_parameters():
            assert isinstance(parameter.grad, DTensor), f"{key} has no gradient"
            assert parameter.dtype == parameter.grad.dtype == torch.float32
            gradient = parameter.grad.full_tensor()
            assert_close(gradient, expected[key], "gradient", torch.bfloat16)


def check_world(world: World) -> None:
    """Rank, size, device, and a sum that leaves its argument alone."""
    assert (world.rank, world.size) == (int(os.environ["RANK"]), RANKS)
    assert world.device == torch.device("cpu")
    assert world.is_first == (world.rank == 0)
    mine = torch.tensor([1.0, 10.0 * world.rank])
    assert world.sum(mine).tolist() == [2.0, 10.0]
    assert mine.tolist() == [1.0, 10.0 * world.rank]
    assert world.sum(torch.tensor(3 + world.rank)).item() == 7
    world.barrier()


CHECKS: dict[str, Callable[[World], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def start(rank: int, port: int, folder: str) -> None:
    """The entry of a spawned rank."""
    torch.manual_seed(rank)
    run_checks(rank, port, folder, CHECKS)
