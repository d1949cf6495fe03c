"""What a step is: a configuration that, once opened in a worker, maps batches to batches.

A step is a frozen dataclass whose first field is `step: Literal["name"] = "name"`, by which
recipes choose it. It is pure: the rows that come in go out, in their order; a filter sets `drop`
and deletes nothing, what cannot be worked on gets an `error`, and randomness is keyed by the step
and the row's id. So the result does not depend on how rows lie in batches, units and workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from puna.artifact import digest_json

Apply = Callable[[pa.RecordBatch], pa.RecordBatch]
"""Rows in, the same rows out."""


class Step(Protocol):
    """One step of a recipe."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    VERSION: ClassVar[int]
    """Raised whenever the same input would come out otherwise."""

    @property
    def step(self) -> str:
        """As recipes call it; its drop reasons begin with it."""

    def open(self) -> Apply:
        """What does the work; called once in each worker, where models and tables are loaded.

        Raises:
            MissingPackageError: It needs a package that is not installed.
        """


def identity(step: Step) -> str:
    """A digest of all that decides what a step does."""
    return digest_json({"version": step.VERSION, **dataclasses.asdict(step)})


def seed_of(step: str, seed: int, document: bytes) -> int:
    """64 bits of randomness for one document in one step, the same on any worker."""
    data = f"{step}\0{seed}\0".encode() + document
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
