"""The only room that knows of more than one process: the world, and how a model is spread in it."""

from __future__ import annotations

from puna.scale.prepare import prepare
from puna.scale.shard import shard
from puna.scale.world import World

__all__ = ["World", "prepare", "shard"]
