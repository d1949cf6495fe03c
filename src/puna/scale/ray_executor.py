"""The same tasks on a Ray cluster: workers are actors, one task at a time, as beside this process.

What is done where a worker or its machine is lost is decided by `puna.scale.dispatch`, not by Ray,
so an outcome means here what it means locally. Puna has to be importable on every node.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from puna.errors import InputError, require
from puna.scale.dispatch import Event, Limits, Tell, dispatch
from puna.scale.local_crew import ONE_THREAD
from puna.scale.tasks import Call, Outcome, Task, Work, answer, open_work
from puna.scale.worker import told_unopened

_KNOCK_SECONDS = 20.0


@dataclass(frozen=True)
class RayExecutor:
    """Actors of a Ray cluster."""

    address: str
    """Of the cluster: host:port, ray://host:port, or auto for the one that this machine is in. A
    connection that the process already has is used, and left open."""
    workers: int | None = None
    """How many actors; None: as many as the cluster has cores for."""
    limits: Limits = field(default_factory=Limits)
    """Of time and attempts; the wait for a free core counts as opening."""
    cores_per_worker: float = 1.0
    """That Ray sets aside for each."""
    memory_bytes: int | None = None
    """That Ray sets aside for each when it places them; None: it does not ask."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the workers, such as PYTHONPATH."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers must be at least 1, not {self.workers}")
        if not self.cores_per_worker > 0:
            raise InputError(f"cores_per_worker must be above 0, not {self.cores_per_worker}")

    def run(
        self, tasks: Iterable[Task], work: Work, *, progress: Tell | None = None
    ) -> Iterator[Outcome]:
        """See `puna.scale.executor.Executor.run`.

        Raises:
            MissingPackageError: Ray is not installed.
            InputError: The cluster cannot be reached; or as there.
        """
        ray: Any = require("ray", extra="cluster", purpose="running on a cluster")
        with _connected(ray, self.address):
            seats = self.workers or _seats(ray, self.cores_per_worker)
            crew = _RayCrew(ray, work, self._options())
            yield from dispatch(tasks, crew, seats=seats, limits=self.limits, tell=progress)

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "num_cpus": self.cores_per_worker,
            "max_restarts": 0,  # a lost worker is replaced by the dispatcher, which counts it
            "runtime_env": {"env_vars": {**ONE_THREAD, **self.environment}},
        }
        return options if self.memory_bytes is None else {**options, "memory": self.memory_bytes}


class RayWorker:
    """What runs in an actor."""

    def __init__(self) -> None:
        self._call: Call | None = None

    def open(self, function: str, shared: str) -> str:
        """Load the function; JSON in, JSON out, as `puna.scale.worker.serve`."""
        try:
            self._call = open_work(Work(function, json.loads(shared)))
        except (Exception, SystemExit) as error:
            return json.dumps(told_unopened(error))
        return json.dumps({"opened": True})

    def answer(self, arguments: str) -> str:
        """Do one task."""
        assert self._call is not None, "opened before the first task"
        return answer(self._call, json.loads(arguments))


class _RayCrew:
    """Actors, and for each the one promise that it has yet to keep."""

    def __init__(self, ray: Any, work: Work, options: dict[str, Any]) -> None:
        self._ray, self._options = ray, options
        self._opening = (work.function, json.dumps(work.shared))
        self._class = ray.remote(RayWorker)
        self._numbers = itertools.count()
        self._actors: dict[int, Any] = {}
        self._open: set[int] = set()
        self._promises: dict[Any, int] = {}

    def hire(self) -> int:
        number = next(self._numbers)
        actor = self._actors[number] = self._class.options(**self._options).remote()
        self._promises[actor.open.remote(*self._opening)] = number
        return number

    def give(self, worker: int, task: Task) -> bool:
        promise = self._actors[worker].answer.remote(json.dumps(task.arguments))
        self._promises[promise] = worker
        return True  # an actor that is gone breaks its promise

    def dismiss(self, worker: int) -> None:
        for promise in [one for one, who in self._promises.items() if who == worker]:
            del self._promises[promise]
        self._open.discard(worker)
        actor = self._actors.pop(worker)
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):  # gone already
            self._ray.kill(actor, no_restart=True)

    def events(self, timeout_seconds: float) -> list[Event]:
        promises = list(self._promises)
        if not promises:
            time.sleep(timeout_seconds)
            return []
        ready, _ = self._ray.wait(promises, num_returns=1, timeout=timeout_seconds)
        if ready:
            ready, _ = self._ray.wait(promises, num_returns=len(promises), timeout=0)
        return [self._event(promise) for promise in ready]

    def close(self) -> None:
        for worker in list(self._actors):
            self.dismiss(worker)

    def _event(self, promise: Any) -> Event:
        worker = self._promises.pop(promise)
        try:
            message = json.loads(self._ray.get(promise))
        except self._ray.exceptions.RayError as error:
            self.dismiss(worker)
            first = (str(error).strip() or "nothing is known").splitlines()[0]
            how = f"the worker was lost: {type(error).__name__}: {first}"
            return Event(worker, "lost", {"error": how})
        if worker in self._open:
            return Event(worker, "answered", message)
        if "opened" in message:
            self._open.add(worker)
            return Event(worker, "opened")
        self.dismiss(worker)
        return Event(worker, "unopened", message)


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    try:
        _knock(address)
        ray.init(address=address, logging_level="warning")
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster at {address!r}: {error}",
            fix="start one with `ray start --head` and give the address that it prints",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ask whether anybody listens there: Ray itself tries for minutes.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()


def _seats(ray: Any, cores: float) -> int:
    found = float(ray.cluster_resources().get("CPU", 0.0))
    return max(1, math.floor(found / cores))
