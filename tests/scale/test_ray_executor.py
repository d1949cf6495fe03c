"""On a Ray cluster of two nodes tasks come out as beside this process."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puna.errors import InputError, MissingPackageError
from puna.scale.executor import Limits, LocalExecutor, Progress, Task, Work, run_tasks
from puna.scale.ray_executor import RayExecutor
from scale.executor_pieces import HERE, MISBEHAVE, do, outcomes

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (extra cluster)")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a core each."""
    module: Any = importlib.import_module("ray.cluster_utils")
    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    found = module.Cluster(initialize_head=True, head_node_args=node)
    found.add_node(num_cpus=1, object_store_memory=100_000_000)
    yield found
    found.shutdown()


def ray_executor(cluster: Any, limits: Limits | None = None) -> RayExecutor:
    paths = [str(Path(__file__).parent.parent), *filter(None, sys.path)]
    environment = {"PYTHONPATH": os.pathsep.join(paths)}
    return RayExecutor(cluster.address, limits=limits or Limits(), environment=environment)


@needs_ray
def test_the_same_results_as_here(cluster: Any) -> None:
    tasks = [Task(f"task {number}", {"value": number}) for number in range(20)]
    work = Work(f"{HERE}times", {"by": 3})
    here = outcomes(run_tasks(tasks, work, workers=0))
    there = outcomes(ray_executor(cluster).run(tasks, work))
    assert {k: one.result for k, one in there.items()} == {k: o.result for k, o in here.items()}


@needs_ray
def test_both_nodes_work_and_load_once(cluster: Any) -> None:
    tasks = [Task(str(number), {"seconds": 0.3}) for number in range(8)]
    found = [one.result or {} for one in ray_executor(cluster).run(tasks, Work(f"{HERE}Opened"))]
    assert len({result["pid"] for result in found}) == 2
    assert max(result["done"] for result in found) > 1


@needs_ray
def test_what_goes_badly_is_told_as_here(cluster: Any) -> None:
    told: list[Progress] = []
    limits = Limits(task_seconds=3, retries=1)
    tasks = [do("raise"), do("kill", signal="SIGKILL"), do("sleep"), do("well")]
    found = outcomes(ray_executor(cluster, limits).run(tasks, MISBEHAVE, progress=told.append))
    here = outcomes(LocalExecutor(1, Limits(task_seconds=3)).run(tasks, MISBEHAVE))
    for key in ("raise", "sleep", "well"):
        assert (found[key].error, found[key].attempts) == (here[key].error, here[key].attempts)
    assert (found["kill"].error or "").startswith("the worker was lost: ")
    assert found["kill"].attempts == 2
    assert told[-1] == Progress(done=4, failed=3, retried=1, running=0)


@needs_ray
def test_a_lost_task_is_done_by_a_fresh_worker(cluster: Any, tmp_path: Path) -> None:
    task = do("kill once", mark=str(tmp_path / "mark"))
    (found,) = ray_executor(cluster).run([task], MISBEHAVE)
    assert (found.error, found.attempts) == (None, 2)


@needs_ray
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (f"{HERE}refuses", "^models/a: the model is not there\n  fix: get it$"),
        (f"{HERE}dies", "lost while they load"),
        ("no.such:thing", "there is no module 'no'"),
    ],
)
def test_what_cannot_be_loaded_ends_the_run(cluster: Any, function: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(ray_executor(cluster).run([do("well")], Work(function)))


@needs_ray
@pytest.mark.slow
def test_a_node_that_is_lost_takes_no_task_with_it(cluster: Any) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    cluster.wait_for_nodes()
    tasks = [Task(str(number), {"seconds": 1.0}) for number in range(12)]
    running = ray_executor(cluster).run(tasks, Work(f"{HERE}Opened"))
    found = [next(running), next(running)]
    cluster.remove_node(node, allow_graceful=False)
    found += running
    assert sorted(int(outcome.key) for outcome in found) == list(range(12))
    assert all(outcome.error is None for outcome in found)


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1"])
def test_a_cluster_that_is_not_there(address: str) -> None:
    with pytest.raises(InputError, match=r"no Ray cluster at .*\n  fix: start one with `ray"):
        list(RayExecutor(address).run([do("well")], MISBEHAVE))


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_the_extra_is_named() -> None:
    with pytest.raises(MissingPackageError, match=r"pip install 'puna\[cluster\]'"):
        list(RayExecutor("auto").run([do("well")], MISBEHAVE))


def test_numbers_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="workers must be at least 1"):
        RayExecutor("auto", workers=0)
    with pytest.raises(InputError, match="cores_per_worker must be above 0"):
        RayExecutor("auto", cores_per_worker=0)
