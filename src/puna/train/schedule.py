"""How the learning rate goes over a run: a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from puna.errors import InputError

_FINE = 1_000_000  # parts that the course of a run bound by time is cut into


@dataclass(frozen=True)
class ScheduleConfig:
    """The course of the learning rate."""

    kind: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """After the warmup: half a cosine, a line, nothing, or (warmup-stable-decay) a line at the
    very end."""
    warmup_steps: int | None = None
    """Optimizer steps from zero to the full rate; null takes `warmup_share`."""
    warmup_share: float = 0.03
    """The same as a share of all steps, rounded up; the last step is never one of them."""
    final_share: float = 0.0
    """The rate at the end, as a share of the full one; not for `constant`."""
    decay_share: float = 0.2
    """For `wsd`: the share of all steps in which the rate goes down."""

    def __post_init__(self) -> None:
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise InputError(f"warmup_steps must not be negative, found {self.warmup_steps}")
        for key in ("warmup_share", "final_share", "decay_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"{key} must lie between 0 and 1, found {getattr(self, key)}")


LLAMA_SCHEDULE = ScheduleConfig(warmup_steps=2000, final_share=0.1)
"""As LLaMA was pretrained (Touvron et al. 2023, arXiv 2302.13971, section 2.2): a cosine down to a
tenth."""


def warmup(total: int, config: ScheduleConfig) -> int:
    """Warmup steps of a run of `total` steps."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return min(math.ceil(config.warmup_share * total), total - 1)  # a run of one step learns, too


def factor(step: float, total: int, config: ScheduleConfig) -> float:
    """What the learning rate is multiplied with.

    Args:
        step: Optimizer steps done before, from 0. The first step of a warmup has the rate 0, as
            in transformers: it only fills the optimizer's moments.
        total: Steps of the run.
        config: The course.

    Returns:
        Between 0 and 1. Cosine: Loshchilov & Hutter 2017 (arXiv 1608.03983); wsd: Hu et al. 2024
        (arXiv 2404.06395).
    """
    rising = warmup(total, config)
    if step < rising:
        return step / rising
    if config.kind == "constant":
        return 1.0
    falling = total - rising
    if config.kind == "wsd":
        falling = min(falling, round(config.decay_share * total))
    progress = min(max(step - (total - falling), 0) / max(falling, 1), 1.0)
    shape = (1 + math.cos(math.pi * progress)) / 2 if config.kind == "cosine" else 1 - progress
    return config.final_share + (1 - config.final_share) * shape


def timed_factor(step: int, share: float, config: ScheduleConfig) -> float:
    """The same for a run that is bound by time, whose steps cannot be counted beforehand.

    Args:
        step: Optimizer steps done before; only `warmup_steps` goes by them.
        share: How much of the run is over, from 0 to 1.
        config: The course.
    """
    if config.warmup_steps is None:
        return factor(share * _FINE, _FINE, config)
    rising = step / config.warmup_steps if step < config.warmup_steps else 1.0
    steady = replace(config, warmup_steps=0)
    return rising * factor(share * _FINE, _FINE, steady)
