"""The only room that knows of more than one process: the world, and how a model is spread in it.

Import from its modules: `puna.scale.world`, `puna.scale.spread`, `puna.scale.pieces` ... Sharding
alone imports FSDP, which costs half a second and 50 MB that a single process does not need.
"""

from __future__ import annotations
