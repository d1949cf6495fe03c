"""One voice for all ranks: when a run ends badly, one of them says why and none waits in vain."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import torch.distributed as dist

from puna.errors import AlreadyToldError, InputError

STOPPED = "another rank stopped, and this one cannot go on without it"
_FIX = "see what the launcher says of it; the same command goes on from the last checkpoint"
_MARKS = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
_GRACE_SECONDS = 2.0  # a rank that has lost another says so by itself, if it is not stuck
_TERMINATED = 128 + signal.SIGTERM


@contextlib.contextmanager
def naming_lost_ranks() -> Iterator[None]:
    """Tell what torch says of a lost connection as what it is.

    Raises:
        InputError: Another rank stopped within the block.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if isinstance(error, dist.DistError) or any(mark in text for mark in _MARKS):
            raise InputError(STOPPED, fix=_FIX) from error
        raise


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Let one rank alone tell what ended the block; others leave it in silence, and as badly.

    A rank that a launcher ends by SIGTERM, since another one failed, says so too, also where it
    waits in a collective and Python's own handlers have no turn.

    Raises:
        AlreadyToldError: In place of an InputError of which another rank has told.
    """
    with _last_words():
        try:
            with naming_lost_ranks():
                yield
        except InputError as error:
            if _is_first_to_tell():
                raise
            raise AlreadyToldError(error.what, where=error.where, fix=error.fix) from error
        except BaseException:
            _is_first_to_tell()  # the command line tells of it in any case
            raise


def _is_first_to_tell() -> bool:
    """Whether no rank has told yet; asked at most once by each."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store = dist.distributed_c10d._get_default_store()
        return store.add(f"puna/told/{attempt}", 1) == 1
    except (RuntimeError, ValueError):  # who kept the count is gone
        return True


@contextlib.contextmanager
def _last_words() -> Iterator[None]:
    """A thread that hears SIGTERM where the main thread cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    wakeup = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(ear,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        mouth.close()  # ends the thread


def _listen(ear: socket.socket) -> None:
    with ear:
        while heard := ear.recv(64):
            if signal.SIGTERM in heard:
                break
        else:
            return
    time.sleep(_GRACE_SECONDS)
    if _is_first_to_tell():
        print("puna: told to stop (SIGTERM), as when another rank failed", file=sys.stderr)
        print(f"  fix: {_FIX}", file=sys.stderr, flush=True)
    os._exit(_TERMINATED)
