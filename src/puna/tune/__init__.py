"""A model in, the same model with a few parameters that learn out.

`attach` does the surgery of a method on a finished model and gives a `Tuned`: what learns, by the
names of its file, and the ways on, off and into the base. Everything else of the model is frozen
and stays as it was, bit for bit. `save_tuned` and `load_tuned` keep what changed, in PEFT's format
where PEFT has the method. The trunk cache (`puna.tune.trunk_cache`) computes once what no method
changes.
"""

from __future__ import annotations

from puna.tune.files import BaseReference, SavedTuning, load_tuned, read_tuned, save_tuned
from puna.tune.method import (
    AdapterConfig,
    DoraConfig,
    FullConfig,
    LoraConfig,
    Method,
    MethodConfig,
    TopLayersConfig,
    method_config,
)
from puna.tune.registry import method_of
from puna.tune.surgery import Tuned, active, attach, attached, use

__all__ = [
    "AdapterConfig",
    "BaseReference",
    "DoraConfig",
    "FullConfig",
    "LoraConfig",
    "Method",
    "MethodConfig",
    "SavedTuning",
    "TopLayersConfig",
    "Tuned",
    "active",
    "attach",
    "attached",
    "load_tuned",
    "method_config",
    "method_of",
    "read_tuned",
    "save_tuned",
    "use",
]
