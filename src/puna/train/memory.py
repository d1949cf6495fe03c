"""How much memory the process holds, and what it has taken at its highest."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
from pathlib import Path

import torch


def peak_bytes(device: torch.device) -> int:
    """The highest so far: of the tensors on a GPU, else of the whole process in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        # What getrusage tells on Linux begins with the parent's peak.
        told = _status("VmHWM")
        if told is not None:
            return told
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def begin_peak(device: torch.device) -> int:
    """Let the peak begin anew, where the system can do that, and tell what is held now.

    Where it cannot, what was taken before still counts in the peak; where it tells only the peak
    (macOS), that is what is held.

    Returns:
        Bytes: of tensors on a GPU, else of the whole process in main memory.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a container may forbid it
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        told = _status("VmRSS")
        if told is not None:
            return told
    return peak_bytes(device)


def _status(key: str) -> int | None:
    """A figure of the process in Linux's own words, bytes; None where it has none."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None
