"""How hidden states are stored: as they are, narrower, or as int8 with a scale per token.

Bounds, for a value x of a token whose largest magnitude is m: float32 of float32 is exact;
bfloat16 is off by at most |x| / 256; int8 by at most m / 254, and rounding.

Shapes: N tokens, B batch, T tokens, M hidden_size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from puna.errors import InputError

StoredDtype = Literal["auto", "float32", "bfloat16", "int8"]

_RAW: Mapping[torch.dtype, Any] = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: np.uint16,  # which numpy lacks: its bits
    torch.int8: np.int8,
}


@dataclass(frozen=True)
class Codec:
    """Between hidden states of one dtype and what is stored of them."""

    hidden: torch.dtype  # of the trunk's output
    stored: torch.dtype

    @classmethod
    def choose(cls, dtype: StoredDtype, hidden: torch.dtype) -> Codec:
        """The codec for a setting; `auto` stores what was computed, to the last bit.

        Raises:
            InputError: The trunk computes in a dtype that cannot be stored.
        """
        if hidden not in _RAW or hidden is torch.int8:
            raise InputError(f"hidden states of {hidden} cannot be kept in a trunk cache")
        return cls(hidden, hidden if dtype == "auto" else getattr(torch, dtype))

    @property
    def name(self) -> str:
        """The stored dtype, without torch's prefix."""
        return str(self.stored).removeprefix("torch.")

    @property
    def raw(self) -> Any:
        """The numpy dtype of stored values."""
        return _RAW[self.stored]

    @property
    def scaled(self) -> bool:
        """Whether each token has a float32 scale."""
        return self.stored is torch.int8

    def token_bytes(self, width: int) -> int:
        """Bytes of one token's hidden state of `width`, its scale included."""
        return width * self.stored.itemsize + (4 if self.scaled else 0)

    def encode(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states [N, M] to CPU tensors: stored values [N, M] and scales [N], if any.

        A token that is not finite has a scale that is not, and is all NaN when read back.
        """
        hidden = hidden.detach().cpu()
        if not self.scaled:
            return hidden.to(self.stored).contiguous(), None
        values = hidden.float()
        scales = values.abs().amax(1) / 127
        steps = values / torch.where(scales > 0, scales, 1)[:, None]
        return steps.round().nan_to_num(0, 0, 0).to(torch.int8), scales

    def decode(
        self, raw: NDArray[Any], scales: NDArray[np.float32] | None, device: torch.device
    ) -> Tensor:
        """Stored values [B, T, M] and their scales [B, T] to hidden states on `device`."""
        values = torch.from_numpy(raw)
        if self.stored is torch.bfloat16:
            values = values.view(torch.bfloat16)
        values = values.to(device)
        if scales is None:
            return values.to(self.hidden)
        factors = torch.from_numpy(scales).to(device)
        return values.float().mul_(factors[..., None]).to(self.hidden)
