"""Time, tokens, energy and CO2e of a run, stage by stage; imports no torch.

Energy is metered by codecarbon where it is installed, offline: it asks no server and writes no
file, reads the counters that the machine shows it, and estimates the rest. Elsewhere energy is
estimated here, from CPU time and a power figure. The ledger says which, and a stage that took time
never costs nothing.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from puna.errors import InputError, require

JOULES_PER_KWH = 3.6e6
_LEAST_SHARE = 0.005  # of the energy: what was estimated beside a meter is told from there on
# An unknown CPU in the table of Green Algorithms (Lannelongue et al. 2021, data/TDP_cpu.csv).
CORE_WATTS = 12.0
# Memory in the methodology of Cloud Carbon Footprint.
MEMORY_WATTS_PER_GB = 0.392


@dataclass(frozen=True)
class MeterConfig:
    """What energy is taken to be, and what a kilowatt-hour emits."""

    use_codecarbon: bool = True
    """Meter by codecarbon where it is installed and `power_watts` is not given."""
    power_watts: float | None = None
    """Of the whole machine with all cores busy, watts; None: 12 W per busy core, and memory."""
    idle_watts: float | None = None
    """Of the whole machine at rest, watts; None: 0.392 W per gigabyte of its memory."""
    carbon_grams_per_kwh: float = 480.0
    """CO2e of electricity, grams per kWh; the world's average of 2023 (Ember, Global Electricity
    Review 2024)."""
    country: str | None = None
    """Three-letter ISO code: the electricity mix of this country, from codecarbon's table, in
    place of `carbon_grams_per_kwh`."""

    def __post_init__(self) -> None:
        for name in ("power_watts", "idle_watts", "carbon_grams_per_kwh"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e9:
                raise InputError(f"{name} must be greater than 0, not {value}")
        if self.power_watts is not None and self.power_watts <= _idle_watts(self):
            raise InputError(
                f"power_watts ({self.power_watts:g}) is of the machine at load, and must be more "
                f"than it draws at rest ({_idle_watts(self):g})",
                fix="set idle_watts too",
            )


@dataclass
class StageCost:
    """What one stage cost so far; `tokens` is added by whoever counts them."""

    name: str
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process and its children
    tokens: int = 0
    metered_joules: float = 0.0
    estimated_joules: float = 0.0
    estimated_cpu_seconds: float = 0.0  # the part of the time that the estimate covers
    estimated_wall_seconds: float = 0.0
    peak_bytes: int = 0  # resident memory of the process at its highest, read at the stage's end

    @property
    def energy_joules(self) -> float:
        """Metered and estimated together, joules."""
        return self.metered_joules + self.estimated_joules

    def plus(self, other: StageCost, name: str) -> StageCost:
        """Both together, under a new name."""
        total = StageCost(name, peak_bytes=max(self.peak_bytes, other.peak_bytes))
        for key in vars(total):
            if key not in ("name", "peak_bytes"):
                setattr(total, key, getattr(self, key) + getattr(other, key))
        return total


@dataclass(frozen=True)
class _Reading:
    wall_seconds: float
    cpu_seconds: float
    joules: float | None  # None: nobody meters


class _Gauge(Protocol):
    """Meters energy."""

    name: str

    def joules(self) -> float:
        """So far."""
        ...

    def stop(self) -> None:
        """No more readings."""
        ...


@dataclass
class Meter:
    """Counts what a run costs. Not for several threads at once.

        with Meter(MeterConfig()) as meter:
            with meter.stage("train") as cost:
                cost.tokens += 4096

    A stage inside a stage takes its own share, and the outer one goes without it: the stages add
    up to the total. A name that comes again goes on where it was.

    Args:
        config: What energy is taken to be.

    Raises:
        InputError: The country is not known, or is given without codecarbon installed.
    """

    config: MeterConfig = field(default_factory=MeterConfig)
    stages: dict[str, StageCost] = field(default_factory=dict, init=False)
    notes: list[str] = field(default_factory=list, init=False)  # what could not be done, in words

    def __post_init__(self) -> None:
        self._open: list[StageCost] = []
        self._last: _Reading | None = None
        self._gauge: _Gauge | None = None
        self._gauge_name = ""
        self._tried = False
        self.carbon_grams_per_kwh = _carbon_intensity(self.config)
        self._idle_watts = _idle_watts(self.config)
        self._core_watts = _core_watts(self.config)

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def stage(self, name: str) -> Iterator[StageCost]:
        """Count what happens inside; also where it ends by an exception."""
        self._start_gauge()
        self._advance()
        cost = self.stages.setdefault(name, StageCost(name))
        self._open.append(cost)
        try:
            yield cost
        finally:
            self._advance()
            self._open.pop()

    def close(self) -> None:
        """Stop metering; the figures stay."""
        if self._gauge is not None:
            self._gauge.stop()
            self._gauge = None

    def total(self) -> StageCost:
        """All stages together."""
        total = StageCost("total")
        for cost in self.stages.values():
            total = total.plus(cost, "total")
        return total

    def carbon_grams(self, cost: StageCost) -> float:
        """CO2e of a stage, grams."""
        return cost.energy_joules / JOULES_PER_KWH * self.carbon_grams_per_kwh

    def source(self, cost: StageCost) -> str:
        """Where the energy figure of a stage comes from."""
        parts = [f"{self._gauge_name} offline"] if cost.metered_joules else []
        if cost.estimated_joules >= _LEAST_SHARE * cost.energy_joules or not parts:
            parts.append(
                f"estimate: {cost.estimated_cpu_seconds:.1f} CPU-seconds x {self._core_watts:.3g} "
                f"W + {cost.estimated_wall_seconds:.1f} s x {self._idle_watts:.3g} W at rest, "
                "no accelerator counted"
            )
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a manifest: units stand in the keys."""
        return {
            "stages": {name: self._cost_dict(cost) for name, cost in self.stages.items()},
            "total": self._cost_dict(self.total()),
            "carbon_grams_per_kwh": self.carbon_grams_per_kwh,
            "country": self.config.country,
            "notes": list(self.notes),
        }

    def sentence(self) -> str:
        """The total in words."""
        cost = self.total()
        minutes, seconds = divmod(round(cost.wall_seconds), 60)
        shown = f"{minutes} min {seconds} s" if minutes else f"{cost.wall_seconds:.1f} s"
        return (
            f"{shown}, {cost.energy_joules / 3600:.3g} Wh, {self.carbon_grams(cost):.3g} g CO2e "
            f"at {self.carbon_grams_per_kwh:.3g} g/kWh, {cost.peak_bytes / 1e9:.2f} GB "
            f"of memory at most ({self.source(cost)})"
        )

    # -- counting ------------------------------------------------------------------------------

    def _cost_dict(self, cost: StageCost) -> dict[str, Any]:
        return {
            "wall_seconds": cost.wall_seconds,
            "cpu_seconds": cost.cpu_seconds,
            "tokens": cost.tokens,
            "energy_joules": cost.energy_joules,
            "energy_kwh": cost.energy_joules / JOULES_PER_KWH,
            "co2e_grams": self.carbon_grams(cost),
            "peak_bytes": cost.peak_bytes,
            "source": self.source(cost),
        }

    def _advance(self) -> None:
        """Charge the innermost open stage with what has passed since the last reading."""
        last, now = self._last, self._read()
        self._last = now
        if not self._open or last is None:
            return
        cost = self._open[-1]
        wall = now.wall_seconds - last.wall_seconds
        cpu = now.cpu_seconds - last.cpu_seconds
        cost.wall_seconds += wall
        cost.cpu_seconds += cpu
        cost.peak_bytes = max(cost.peak_bytes, _peak_bytes())
        metered = 0.0
        if now.joules is not None and last.joules is not None:
            metered = now.joules - last.joules
        if metered > 0:
            cost.metered_joules += metered
        else:  # nobody meters, or the time was too short for the meter to see
            cost.estimated_joules += cpu * self._core_watts + wall * self._idle_watts
            cost.estimated_cpu_seconds += cpu
            cost.estimated_wall_seconds += wall

    def _read(self) -> _Reading:
        joules = None
        if self._gauge is not None:
            try:
                joules = self._gauge.joules()
            except Exception as error:  # a meter never stops the run that it meters
                self._give_up(error)
        # A child that nobody waits for takes its time with it when it goes: it stays counted.
        least = 0.0 if self._last is None else self._last.cpu_seconds
        return _Reading(time.perf_counter(), max(least, _cpu_seconds()), joules)

    def _start_gauge(self) -> None:
        wanted = self.config.use_codecarbon and self.config.power_watts is None
        if self._tried or not wanted or importlib.util.find_spec("codecarbon") is None:
            return
        self._tried = True
        try:
            self._gauge = _CodeCarbon()
            self._gauge_name = self._gauge.name
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._gauge = None
        self.notes.append(
            f"codecarbon failed, energy is estimated: {type(error).__name__}: {error}"
        )


