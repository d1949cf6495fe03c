"""As `victim`, with checkpoints that a thread writes: `python background_victim.py FOLDER SEED`.

A run may then die in that thread, too, at any file that it sees to the disk.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

import puna.artifact
from puna.train import checkpoint_pieces
from train import victim


def to_disk(path: Path) -> None:
    """Through the one function at which an attempt may die."""
    puna.artifact._sync(path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    victim.CONFIG = replace(victim.CONFIG, background_checkpoints=True)
    checkpoint_pieces._to_disk = to_disk
    victim.main(Path(sys.argv[1]), int(sys.argv[2]))
