"""What runs in a worker process: it opens the function, then does one task after another.

Requests and answers are lines of JSON on a socket. The process ends when its line is closed, and
when the process that began it is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import resource
import signal
import socket
import sys
import threading
import time

from puna.errors import InputError
from puna.scale.tasks import Json, Work, answer, describe, open_work

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_WATCH_SECONDS = 0.5


def serve(descriptor: int, parent: int, dies_by_signal: bool) -> None:
    """Work until there are no more requests.

    Args:
        descriptor: Of the socket.
        parent: The process that this one ends with.
        dies_by_signal: Whether the system may end this process with the thread that began it
            (Linux), as is right where that is the main thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    _end_with(parent, dies_by_signal)
    with contextlib.suppress(OSError):  # what tasks print is no part of what the parent prints
        os.dup2(2, 1)
        faulthandler.enable()
    os.set_inheritable(descriptor, False)  # what a task starts would keep the line open
    with socket.socket(fileno=descriptor) as line, line.makefile("rb") as requests:
        begun = json.loads(requests.readline() or b"null")
        if begun is None:
            return
        try:
            bound_memory(begun["memory_bytes"])
            call = open_work(Work(begun["function"], begun["shared"]))
        except (Exception, SystemExit) as error:
            _send(line, json.dumps(told_unopened(error)))
            return
        _send(line, json.dumps({"opened": True}))
        with contextlib.suppress(ConnectionResetError):  # the parent went on without an answer
            for request in requests:
                _send(line, answer(call, json.loads(request)))
    sys.stderr.flush()
    os._exit(0)  # every answer is sent: to take libraries apart would take longer than to go


def bound_memory(memory_bytes: int | None) -> None:
    """Let this process have so much address space at most; beyond it comes `MemoryError`.

    Raises:
        InputError: The system knows no such bound, as macOS.
    """
    if memory_bytes is None:
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        memory_bytes = min(memory_bytes, most)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, most))
    except (OSError, ValueError) as error:
        raise InputError(
            f"this system does not bound the memory of a process: {error}",
            fix="leave memory_bytes out",
        ) from error


def told_unopened(error: BaseException) -> Json:
    """What kept a function from opening; of an InputError its parts too."""
    told = describe(error)
    if isinstance(error, InputError):
        where = None if error.where is None else str(error.where)
        told |= {"what": error.what, "where": where, "fix": error.fix}
    return told


def _send(line: socket.socket, text: str) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody is interested
        line.sendall(text.encode() + b"\n")


def _end_with(parent: int, dies_by_signal: bool) -> None:
    if sys.platform == "linux" and dies_by_signal:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before the signal was asked for
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os.killpg(0, signal.SIGKILL)  # this process leads a group: itself and what its tasks began
