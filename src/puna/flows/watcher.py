"""Who is told how a tuning or pretraining run goes."""

from __future__ import annotations

from typing import Protocol

from puna.flows.listener import Listener
from puna.train import Reporter


class Watcher(Reporter, Listener, Protocol):
    """The loop's reporter, and the listener of the stages around it."""
