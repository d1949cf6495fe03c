"""What two ranks that share one model in shards check; outcomes go to a file, a line per check."""

from __future__ import annotations

import errno
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.reference import TINY, tiny_model
from model.tolerances import assert_close
from puna.errors import InputError
from puna.model import LlamaModel
from puna.scale.pieces import local, piece, whole
from puna.scale.shard import shard
from puna.scale.world import World
from puna.train import (
    Job,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
    checkpoint_pieces,
    checkpoints,
    fit,
)
from puna.train.checkpoints import load_step, load_trained
from puna.train.keeping import Content, Keeper
from puna.train.objectives import Embedded, NextToken
from puna.train.ranks import gather
from scale.pool import RANKS, placed, run_checks
from train.stub import SINGLE, Heard, Loader, assert_same

CONFIG = TrainConfig(epochs=None, max_steps=6, micro_batches=2, optim=OptimConfig(weight_decay=0.1))
EVERY = replace(CONFIG, checkpoint_every_steps=2)
STEADY = replace(EVERY, schedule=ScheduleConfig(kind="constant", warmup_steps=0))
EXAMPLES, ROWS = 16, 2


def model_job(world: World, *, spread: bool, examples: int = EXAMPLES, size: int = ROWS) -> Job:
    """A job in which all of a model learns, with this rank's batches."""
    model = tiny_model(replace(TINY, tie_word_embeddings=True), seed=3)
    if spread:
        shard(model, world, blocks=model.model.layers, doors=LlamaModel.DOORS)
    return Job(
        model=model,
        parameters=dict(model.named_parameters()),
        objective=NextToken(),
        loader=Loader(examples, size, world.rank, world.size, shuffle=False),
        trunk=Embedded(model),
        identity="a recipe",
        any_ranks=True,
    )


def lonely() -> Job:
    """One process that takes the examples of both ranks in each batch."""
    return model_job(SINGLE, spread=False, size=RANKS * ROWS)


def place(folder: Path, world: World, name: str) -> Path:
    """A folder that all ranks share."""
    if world.is_first:
        (folder / name).mkdir()
    world.barrier()
    return folder / name


def learnt(made: Job) -> dict[str, Tensor]:
    """What was learnt, whole, on every rank."""
    return {name: whole(p).clone() for name, p in made.parameters.items()}


def run(made: Job, folder: Path, world: World, config: TrainConfig = CONFIG) -> Heard:
    heard = Heard()
    fit(made, config, folder, world=world, report=heard)
    return heard


def check_shards_copies_and_one_process_agree(world: World, folder: Path) -> None:
    """Losses and norms of every step, and the weights at the end."""
    found: dict[str, list[Any]] = {}
    ends: dict[str, dict[str, Tensor]] = {}
    for name, spread in (("shards", True), ("copies", False)):
        made = model_job(world, spread=spread)
        steps = run(made, place(folder, world, name), world).steps
        found[name] = gather(world, [[step.loss, step.grad_norm] for step in steps])[0]
        ends[name] = learnt(made)
    alone = lonely()
    steps = run(alone, own_folder(folder, world, "alone"), SINGLE).steps
    wanted = [[step.loss, step.grad_norm] for step in steps]
    assert len(wanted) == CONFIG.max_steps
    for name in found:
        assert_all_close(found[name], wanted)
        for key, value in learnt(alone).items():
            assert_close(ends[name][key], value, "reduction over ranks")


def own_folder(folder: Path, world: World, name: str) -> Path:
    """A folder of this rank alone."""
    made = folder / f"{name}-{world.rank}"
    made.mkdir()
    return made


def assert_all_close(found: list[list[float]], wanted: list[list[float]]) -> None:
    assert len(found) == len(wanted)
    for mine, expected in zip(found, wanted, strict=True):
        assert mine[0] == pytest.approx(expected[0], rel=2e-5)
        assert mine[1] == pytest.approx(expected[1], rel=2e-4)


def check_ranks_with_fewer_batches_keep_step(world: World, folder: Path) -> None:
    """Five batches on two ranks: where one has nothing left, its passes count nothing."""
    config = replace(CONFIG, max_steps=2)
    made = model_job(world, spread=True, examples=5, size=1)
    heard = run(made, place(folder, world, "shared"), world, config)
    told = gather(world, [step.loss for step in heard.steps])[0]
    alone = model_job(SINGLE, spread=False, examples=5, size=1)
    both = replace(config, micro_batches=RANKS * config.micro_batches)
    wanted = run(alone, own_folder(folder, world, "alone"), SINGLE, both)
    assert told == pytest.approx([step.loss for step in wanted.steps], rel=2e-5)


