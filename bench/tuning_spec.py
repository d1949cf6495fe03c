"""The work that both sides of the tuning bench do, and what each reports."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

PROMPT, ANSWER = "English: {source}\nGerman:", " {target}"


@dataclass(frozen=True)
class Spec:
    """One run of one side."""

    base: str  # a Hugging Face folder, float32
    data: str  # the folder of Multi30k
    shared: str  # a folder that holds `batches.json` and the adapter to start from
    out: str
    layers: int | None = None  # LoRA on the last so many blocks
    cached: bool = True
    epochs: int = 3
    pairs: int = 600
    validation: int = 100
    rank: int = 8
    learning_rate: float = 5e-4
    trunk_dtype: str = "float32"

    @classmethod
    def read(cls, path: str) -> Spec:
        return cls(**json.loads(Path(path).read_text()))

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path

    def recipe(self) -> dict[str, Any]:
        """What our side runs; the peer gets the same examples, batches and start."""
        folder = Path(self.data)
        method: dict[str, Any] = {"method": "lora", "rank": self.rank, "alpha": 2.0 * self.rank}
        if self.layers is not None:
            method["layers"] = self.layers
        return {
            "model": self.base,
            "data": {
                "train": str(folder / "train.en.gz"),
                "train_targets": str(folder / "train.de.gz"),
                "validation": str(folder / "val.en.gz"),
                "validation_targets": str(folder / "val.de.gz"),
                "splits": {"test": 0, "validation": 0},
                "max_examples": self.pairs,
                "max_test": self.validation,
            },
            "template": "plain",
            "wording": {"prompt": PROMPT, "answer": ANSWER},
            "method": method,
            "trunk_cache": {
                "enabled": self.cached,
                "dtype": self.trunk_dtype,
                "folder": str(Path(self.out).parent / "trunk"),
            },
            "train": {
                "epochs": self.epochs,
                "optim": {"learning_rate": self.learning_rate},
                "schedule": {"kind": "constant", "warmup_share": 0.0},
            },
            "threads": 2,
            "meter": {"use_codecarbon": False},
        }


class Gauge:
    """Time since the process began, and memory above what was resident at a moment.

    Pages of mapped files (weights, code) that enter memory later are not counted: one side maps its
    weights and touches them in the first step, the other has read them before.
    """

    def __init__(self) -> None:
        self._process = psutil.Process(os.getpid())
        self.loaded = self._mapped = self._entered = 0
        self.marks: list[float] = []

    def seconds(self) -> float:
        """Since the process began."""
        import time

        return time.time() - self._process.create_time()

    def mark_loaded(self) -> None:
        """From now on the highest memory is counted anew (Linux)."""
        self.loaded, self._mapped = _status("VmRSS"), _status("RssFile")
        Path("/proc/self/clear_refs").write_text("5")

    def mark(self) -> None:
        """An epoch, its validation included, is over."""
        self.marks.append(self.seconds())
        self.see_mapped()

    def see_mapped(self) -> None:
        """Look how much of mapped files has entered memory since loading."""
        self._entered = max(_status("RssFile") - self._mapped, 0)

    def grown(self) -> int:
        """Bytes of the peak above what was resident after loading, mapped files apart."""
        return _status("VmHWM") - self.loaded - self._entered


def _status(key: str) -> int:
    """A figure of the process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) * 1024
