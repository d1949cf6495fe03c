"""A file mapped into memory: tensors that are views of it, and pages that can be given back."""

from __future__ import annotations

import math
import mmap
import sys
from pathlib import Path

import torch

from puna.errors import InputError
from puna.store.files import check_regular

# Copy-on-write, and without a reserve of memory for pages that nobody writes to: Linux would
# otherwise refuse to map a file that is larger than the memory. (Python names the flag from 3.12
# on only; its value is the same on every Linux that torch runs on.)
_FLAGS = mmap.MAP_PRIVATE | (0x4000 if sys.platform == "linux" else 0)


class MappedFile:
    """A private mapping of a whole file: read on first touch, and never written back.

    The mapping is copy-on-write, because torch warns about memory that it may not write to; the
    contract of `LazyTensor` is still that nobody writes. The mapping ends when the last tensor
    that views it is gone.

    Args:
        path: An existing file of at least one byte.

    Raises:
        InputError: It is no regular file, cannot be opened, or is empty.
    """

    def __init__(self, path: Path):
        self.path = path
        check_regular(path)
        try:
            with path.open("rb") as file:
                self.nbytes = file.seek(0, 2)
                if not self.nbytes:
                    raise InputError("is empty", where=path, fix="fetch the file again")
                self.data = mmap.mmap(
                    file.fileno(), 0, flags=_FLAGS, prot=mmap.PROT_READ | mmap.PROT_WRITE
                )
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=path) from error

    def tensor(self, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A view of the file from byte `start`, as a CPU tensor of `shape` and `dtype`.

        The caller has checked that the bytes lie inside the file. No copy is made, but where the
        file puts values at addresses that are no multiple of their size.
        """
        count = math.prod(shape)
        assert 0 <= start <= start + count * dtype.itemsize <= self.nbytes
        if not count:
            return torch.empty(shape, dtype=dtype)
        if start % dtype.itemsize:
            size = count * dtype.itemsize
            raw = torch.frombuffer(self.data, dtype=torch.uint8, count=size, offset=start)
            return raw.clone().view(dtype).view(shape)
        return torch.frombuffer(self.data, dtype=dtype, count=count, offset=start).view(shape)

    def release(self, start: int, nbytes: int) -> None:
        """Let the pages that lie wholly within these bytes leave memory; they can be read again."""
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (start + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
            self.data.madvise(mmap.MADV_DONTNEED, first, length)
