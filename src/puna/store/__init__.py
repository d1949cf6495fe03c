"""Model bytes: Hugging Face folders, Meta's layout and GGUF, each read and written.

`open_checkpoint(path)` recognises the format, reads nothing but headers, and gives lazy tensors
under Hugging Face's names. One name table per format is read both ways (`names`).
"""

from __future__ import annotations

from puna.store.checkpoint import Checkpoint, Format, LazyTensor, TokenizerFiles
from puna.store.checks import check_finite, check_tensors
from puna.store.gguf_writer import write_gguf
from puna.store.hf_writer import write_hf
from puna.store.meta_writer import write_meta
from puna.store.opening import open_checkpoint

__all__ = [
    "Checkpoint",
    "Format",
    "LazyTensor",
    "TokenizerFiles",
    "check_finite",
    "check_tensors",
    "open_checkpoint",
    "write_gguf",
    "write_hf",
    "write_meta",
]
