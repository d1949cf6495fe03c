"""This machine as a device to plan for: recognised, and where need be measured."""

from __future__ import annotations

import os

import torch

from puna.flows.matrix_rate import matrix_rate
from puna.flows.plan_hardware import (
    CPU_UTILISATION,
    CPU_UTILISATION_SOURCE,
    HARDWARE,
    Hardware,
)
from puna.meter import CORE_WATTS, MEMORY_WATTS_PER_GB
from puna.scale.prepare import default_device


def hardware_here() -> Hardware:
    """The GPU of this machine, else its processor; rates are measured, about a second."""
    device = default_device()
    if device.type == "cuda":
        return _gpu_here(device)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    threads = torch.get_num_threads()
    return Hardware(
        name=f"this machine, {threads} threads",
        float32_flops=matrix_rate(torch.device("cpu"), torch.float32),
        bfloat16_flops=None,
        memory_bytes=memory,
        watts=threads * CORE_WATTS + memory / 1e9 * MEMORY_WATTS_PER_GB,
        source="products measured now; watts: 12 per busy core (Lannelongue et al. 2021), 0.392 "
        "per GB of memory (Cloud Carbon Footprint)",
        utilisation=CPU_UTILISATION,
        utilisation_source=CPU_UTILISATION_SOURCE,
        cuda=False,
    )


def _gpu_here(device: torch.device) -> Hardware:
    properties = torch.cuda.get_device_properties(device)
    row = _row_of(properties.name)
    wide = matrix_rate(device, torch.float32)
    narrow = matrix_rate(device, torch.bfloat16) if torch.cuda.is_bf16_supported() else None
    return Hardware(
        name=f"this machine: {properties.name}",
        float32_flops=wide,
        bfloat16_flops=narrow,
        memory_bytes=properties.total_memory,
        watts=300.0 if row is None else row.watts,
        source="products measured now; watts: "
        + ("an assumption for a card that is not in the table" if row is None else row.source),
        dollars_per_hour=None if row is None else row.dollars_per_hour,
        price_source="" if row is None else row.price_source,
        utilisation=0.5,
        utilisation_source="half of the rate of large products that was measured now",
    )


def _row_of(name: str) -> Hardware | None:
    """The row of the table that a card's own name means."""
    flat = name.lower().replace(" ", "-").replace("geforce-", "")
    found = [row for key, row in HARDWARE.items() if key.partition("-")[0] in flat.split("-")]
    exact = [row for row in found if row.name.partition("-")[2] in flat]
    return next(iter([*exact, *found]), None)
