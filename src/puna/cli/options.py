"""Options that several verbs share."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from puna.api import Llama, load
from puna.generate import kernels_missing

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
    template: str | None = None
    """Chat template in place of the checkpoint's: llama2, chatml ... or a .jinja file."""
    kernels: Annotated[bool, Parameter(negative="--no-kernels")] = True
    """Decode by compiled kernels where they serve (CPU, float32, extra `fast`)."""

    def load(self) -> Llama:
        """Load the model.

        Raises:
            InputError: There is no such model or template, or the file is damaged.
        """
        return load(
            self.model,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            template=self.template,
            kernels=self.kernels,
        )


def compiling(llama: Llama) -> None:
    """Compile the decoding kernels now, and say so where it takes a while (the first time)."""
    if not llama.kernels:
        return
    why = kernels_missing(llama.model)
    if why is None:
        seconds = llama.warm_up()
        if seconds > 2:
            print(f"decoding kernels compiled, once, in {seconds:.1f} s", file=sys.stderr)
    elif "pip install" in why:
        print(f"decoding without compiled kernels, which is slower: {why}", file=sys.stderr)
