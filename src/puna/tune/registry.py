"""Which method belongs to which configuration."""

from __future__ import annotations

from typing import assert_never

from puna.tune.bottleneck import AdapterMethod
from puna.tune.dora import DoraMethod
from puna.tune.lora import LoraMethod
from puna.tune.method import (
    AdapterConfig,
    DoraConfig,
    FullConfig,
    LoraConfig,
    Method,
    MethodConfig,
    TopLayersConfig,
)
from puna.tune.top import FullMethod, TopLayersMethod


def method_of(config: MethodConfig) -> Method:
    """The method of a configuration."""
    match config:
        case FullConfig():
            return FullMethod()
        case TopLayersConfig():
            return TopLayersMethod(config)
        case LoraConfig():
            return LoraMethod(config)
        case DoraConfig():
            return DoraMethod(config)
        case AdapterConfig():
            return AdapterMethod(config)
        case _:
            assert_never(config)