class _CodeCarbon:
    """codecarbon's tracker, told everything, so that no file or variable can send it online."""

    # Emissions are forced to one kilogram per kWh, so that they are the energy: the public doors
    # give emissions only, and a forced intensity asks no server.
    GRAMS_PER_KWH = 1000.0

    def __init__(self) -> None:
        module = require("codecarbon", extra="meter", purpose="metering energy")
        self.name = f"codecarbon {importlib.metadata.version('codecarbon')}"
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        self._tracker = module.OfflineEmissionsTracker(
            force_carbon_intensity_g_co2e_kwh=self.GRAMS_PER_KWH,
            country_iso_code=None,
            region=None,
            cloud_provider=None,
            cloud_region=None,
            electricitymaps_api_token=None,
            emissions_endpoint=None,
            output_methods=[],
            output_handlers=[],
            output_dir=tempfile.gettempdir(),
            api_call_interval=-1,
            allow_multiple_runs=True,
            tracking_mode="machine",
            pue=1.0,
            log_level="critical",
            logger_preamble="",
        )
        self._tracker.start()
        self.joules()  # fails now if the tracker was built by half, which it does not tell

    def joules(self) -> float:
        """Energy of the whole machine since the start."""
        kilograms = self._tracker.flush()
        if kilograms is None:
            raise RuntimeError("the tracker did not start")
        return float(kilograms) * 1000 / self.GRAMS_PER_KWH * JOULES_PER_KWH

    def stop(self) -> None:
        """End its threads."""
        self._tracker.stop()


