"""Ctrl-C between two steps rather than within one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Stop(Exception):
    """A wish to stop, at a point where the state of a run is whole."""


class Interrupts:
    """As a context: the first Ctrl-C is noted in `wanted`, the second one interrupts at once.

    Where the process ignores Ctrl-C (`nohup`), or outside its main thread, nothing changes.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._open = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that changes no state, such as an evaluation: Ctrl-C ends it by `Stop`."""
        self._open = True
        try:
            if self.wanted:  # asked for a moment ago
                raise Stop
            yield
        except KeyboardInterrupt as error:
            self.wanted = True
            raise Stop from error
        finally:
            self._open = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._open or self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