def check_bfloat16_is_gathered_only(world: World, folder: Path) -> None:
    """What is kept and moved is float32; losses are near those of float32."""
    model = tiny_model(TINY, seed=3)
    doors = LlamaModel.DOORS
    shard(model, world, blocks=model.model.layers, doors=doors, compute_dtype=torch.bfloat16)
    made = replace(
        model_job(world, spread=False),
        model=model,
        parameters=dict(model.named_parameters()),
        trunk=Embedded(model),
    )
    shared = place(folder, world, "shared")
    told = gather(world, [step.loss for step in run(made, shared, world).steps])[0]
    saved = load_step(shared, 6)
    assert {saved.trained.dtype(name) for name in saved.trained} == {torch.float32}
    assert told[-1] == pytest.approx(told[0], rel=0.2)
    asked = replace(CONFIG, compute_dtype="bfloat16")
    with pytest.raises(InputError, match=r"the model is spread over the ranks, which gather it"):
        run(made, place(folder, world, "asked"), world, asked)


def check_optimizers_that_need_whole_matrices(world: World, folder: Path) -> None:
    """Each says so before the first step."""
    for kind in ("lamb", "muon"):
        config = replace(CONFIG, optim=OptimConfig(kind=kind))  # type: ignore[arg-type]
        with pytest.raises(InputError, match=f"{kind} takes each matrix as a whole, and the model"):
            run(model_job(world, spread=True), place(folder, world, kind), world, config)


def check_files_of_each_rank(world: World, folder: Path) -> None:
    """Every rank writes its rows, and only those; all together are the model."""
    shared = place(folder, world, "shared")
    made = model_job(world, spread=True)
    run(made, shared, world)
    path = shared / "checkpoints" / "step-6"
    kinds = ("optimizer", "trained")
    names = [f"{kind}-{rank:05d}.safetensors" for kind in kinds for rank in range(RANKS)]
    assert sorted(p.name for p in path.iterdir()) == sorted([*names, "state.json"])
    saved = load_step(shared, 6)
    assert_same(dict(saved.trained), learnt(made))
    for name, parameter in made.parameters.items():
        here = saved.trained.at(name, piece(parameter))
        assert torch.equal(here, local(parameter)), name


def check_resharding(world: World, folder: Path) -> None:
    """On two ranks, on one, and on two again: as two ranks throughout, to rounding."""
    shared = place(folder, world, "moved")
    for steps, spread in ((2, True), (4, False), (6, True)):
        config = replace(STEADY, max_steps=steps)
        if spread:
            run(model_job(world, spread=True), shared, world, config)
        elif world.is_first:
            heard = Heard()
            fit(lonely(), config, shared, world=SINGLE, report=heard)
            assert heard.began == [(2, 4)]
            assert heard.notes[1] == "the run was on 2 ranks, this is one of 1"
        world.barrier()
    stayed = place(folder, world, "stayed")
    made = model_job(world, spread=True)
    run(made, stayed, world, STEADY)
    found, wanted = load_step(shared, 6), load_step(stayed, 6)
    for name, value in wanted.trained.items():
        assert_close(found.trained[name], value, "reduction over ranks")


def check_nothing_is_lost_in_resharding(world: World, folder: Path) -> None:
    """Put back on another number of ranks and kept again: the same bits, optimizer included."""
    shared = place(folder, world, "two")
    run(model_job(world, spread=True), shared, world, EVERY)
    wanted = load_step(shared, 6)
    alone = own_folder(folder, world, "one")
    shutil.copytree(shared / "checkpoints" / "step-6", alone / "checkpoints" / "step-6")
    made = lonely()
    run(made, alone, SINGLE, EVERY)  # nothing is left to do
    assert_same(learnt(made), dict(wanted.trained))
    again = place(folder, world, "again")
    if world.is_first:
        shutil.copytree(alone / "checkpoints", again / "checkpoints")
    world.barrier()
    other = model_job(world, spread=True)
    run(other, again, world, replace(EVERY, max_steps=6))
    assert_same(learnt(other), dict(wanted.trained))
    fresh = model_job(world, spread=True)  # was never in a run
    load_trained(shared, 6, fresh.parameters)
    assert_same(learnt(fresh), dict(wanted.trained))