def _carbon_intensity(config: MeterConfig) -> float:
    if config.country is None:
        return config.carbon_grams_per_kwh
    module = require("codecarbon.input", extra="meter", purpose="the electricity mix of a country")
    mixes = module.DataSource().get_global_energy_mix_data()
    if config.country.upper() not in mixes:
        raise InputError(
            f"country {config.country!r} is not known", fix="give its three letters, such as FRA"
        )
    return float(mixes[config.country.upper()]["carbon_intensity"])


def _idle_watts(config: MeterConfig) -> float:
    if config.idle_watts is not None:
        return config.idle_watts
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return MEMORY_WATTS_PER_GB * memory_bytes / 1e9


def _core_watts(config: MeterConfig) -> float:
    if config.power_watts is None:
        return CORE_WATTS
    return (config.power_watts - _idle_watts(config)) / (os.cpu_count() or 1)


def _peak_bytes() -> int:
    """Of this process; what getrusage tells on Linux begins with the peak of its parent."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu_seconds() -> float:
    """User and system time of this process, of its ended children, and of living ones on Linux."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in used)
    return own + sum(_living_seconds(child) for child in _children("self"))


def _children(process: str) -> list[str]:
    found: list[str] = []
    for listing in Path("/proc", process, "task").glob("*/children"):
        try:
            found += listing.read_text(encoding="ascii").split()
        except OSError:  # the thread has ended meanwhile
            continue
    return found


def _living_seconds(process: str) -> float:
    """CPU time of a process, of its ended children and of its living ones; 0 if it is gone."""
    try:
        text = Path("/proc", process, "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    numbers = text.rpartition(")")[2].split()  # the name before it may hold anything
    ticks = sum(int(value) for value in numbers[11:15])  # utime, stime, cutime, cstime
    own = ticks / os.sysconf("SC_CLK_TCK")
    return own + sum(_living_seconds(child) for child in _children(process))
