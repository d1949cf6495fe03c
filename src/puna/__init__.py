"""Puna raises a LLaMA: raw text in, a model that its owner can serve out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from puna.api import Llama, Sampling, load

__version__ = "0.1.0"
__all__ = ["Llama", "Sampling", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # `import puna` must not import torch: the command line answers --help at once.
    if name in {"Llama", "Sampling", "load"}:
        from puna import api

        return getattr(api, name)
    raise AttributeError(f"module 'puna' has no attribute {name!r}")
