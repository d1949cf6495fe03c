"""Runs over runs, and a look at the machine they run on: what spans several rooms."""

from __future__ import annotations
