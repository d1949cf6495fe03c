"""How much memory a training run takes at its highest, by component, predicted from shapes.

A step has moments at which it could be highest: in the head, where all activations are kept and
some logits exist; in the last block's backward pass, where the first gradients come on top; at the
embedding's gradient, the last one; in the optimizer; and in the blocks that do not learn.
`puna.train.footprint_parts` adds each up from what the implementation keeps and makes, and the
highest counts. `docs/plan.md` compares predictions with measurements.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from puna.artifact import format_bytes
from puna.model import LlamaConfig
from puna.train.footprint_parts import Parts, Setting, surgery
from puna.tune import MethodConfig

__all__ = ["Footprint", "Setting", "learning_counts", "predict"]

_MIB = 1 << 20
# Measured on Linux, x86-64, torch for CPUs; docs/plan.md has the runs.
# Resident before anything is loaded: Python, torch and what `puna tune` and `pretrain` import.
RUNTIME_BYTES = 240 * _MIB
# Enters memory with the first step on a CPU: kernels' code, threads' stacks, and what kernels make
# for themselves; the median of ten runs, 44 to 57 MiB above their tensors.
KERNEL_BYTES = 48 * _MIB
# What the first call of torch.utils.checkpoint imports: torch's compiler.
COMPILER_BYTES = 79 * _MIB
_ORDER = (  # as shown
    "runtime",
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "buffers",
    "gaps",
)


@dataclass(frozen=True)
class Footprint:
    """Bytes of one rank at the highest moment, by component."""

    runtime: int  # the process before anything is loaded; 0 for a GPU
    weights: int  # those that compute, those that learn, and masters
    gradients: int
    optimizer: int  # its state
    activations: int  # kept for the backward pass
    logits: int  # and their gradients, with that of the head
    buffers: int  # results on the way, and what is gathered from other ranks
    gaps: int  # of the allocator
    moment: str  # of a step, in words
    base: int  # of the weights: what was in memory before the run put anything there

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, name) for name in _ORDER)

    def above(self, resident_bytes: int) -> Footprint:
        """The same in a process that held so much, the base included, before it began."""
        return dataclasses.replace(
            self, runtime=resident_bytes, weights=self.weights - self.base, base=0
        )

    def lines(self) -> list[str]:
        """For a terminal: one line for each component that there is."""
        rows = [(name, getattr(self, name)) for name in _ORDER]
        shown = [f"{name:<12} {format_bytes(size):>9}" for name, size in rows if size]
        return [*shown, f"{'together':<12} {format_bytes(self.total):>9}  ({self.moment})"]

    def against(self, measured_bytes: int) -> str:
        """Prediction and measurement in words."""
        share = self.total / measured_bytes - 1
        return (
            f"memory: {format_bytes(measured_bytes)} at the highest, "
            f"{format_bytes(self.total)} were predicted ({share:+.0%})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data: bytes by component, their `total`, and the `moment` in words."""
        parts = {name: getattr(self, name) for name in _ORDER}
        return {**parts, "total": self.total, "moment": self.moment}


def predict(setting: Setting) -> Footprint:
    """The memory of one rank at its highest, from the second step on.

    Raises:
        InputError: The method does not fit the model.
    """
    parts = Parts(setting)
    highest = max(parts.moments(), key=lambda moment: moment.total)
    on_cpu = setting.device == "cpu"
    kernels = KERNEL_BYTES + (COMPILER_BYTES if parts.recomputes else 0)
    return Footprint(
        runtime=RUNTIME_BYTES if on_cpu else 0,
        weights=parts.weights,
        gradients=highest.gradients,
        optimizer=parts.optimizer,
        activations=highest.activations,
        logits=highest.logits,
        buffers=highest.buffers + parts.gathered + parts.angles + (kernels if on_cpu else 0),
        gaps=parts.gaps if on_cpu else 0,
        moment=highest.name,
        base=parts.base,
    )


def learning_counts(config: LlamaConfig, method: MethodConfig | None) -> tuple[int, int]:
    """How many parameters learn, and the first block that gradients go through.

    Raises:
        InputError: The method does not fit the model.
    """
    _, learning, start = surgery(config, method)
    return learning, start
