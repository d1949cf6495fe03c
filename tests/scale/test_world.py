"""The world of one process, and what a launcher's environment must say."""

from __future__ import annotations

import pytest
import torch
import torch.distributed

from model.reference import tiny_model
from puna.errors import InputError
from puna.model import LlamaModel
from puna.scale.prepare import compute_dtype
from puna.scale.shard import shard
from puna.scale.world import World, default_device

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_one_process_has_all_methods() -> None:
    world = World.single()
    assert (world.rank, world.size, world.device) == (0, 1, torch.device("cpu"))
    assert world.is_first
    assert world.sum(torch.tensor([2.0, 3.0])).tolist() == [2.0, 3.0]
    world.barrier()


def test_without_a_launcher_there_is_one_process() -> None:
    with World.launched() as world:
        assert world == World.single(default_device())
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (["RANK"], "LOCAL_RANK, WORLD_SIZE"),
        (["WORLD_SIZE", "RANK"], "LOCAL_RANK"),
        (["LOCAL_RANK"], "RANK, WORLD_SIZE"),
    ],
)
def test_a_launcher_that_says_half(
    given: list[str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks that each believe to be alone would train apart in silence."""
    for name in given:
        monkeypatch.setenv(name, "1")
    message = f"the launcher did not set {missing}\n  fix: start with torchrun"
    with pytest.raises(InputError, match=message), World.launched():
        pytest.fail("a world was made of a part")
    assert not torch.distributed.is_initialized()


def test_ranks_without_cuda_compute_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """gloo cannot sum on Apple's GPUs."""
    for name in NAMES:
        monkeypatch.setenv(name, "0")
    begun: list[str] = []
    monkeypatch.setattr("puna.scale.world.default_device", lambda: torch.device("mps"))
    for name, found in (("get_rank", 0), ("get_world_size", 1), ("destroy_process_group", None)):
        monkeypatch.setattr(torch.distributed, name, lambda found=found: found)
    monkeypatch.setattr("puna.scale.world._join", begun.append)
    with World.launched() as world:
        assert world.device == torch.device("cpu")
    assert begun == ["gloo"]


def test_a_world_of_one_leaves_the_model_as_it_is() -> None:
    model = tiny_model()
    parameters = list(model.parameters())
    spread = shard(model, World.single(), blocks=model.model.layers, doors=LlamaModel.DOORS)
    assert spread is model
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert not isinstance(parameters[0], torch.distributed.tensor.DTensor)


def test_a_cpu_computes_in_float32() -> None:
    assert compute_dtype(torch.device("cpu")) == torch.float32


def test_a_rank_without_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "2")
    monkeypatch.setattr("puna.scale.world.default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = "rank 2 of this machine has no GPU: there are 2\n  fix: start with --nproc-per-node 2"
    with pytest.raises(InputError, match=message), World.launched():
        pytest.fail("a rank without a device")
