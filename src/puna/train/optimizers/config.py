"""Which optimizer, and its figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from puna.errors import InputError


@dataclass(frozen=True)
class OptimConfig:
    """An optimizer and the clipping of its gradients."""

    kind: Literal["adamw", "lamb", "muon"] = "adamw"
    """adamw; lamb, for very large batches: the same, with each tensor's step as long as its
    weights are; muon: the matrices of the blocks take orthogonal steps, all else goes by adamw."""
    learning_rate: float = 2e-4
    """At its highest; the schedule scales it."""
    beta1: float = 0.9
    """Decay of the mean of gradients, per step."""
    beta2: float = 0.999
    """Decay of the mean of squared gradients, per step."""
    eps: float = 1e-8
    """Added to the root of the latter."""
    weight_decay: float = 0.0
    """Per step and unit of learning rate; on matrices only, never on norms and biases."""
    max_grad_norm: float | None = 1.0
    """Longer gradients (2-norm over all parameters) are scaled down to this; null: never."""
    log_trust_ratios: bool = False
    """For lamb: write the trust ratio of each tensor with every step, not only the smallest, the
    median and the largest."""
    muon_momentum: float = 0.95
    """For muon: decay of the mean of a matrix's gradients, per step."""
    muon_scale: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """For muon: what an orthogonal step of a matrix [A, B] is multiplied with, beside the learning
    rate. match_rms_adamw: 0.2 sqrt(max(A, B)), as long as steps of AdamW are, so that one learning
    rate serves all; original: sqrt(max(1, A / B))."""

    def __post_init__(self) -> None:
        for key in ("learning_rate", "eps"):
            if not getattr(self, key) > 0:
                raise InputError(f"{key} must be positive, found {getattr(self, key)}")
        for key in ("beta1", "beta2", "muon_momentum"):
            if not 0 <= getattr(self, key) < 1:
                raise InputError(f"{key} must lie in [0, 1), found {getattr(self, key)}")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay must not be negative, found {self.weight_decay}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise InputError(
                f"max_grad_norm must be positive, found {self.max_grad_norm}",
                fix="null turns clipping off",
            )


LLAMA_OPTIM = OptimConfig(learning_rate=3e-4, beta2=0.95, weight_decay=0.1)
"""AdamW as LLaMA was pretrained (Touvron et al. 2023, arXiv 2302.13971, section 2.2); the rate is
that of its 7B and 13B models."""
