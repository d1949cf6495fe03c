"""Tokens and a model come in, the same model with what it learnt goes out: one loop for all runs.

`fit(job, config, workspace, world=..., report=...)` takes steps, judges, keeps checkpoints and
goes on where a run was left. It knows no tuning method and no objective by name: a `Job` says what
learns, what a step is, where batches come from and what lies below. What holds throughout: each
term of a loss is divided by its own count over all micro-batches and ranks of a step, and on CPU
an interrupted run ends with the same bits as an uninterrupted one.
"""

from __future__ import annotations

from puna.train.checkpoints import load_trained
from puna.train.config import TrainConfig
from puna.train.evaluation import evaluate_loss
from puna.train.guard import GuardConfig
from puna.train.job import Batches, FitResult, Job
from puna.train.log import METRICS, MetricsLog, Reporter, Several, Silent, StepMetrics
from puna.train.loop import fit
from puna.train.optimizers import LLAMA_OPTIM, OptimConfig
from puna.train.progress import Calendar
from puna.train.schedule import LLAMA_SCHEDULE, ScheduleConfig, factor
from puna.train.tensorboard import TensorBoard

__all__ = [
    "LLAMA_OPTIM",
    "LLAMA_SCHEDULE",
    "METRICS",
    "Batches",
    "Calendar",
    "FitResult",
    "GuardConfig",
    "Job",
    "MetricsLog",
    "OptimConfig",
    "Reporter",
    "ScheduleConfig",
    "Several",
    "Silent",
    "StepMetrics",
    "TensorBoard",
    "TrainConfig",
    "evaluate_loss",
    "factor",
    "fit",
    "load_trained",
]
