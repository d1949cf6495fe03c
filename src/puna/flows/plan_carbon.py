"""From hours of devices to energy, CO2e and money.

The formulas are those of Wu et al. 2022 as the LLaMA paper uses them (arXiv 2302.13971, section 6):
Wh = device-hours x watts x PUE, and CO2e = kWh x the grid's carbon intensity.
"""

from __future__ import annotations

from dataclasses import dataclass

from puna.errors import InputError
from puna.meter import MeterConfig

LLAMA_PUE = 1.1  # arXiv 2302.13971, section 6
LLAMA_GRAMS_PER_KWH = 385.0  # the US average, ibid.
LLAMA_WATTS = 400.0  # of an A100-80GB in an NVLink system: its thermal design power, ibid.


@dataclass(frozen=True)
class Site:
    """Where the devices stand."""

    pue: float = LLAMA_PUE
    """Power usage effectiveness: the energy of the whole site over that of the devices."""
    carbon_grams_per_kwh: float = MeterConfig.carbon_grams_per_kwh
    """CO2e of electricity, grams per kWh; the world's average of 2023 (Ember, Global Electricity
    Review 2024)."""

    def __post_init__(self) -> None:
        if not 1 <= self.pue < 10:
            raise InputError(
                f"pue must be at least 1 and below 10, not {self.pue:g}",
                fix="1 counts the devices alone; 1.1 is what the LLaMA paper takes",
            )
        if not 0 <= self.carbon_grams_per_kwh < 1e5:
            raise InputError(
                f"carbon_grams_per_kwh must be at least 0, not {self.carbon_grams_per_kwh:g}"
            )


@dataclass(frozen=True)
class Cost:
    """What a run takes from the outside."""

    device_hours: float
    energy_kwh: float
    co2e_kg: float
    dollars: float | None  # None: no price is known


def cost_of(
    device_hours: float, *, watts: float, site: Site, dollars_per_hour: float | None = None
) -> Cost:
    """Energy, CO2e and money of so many hours of one device.

    Args:
        device_hours: Hours times devices.
        watts: Of one device at work.
        site: Where it stands.
        dollars_per_hour: Of one device.

    Raises:
        InputError: A figure is negative or not finite.
    """
    for name, value in (("device_hours", device_hours), ("watts", watts)):
        if not 0 <= value < float("inf"):
            raise InputError(f"{name} must be at least 0, not {value}")
    energy = device_hours * watts * site.pue / 1000
    return Cost(
        device_hours=device_hours,
        energy_kwh=energy,
        co2e_kg=energy * site.carbon_grams_per_kwh / 1000,
        dollars=None if dollars_per_hour is None else device_hours * dollars_per_hour,
    )
