"""What a training run would take: parameters, FLOPs, memory, time, energy, CO2e and money."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from puna.artifact import format_bytes
from puna.config import to_dict
from puna.errors import InputError
from puna.flows.plan_carbon import Cost, Site, cost_of
from puna.flows.plan_hardware import Hardware, find_hardware, parse_number
from puna.flows.plan_subject import Subject, Training, find_subject
from puna.model import count
from puna.model.counts import Counts, TrainingFlops, causal_context
from puna.report.words import count as short
from puna.report.words import duration, energy, mass, percent
from puna.train.footprint import Footprint, learning_counts, predict
from puna.tune import TopLayersConfig

HERE = "here"


@dataclass(frozen=True)
class PlanOptions:
    """What is asked."""

    hardware: str = HERE
    """A device by name, such as a100-80gb, with figures of yours behind it (a100-80gb,price=1.1);
    or figures alone (flops=312T,memory=80G,watts=400); or here: this machine, measured."""
    ranks: int = 1
    """Devices that train together."""
    sharded: bool = True
    """With several devices: weights, gradients and the optimizer's state are split over them."""
    tokens: str | None = None
    """To train on, such as 300M or 1.4T."""
    device_hours: float | None = None
    """Hours times devices, in place of the time that is predicted from --tokens."""
    utilisation: float | None = None
    """Share of the hardware's rate that is reached; the table has an assumption."""
    site: Site = field(default_factory=Site)
    """Where the devices stand."""
    training: Training = field(default_factory=Training)
    """How the model is trained."""

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise InputError(f"ranks must be at least 1, not {self.ranks}")
        if self.device_hours is not None and not 0 < self.device_hours < float("inf"):
            raise InputError(f"device_hours must be positive, not {self.device_hours}")
        if self.device_hours is not None and self.tokens is not None:
            raise InputError(
                "--tokens and --device-hours both say how long the run is", fix="give one of them"
            )


@dataclass(frozen=True)
class Plan:
    """The answer."""

    subject: Subject
    hardware: Hardware
    site: Site
    counts: Counts
    learning: int  # parameters
    flops: TrainingFlops  # per token
    footprint: Footprint
    tokens_per_second: float  # of all devices together
    tokens: float | None
    seconds: float | None  # from beginning to end
    cost: Cost | None

    @property
    def fits(self) -> bool:
        """Whether the memory of a device is enough."""
        return self.footprint.total <= self.hardware.memory_bytes

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield from self._model_lines()
        yield ""
        yield from self._memory_lines()
        yield ""
        yield from self._time_lines()
        yield ""
        yield from self._assumed()

    def to_dict(self) -> dict[str, Any]:
        """Plain data: units stand in the keys."""
        setting = to_dict(self.subject.setting)
        cost = self.cost
        return {
            "model": self.subject.name,
            "setting": setting,
            "parameters": self.counts.parameters,
            "learning_parameters": self.learning,
            "flops_per_token": dataclasses.asdict(self.flops),
            "memory_bytes": self.footprint.to_dict(),
            "device_memory_bytes": self.hardware.memory_bytes,
            "fits": self.fits,
            "hardware": to_dict(self.hardware),
            "site": to_dict(self.site),
            "tokens_per_second": self.tokens_per_second,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "device_hours": None if cost is None else cost.device_hours,
            "energy_kwh": None if cost is None else cost.energy_kwh,
            "co2e_kg": None if cost is None else cost.co2e_kg,
            "dollars": None if cost is None else cost.dollars,
            "notes": list(self.subject.notes),
        }

    # --- parts ------------------------------------------------------------------------------------

    def _model_lines(self) -> Iterator[str]:
        counts, setting = self.counts, self.subject.setting
        method = "pretraining" if setting.method is None else f"tuning by {setting.method.method}"
        flops = self.flops
        yield f"model         {self.subject.name}: {counts.parameters:,} parameters"
        yield (
            f"              {counts.config.num_hidden_layers} blocks of "
            f"{short(counts.block_parameters)}, embedding "
            f"{short(counts.embedding_parameters)}, head "
            + (short(counts.head_parameters) if counts.head_parameters else "tied to it")
        )
        share = percent(self.learning / counts.parameters)
        yield f"learning      {self.learning:,} ({share} of them): {method}"
        yield (
            f"step          {setting.rows} x {setting.row_tokens:,} tokens a micro-batch, "
            f"{setting.micro_batches} a step, on {setting.ranks} device"
            + ("s" if setting.ranks > 1 else "")
            + (", sharded" if setting.sharded else "")
            + f", {setting.dtype}, {setting.optimizer}"
            + (", activations recomputed" if setting.activation_checkpointing else "")
        )
        yield (
            f"FLOPs/token   {flops.model:.4g}: forward {flops.forward:.4g}, backward "
            f"{flops.backward:.4g}, attention {flops.attention:.4g}"
            + (f"; {flops.recomputed:.4g} more recomputed" if flops.recomputed else "")
        )
        if self.tokens is not None:
            yield f"FLOPs         {flops.model * self.tokens:.4g} for {self.tokens:,.0f} tokens"

    def _memory_lines(self) -> Iterator[str]:
        where = "each device" if self.subject.setting.ranks > 1 else "the device"
        have = format_bytes(self.hardware.memory_bytes)
        yield f"memory of {where}, at the highest moment of a step"
        yield from (f"  {line}" for line in self.footprint.lines())
        verdict = "fits into" if self.fits else "DOES NOT FIT into"
        yield f"  {verdict} {have} of {self.hardware.name}"

    def _time_lines(self) -> Iterator[str]:
        yield f"speed         {self.tokens_per_second:,.4g} tokens/s"
        if self.cost is None:
            yield "time          not told: give --tokens, such as --tokens 300M"
            return
        cost = self.cost
        if self.seconds is not None:
            yield f"time          {duration(self.seconds)}, {cost.device_hours:,.4g} device-hours"
        yield f"energy        {energy(cost.energy_kwh * 3.6e6)}"
        yield f"CO2e          {mass(cost.co2e_kg * 1000)}"
        told = "no price is known: add price= to --hardware"
        yield f"cost          {told if cost.dollars is None else f'${cost.dollars:,.2f}'}"

    def _assumed(self) -> Iterator[str]:
        row, dtype = self.hardware, self.subject.setting.dtype
        rate = row.flops(dtype) / 1e12
        yield f"assumed       {row.name}: {rate:,.4g} TFLOP/s in {dtype}; {row.source}"
        yield f"              {row.utilisation:.0%} of it reached; {row.utilisation_source}"
        yield (
            f"              {row.watts:,.0f} W, PUE {self.site.pue:g}, "
            f"{self.site.carbon_grams_per_kwh:g} g CO2e/kWh"
        )
        if row.dollars_per_hour is not None:
            yield f"              ${row.dollars_per_hour:g} an hour; {row.price_source}"
        yield from (f"note          {note}" for note in self.subject.notes)


