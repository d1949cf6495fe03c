"""torch.save files that hold tensors only; a pickle that carries code is refused, not run."""

from __future__ import annotations

import pickle
import zipfile
from functools import partial
from pathlib import Path
from typing import Final

import torch

from puna.errors import InputError
from puna.store.checkpoint import LazyTensor
from puna.store.files import check_regular

_RESIDENT_BYTES: Final = 64 << 20  # opening costs milliseconds, so not after every tensor


class PickledFile:
    """A dictionary of tensors written by torch.save, mapped rather than read.

    torch maps the whole file at once; once enough of it has been read, `release` drops the
    mapping, and the next `load` opens it anew. So a flow that streams a checkpoint does not
    gather its pages.
    """

    def __init__(self, path: Path):
        self.path = path
        self._tensors: dict[str, torch.Tensor] | None = None
        self._touched_bytes = 0

    def tensors(self) -> dict[str, torch.Tensor]:
        """The mapped tensors by name.

        Raises:
            InputError: The file is damaged, carries code, or holds more than tensors.
        """
        if self._tensors is None:
            self._tensors = _load(self.path)
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """One tensor, in its own dtype; it maps the file and must not be written to."""
        tensor = self.tensors()[name].detach().contiguous()
        self._touched_bytes += tensor.nbytes
        return tensor

    def release(self) -> None:
        """Let go of the mapping if much was read; it ends with the last tensor loaded from it."""
        if self._touched_bytes > _RESIDENT_BYTES:
            self._tensors, self._touched_bytes = None, 0


def read_pickled(path: Path) -> dict[str, LazyTensor]:
    """Open a torch.save file: its tensors by name, values not yet read.

    Raises:
        InputError: The file is damaged, carries code, or holds more than tensors.
    """
    file = PickledFile(path)
    return {
        name: LazyTensor(
            name=name,
            shape=tuple(tensor.shape),
            dtype=tensor.dtype,
            stored=str(tensor.dtype).removeprefix("torch."),
            load=partial(file.load, name),
            file=path,
            release=file.release,
        )
        for name, tensor in file.tensors().items()
    }


def _load(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        raise InputError("is missing", where=path)
    check_regular(path)
    if not zipfile.is_zipfile(path):
        raise InputError(
            "is not a zip archive, the format of torch.save since torch 1.6; it is cut short, or "
            "older than that",
            where=path,
            fix="fetch the file again, or save it anew with a current torch",
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0].strip()
        raise InputError(
            f"holds a pickle with more than tensors in it and was not loaded ({reason})",
            where=path,
            fix="do not load it: such a file can run code; take safetensors from the publisher",
        ) from error
    except Exception as error:  # torch raises many kinds on a damaged archive
        reason = str(error).partition("\n")[0].strip()
        raise InputError(f"cannot be read: {reason}", where=path, fix="fetch it again") from error
    if not isinstance(found, dict):
        raise InputError(
            f"expected a dictionary of tensors, found a {type(found).__name__}", where=path
        )
    for name, tensor in found.items():
        if not isinstance(name, str) or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise InputError(
                f"entry {name!r}: expected a tensor, found a {type(tensor).__name__}", where=path
            )
        _check_dense(name, tensor, path)
    return found


def _check_dense(name: str, tensor: torch.Tensor, path: Path) -> None:
    """Refuse tensors that do not hold all their values: a few bytes can claim to be terabytes."""
    kind = None
    if tensor.is_nested:
        kind = "a nested tensor"
    elif tensor.layout != torch.strided:
        kind = f"a sparse tensor ({str(tensor.layout).removeprefix('torch.')})"
    elif tensor.device.type != "cpu":
        kind = f"a tensor on the device {tensor.device.type!r}, without values"
    else:
        expected, found = tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes()
        if found < expected:
            kind = f"{found} bytes of values where shape {list(tensor.shape)} takes {expected}"
    if kind is not None:
        raise InputError(
            f"tensor {name!r}: expected a dense tensor, found {kind}",
            where=path,
            fix="save it anew with dense, contiguous tensors",
        )
