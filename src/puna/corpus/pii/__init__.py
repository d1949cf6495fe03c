"""Personal data: where it stands in a text, and what takes its place."""

from __future__ import annotations

from puna.corpus.pii.find import DETECTORS, Detector, find_personal
from puna.corpus.pii.kinds import COMMON_KINDS, KINDS, Kind, Rules, Span
from puna.corpus.pii.step import Action, PiiConfig, change_personal

__all__ = [
    "COMMON_KINDS",
    "DETECTORS",
    "KINDS",
    "Action",
    "Detector",
    "Kind",
    "PiiConfig",
    "Rules",
    "Span",
    "change_personal",
    "find_personal",
]