def plan(
    model: str,
    overrides: tuple[str, ...],
    options: PlanOptions,
    *,
    hardware: Hardware | None = None,
) -> Plan:
    """Plan the training of a model.

    Args:
        model: A preset, 7B to 65B, the path or name of a checkpoint, or a recipe.
        overrides: key=value in place of a recipe's.
        options: What is asked.
        hardware: What `options` names, where it has been found already.

    Raises:
        InputError: There is no such model or hardware, or something asked does not go together.
    """
    hardware = chosen_hardware(options) if hardware is None else hardware
    subject = find_subject(
        model,
        overrides,
        options.training,
        hardware=hardware,
        ranks=options.ranks,
        sharded=options.sharded,
    )
    return planned(subject, hardware, options)


def chosen_hardware(options: PlanOptions) -> Hardware:
    """The hardware that is asked for.

    Raises:
        InputError: There is none of this name, or its description is not valid.
    """
    if options.hardware == HERE:
        from puna.flows.plan_here import hardware_here

        found = hardware_here()
    else:
        found = find_hardware(options.hardware)
    if options.utilisation is None:
        return found
    return dataclasses.replace(
        found, utilisation=options.utilisation, utilisation_source="as given"
    )


def planned(subject: Subject, hardware: Hardware, options: PlanOptions) -> Plan:
    """The plan of a subject on some hardware."""
    setting = subject.setting
    counts = count(setting.config)
    learning, start = learning_counts(setting.config, setting.method)
    flops = _flops(subject, counts, learning, start)
    rate = hardware.flops(setting.dtype) * hardware.utilisation / flops.hardware * setting.ranks
    tokens = subject.tokens
    if options.tokens is not None:
        tokens = parse_number(options.tokens, "tokens")
    seconds: float | None = None if tokens is None else tokens / rate
    if options.device_hours is not None:
        seconds = options.device_hours * 3600 / setting.ranks
    cost = None
    if seconds is not None:
        cost = cost_of(
            seconds * setting.ranks / 3600,
            watts=hardware.watts,
            site=options.site,
            dollars_per_hour=hardware.dollars_per_hour,
        )
    return Plan(
        subject,
        hardware,
        options.site,
        counts,
        learning,
        flops,
        predict(setting),
        rate,
        tokens,
        seconds,
        cost,
    )


def _flops(subject: Subject, counts: Counts, learning: int, start: int) -> TrainingFlops:
    setting = subject.setting
    context = subject.context_tokens
    if context is None:
        context = causal_context(setting.row_tokens)
    method = setting.method
    trained: int | None = None
    added = 0
    if isinstance(method, TopLayersConfig):
        head = setting.config.vocab_size * setting.config.hidden_size
        layers = setting.config.num_hidden_layers
        trained = (counts.matrix_parameters - head) * (layers - start) // layers
    elif method is not None and method.method != "full":
        trained, added = 0, learning
    return counts.training_flops(
        context,
        start=start,
        trained=trained,
        added=added,
        recomputed=setting.activation_checkpointing,
    )
