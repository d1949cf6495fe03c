"""The other way round: what is the largest model, or batch, that a device's memory holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from puna.artifact import format_bytes
from puna.errors import InputError
from puna.flows.plan_hardware import Hardware
from puna.flows.plan_subject import default_setting
from puna.flows.planning import Plan, PlanOptions, chosen_hardware, plan, planned
from puna.model import PRESETS, count
from puna.train.footprint import Setting, predict

MOST_ROWS = 1 << 20


def fitting_batch(model: str, overrides: tuple[str, ...], options: PlanOptions) -> Plan:
    """The plan with the largest micro-batch that fits, in whole rows.

    Raises:
        InputError: Not even one row fits, or as `plan`.
    """
    found = plan(model, overrides, options)
    setting, room = found.subject.setting, found.hardware.memory_bytes
    per_row = max(1, (setting.documents or setting.rows) // setting.rows)

    def with_rows(rows: int) -> Setting:
        documents = None if setting.documents is None else per_row * rows
        return dataclasses.replace(setting, rows=rows, documents=documents)

    low, high = 0, 1
    while high <= MOST_ROWS and predict(with_rows(high)).total <= room:
        low, high = high, 2 * high
    if not low:
        raise _too_small(found)
    while high - low > 1:
        middle = (low + high) // 2
        if predict(with_rows(middle)).total <= room:
            low = middle
        else:
            high = middle
    subject = dataclasses.replace(found.subject, setting=with_rows(low))
    return planned(subject, found.hardware, options)


def fitting_preset(options: PlanOptions) -> Plan:
    """The plan of the largest preset that can be trained as the options say.

    Raises:
        InputError: None fits.
    """
    hardware = chosen_hardware(options)
    named = sorted(PRESETS, key=lambda name: count(PRESETS[name]).parameters, reverse=True)
    smallest: Plan | None = None
    for name in named:
        if _weights_alone(name, hardware, options) > hardware.memory_bytes:
            continue  # without looking closer
        smallest = plan(name, (), options, hardware=hardware)
        if smallest.fits:
            return smallest
    if smallest is None:
        smallest = plan(named[-1], (), options, hardware=hardware)
    raise _too_small(smallest)


def fit_lines(found: Plan) -> Iterator[str]:
    """What fits, in a line, and the plan of it."""
    setting = found.subject.setting
    left = format_bytes(found.hardware.memory_bytes - found.footprint.total)
    yield (
        f"fits          {found.subject.name} with {setting.rows:,} x {setting.row_tokens:,} tokens "
        f"at once; {left} of {format_bytes(found.hardware.memory_bytes)} are left"
    )
    yield ""
    yield from found.lines()


def _weights_alone(name: str, hardware: Hardware, options: PlanOptions) -> float:
    """Less than any training of a preset takes on each device."""
    setting = default_setting(PRESETS[name], hardware)
    itemsize = 2 if (options.training.dtype or setting.dtype) == "bfloat16" else 4
    split = options.ranks if options.sharded else 1
    return count(PRESETS[name]).parameters * itemsize / split


def _too_small(found: Plan) -> InputError:
    need, have = found.footprint.total, found.hardware.memory_bytes
    return InputError(
        f"{found.subject.name} takes {format_bytes(need)} with one row of "
        f"{found.subject.setting.row_tokens:,} tokens, and {found.hardware.name} has "
        f"{format_bytes(have)}",
        fix="shorten --row-tokens, add --checkpointing, more --ranks, or tune by lora",
    )
