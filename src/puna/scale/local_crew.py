"""Workers beside this process: each a Python process of its own at the end of a socket.

They are begun by exec, not by `multiprocessing`: that would run the script of the user once more
in each worker, and its environment could not be set without changing this process's own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from types import MappingProxyType

from puna.scale.dispatch import Event
from puna.scale.tasks import Json, Task, Work

ONE_THREAD = MappingProxyType(
    {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "VECLIB_MAXIMUM_THREADS": "1",
        "NUMEXPR_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
)
"""Environment of a worker: there are as many of them as cores are meant to be used."""

_START = (
    "import sys; told = sys.argv[1:]; del sys.argv[1:]; sys.path[:] = told[3:]; "
    "from puna.scale.worker import serve; serve(int(told[0]), int(told[1]), told[2] == 'signal')"
)
_CHUNK_BYTES = 1 << 20
_SEND_SECONDS = 60.0  # a worker that is open reads at once
_END_SECONDS = 2.0  # for an idle worker to tidy up


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    line: socket.socket
    parts: list[bytes] = field(default_factory=list)  # of the answer that is coming in
    is_open: bool = False
    busy: bool = True  # opening counts
    error: str | None = None  # found while a task was handed over


class LocalCrew:
    """Worker processes of this machine.

    Args:
        work: What they do.
        memory_bytes: Of address space for each, at most (Linux); None: as much as there is.
    """

    def __init__(self, work: Work, *, memory_bytes: int | None = None) -> None:
        begun = {"function": work.function, "shared": work.shared, "memory_bytes": memory_bytes}
        self._begun = _line(begun)
        self._numbers = itertools.count()
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()

    def hire(self) -> int:
        """Begin a worker."""
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        with theirs:
            process = _begin(theirs)
        ours.settimeout(_SEND_SECONDS)
        worker = self._workers[number] = _Worker(process, ours)
        self._selector.register(ours, selectors.EVENT_READ, number)
        _send(worker, self._begun)
        return number

    def give(self, worker: int, task: Task) -> bool:
        """Hand a task to an open worker; False where it has died meanwhile."""
        one = self._workers[worker]
        one.busy = True
        return _send(one, _line(task.arguments))

    def dismiss(self, worker: int) -> None:
        """End a worker at once, and whatever processes it began."""
        self._bury(worker)

    def events(self, timeout_seconds: float) -> list[Event]:
        """What happened; one event of a worker at a time."""
        failed = [number for number, one in self._workers.items() if one.error is not None]
        ready = self._selector.select(0 if failed else timeout_seconds)
        found = [self._lost(number) for number in failed]
        for key, _ in ready:
            if key.data in self._workers:
                found += self._read(key.data)
        # A process that a worker began may hold the line open after the worker's own end.
        heard = {event.worker for event in found}
        for number in [n for n in self._workers if n not in heard]:
            if self._workers[number].process.poll() is not None:
                found += self._rest(number)
        return found

    def close(self) -> None:
        """End all: those at work at once, idle ones by closing their line."""
        for number, one in list(self._workers.items()):
            if one.busy or one.error is not None:
                self._bury(number)
            else:
                with contextlib.suppress(OSError):  # it is gone already
                    one.line.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + _END_SECONDS
        for number, one in list(self._workers.items()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, deadline - time.monotonic()))
            self._bury(number)
        self._selector.close()

    def _read(self, number: int) -> list[Event]:
        one = self._workers[number]
        try:
            chunk = one.line.recv(_CHUNK_BYTES)
        except OSError:  # reset: it died with a request unread
            chunk = b""
        if not chunk:
            return [self._lost(number)]
        one.parts.append(chunk)
        return [self._event(number)] if chunk.endswith(b"\n") else []

    def _rest(self, number: int) -> list[Event]:
        """What an ended worker still had to say."""
        one = self._workers[number]
        one.line.settimeout(0)
        while True:
            try:
                chunk = one.line.recv(_CHUNK_BYTES)
            except OSError:
                chunk = b""
            if not chunk:
                return [self._lost(number)]
            one.parts.append(chunk)
            if chunk.endswith(b"\n"):
                return [self._event(number)]

    def _event(self, number: int) -> Event:
        one = self._workers[number]
        message: Json = json.loads(b"".join(one.parts))
        one.parts.clear()
        one.busy = False
        if one.is_open:
            return Event(number, "answered", message)
        if "opened" in message:
            one.is_open = True
            return Event(number, "opened")
        self._bury(number)
        return Event(number, "unopened", message)

    def _lost(self, number: int) -> Event:
        one = self._workers[number]
        how = one.error
        self._bury(number)
        return Event(number, "lost", {"error": how or _how_it_ended(one.process.returncode)})

    def _bury(self, number: int) -> None:
        """Kill a worker with its group, wait for it, and forget it."""
        one = self._workers.pop(number)
        # Of one that is ending by itself this changes no status: that is fixed before its line
        # closes. The group may be gone; macOS refuses where all that is left of it is a zombie.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait()
        self._selector.unregister(one.line)
        one.line.close()


def _begin(line: socket.socket) -> subprocess.Popen[bytes]:
    main = threading.current_thread() is threading.main_thread()
    ending = "signal" if main else "watch"
    arguments = [str(line.fileno()), str(os.getpid()), ending, *sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", _START, *arguments],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **ONE_THREAD},
        pass_fds=[line.fileno()],
        process_group=0,  # so that Ctrl-C reaches this process alone
    )


def _send(worker: _Worker, data: bytes) -> bool:
    try:
        worker.line.sendall(data)
    except TimeoutError:
        worker.error = f"the worker took nothing in for {_SEND_SECONDS:g} s and was stopped"
        return False
    except OSError:  # it is gone: its line says so
        return False
    return True


def _line(value: Json) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"the worker ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    advice = ", as the system does where memory runs out" if name == "SIGKILL" else ""
    return f"the worker was killed by {name}{advice}"
