"""HTML to main text: the step `extract`."""

from __future__ import annotations

from puna.corpus.extract.fast import Extracted
from puna.corpus.extract.step import ExtractConfig, Mode, open_extractor, title_of

__all__ = ["ExtractConfig", "Extracted", "Mode", "open_extractor", "title_of"]
