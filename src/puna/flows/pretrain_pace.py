"""How well a run uses its machine, told at each evaluation and at the end."""

from __future__ import annotations

from collections.abc import Mapping

from puna.flows.watcher import Watcher
from puna.report.words import percent
from puna.train import Silent, StepMetrics


class Pace(Silent):
    """A reporter that tells tokens per second and model-FLOPs utilisation.

    Utilisation (Chowdhery et al. 2022, PaLM, appendix B): the FLOPs that the model needs for the
    tokens it saw, over what the device could have done meanwhile. Evaluations, samples and
    checkpoints are not counted, nor what is computed twice.

    Args:
        flops_per_token: Forward and backward.
        peak_flops_per_second: What the device could do at best.
        watcher: Is told.
    """

    def __init__(
        self, flops_per_token: float, peak_flops_per_second: float, watcher: Watcher
    ) -> None:
        self._flops_per_token, self._peak = flops_per_token, peak_flops_per_second
        self._watcher = watcher
        self._tokens = 0
        self._seconds = 0.0

    def step(self, metrics: StepMetrics) -> None:
        """Count a step."""
        self._tokens += metrics.tokens
        self._seconds += metrics.tokens / max(metrics.tokens_per_second, 1e-9)

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Tell of the steps since the last time."""
        self._tell()

    def end(self) -> None:
        """Tell of the rest."""
        self._tell()

    def _tell(self) -> None:
        if not self._tokens:
            return
        rate = self._tokens / self._seconds
        share = percent(rate * self._flops_per_token / self._peak)
        self._watcher.note(f"{rate:,.0f} tokens/s, {share} of the machine's rate for matrices")
        self._tokens, self._seconds = 0, 0.0
