"""Options that several verbs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DtypeName = Literal["auto", "file", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and where it runs."""

    model: str = "llama-base"
    """A path, an alias, a packaged model, or owner/name on the Hugging Face hub."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: DtypeName = "auto"
    """Of the weights in memory; auto is float32 on CPU and bfloat16 on GPU."""
    threads: int | None = None
    """CPU threads; torch's own choice by default."""
