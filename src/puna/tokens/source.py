"""What reading a tokenizer yields, whatever it was read from; `Tokenizer` is made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer as Backend

from puna.tokens.vocabulary import Vocabulary

DEFAULT_TEMPLATE = "default"


@dataclass(frozen=True)
class Roles:
    """Which tokens begin, end and pad a text, and how a chat is written. None: not said."""

    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    unk_id: int | None = None
    end_ids: frozenset[int] = frozenset()  # further tokens at which generation stops
    add_bos: bool | None = None
    add_eos: bool | None = None
    templates: Mapping[str, str] = field(default_factory=dict)
    """Chat templates by name; `default` is the one that is used unless another is asked for."""

    def over(self, base: Roles) -> Roles:
        """These roles where they say something, those of `base` where they do not."""
        said = {
            name: value
            for name in ("bos_id", "eos_id", "pad_id", "unk_id", "add_bos", "add_eos")
            if (value := getattr(self, name)) is not None
        }
        return dataclasses.replace(
            base,
            **said,
            end_ids=self.end_ids | base.end_ids,
            templates=self.templates or base.templates,
        )


@dataclass(frozen=True)
class Source:
    """A backend with all its added tokens, and what its origin says beyond it."""

    backend: Backend
    where: Path | str
    roles: Roles = field(default_factory=Roles)
    vocabulary: Vocabulary | None = None  # None: only the backend knows it (tokenizer.json)
    pre: str | None = None  # llama.cpp's name of the pre-tokenizer, if it is known
    padding: int = 0  # ids beyond the vocabulary that are known to be rows without a token

    def size(self) -> int:
        """Number of ids: the highest one, and one."""
        if self.vocabulary is not None:
            return len(self.vocabulary.tokens)
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1