def check_optimizer_state_is_resharded(world: World, folder: Path) -> None:
    """From two ranks to one, kept there without a step, and back to two."""
    shared = place(folder, world, "two")
    run(model_job(world, spread=True), shared, world, EVERY)
    saved = load_step(shared, 6)
    one = own_folder(folder, world, "one")
    whole_model = lonely()
    places = {name: piece(p) for name, p in whole_model.parameters.items()}
    state = checkpoints.own_state(saved, places)
    keeper = Keeper(one, SINGLE, newest=1, background=False)
    keeper.keep(Content(6, saved.state, dict(saved.trained), state, places, sharded=False))
    found = load_step(one, 6)
    assert_same(dict(found.optimizer), dict(saved.optimizer))
    spread = model_job(world, spread=True)
    mine = {name: piece(p) for name, p in spread.parameters.items()}
    for key, value in checkpoints.own_state(found, mine).items():
        name, _, field = key.rpartition("/")
        if field != "step":
            assert tuple(value.shape) == mine[name].local_shape
            assert torch.equal(value, saved.optimizer.at(key, mine[name]))


def check_going_on_in_shards(world: World, folder: Path) -> None:
    """A run that Ctrl-C ends on one rank goes on, and ends with the same bits on as many ranks."""
    for background in (False, True):
        config = replace(EVERY, background_checkpoints=background)
        cut = place(folder, world, f"cut-{background}")
        uncut = place(folder, world, f"uncut-{background}")
        heard = Heard({3: lambda: signal.raise_signal(signal.SIGINT)})
        with pytest.raises(KeyboardInterrupt):
            fit(model_job(world, spread=True), config, cut, world=world, report=heard)
        names = sorted(path.name for path in (cut / "checkpoints").iterdir())
        world.barrier()
        assert names == ["step-2", "step-3"], names
        ends = []
        for shared in (cut, uncut):
            made = model_job(world, spread=True)
            run(made, shared, world, config)
            ends.append(learnt(made))
        assert_same(ends[0], ends[1])


def check_a_disk_that_refuses_one_rank(world: World, folder: Path) -> None:
    """All ranks stop with its words; what was there before stays."""
    for background in (False, True):
        shared = place(folder, world, f"{background}")
        config = replace(EVERY, background_checkpoints=background)
        with pytest.MonkeyPatch.context() as patch:
            if not world.is_first:
                refuse_after(2, patch)  # its part of the second checkpoint
            with pytest.raises(InputError, match="could not be written: No space left") as told:
                run(model_job(world, spread=True), shared, world, config)
        assert "step-2 is whole: the run goes on from there" in str(told.value)
        world.barrier()
        assert [path.name for path in (shared / "checkpoints").iterdir()] == ["step-2"]


def refuse_after(files: int, patch: pytest.MonkeyPatch) -> None:
    """Let a disk be full after so many files of tensors."""
    write, calls = checkpoint_pieces.write_shard, []

    def refuse(path: Path, tensors: Any) -> Any:
        calls.append(path)
        if len(calls) > files:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, tensors)

    patch.setattr(checkpoint_pieces, "write_shard", refuse)


def check_a_damaged_part_is_found_by_all(world: World, folder: Path) -> None:
    """The rank that checks it tells the others; the checkpoint before is taken."""
    shared = place(folder, world, "shared")
    run(model_job(world, spread=True), shared, world, EVERY)
    for damaged in ("trained-00001.safetensors", "optimizer-00000.safetensors"):
        if world.is_first:
            path = shared / "checkpoints" / "step-6" / damaged
            kept = path.read_bytes()
            path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        world.barrier()
        saved, faults = checkpoints.newest(shared, world=world)
        assert saved is not None
        assert saved.step == 4
        assert damaged in str(faults[0])
        world.barrier()
        if world.is_first:
            path.write_bytes(kept)
        world.barrier()
        assert checkpoints.newest(shared, world=world)[1] == []


CHECKS: dict[str, Callable[[World, Path], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def start(rank: int, port: int, folder: str) -> None:
    """The entry of a spawned rank; each check has a folder of its own."""
    run_checks(rank, port, folder, placed(CHECKS, folder))
