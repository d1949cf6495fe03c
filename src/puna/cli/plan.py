"""`puna plan`: what a training run would take, and what would fit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from puna.errors import InputError
from puna.flows.plan_carbon import Site
from puna.flows.plan_fit import fit_lines, fitting_batch, fitting_preset
from puna.flows.plan_subject import Training
from puna.flows.planning import PlanOptions
from puna.flows.planning import plan as plan_flow


@dataclass(frozen=True)
class Where:
    """On what, and for how long."""

    hardware: str = "here"
    """A device: a100-80gb, h100-sxm, rtx-4090 ..., with figures of yours behind it
    (a100-80gb,price=1.10); or figures alone (flops=312T,memory=80G,watts=400,price=2); or here:
    this machine, measured."""
    ranks: int = 1
    """Devices that train together."""
    sharded: Annotated[bool, Parameter(negative="--no-sharded")] = True
    """With several devices: weights, gradients and the optimizer's state are split over them."""
    tokens: str | None = None
    """To train on: 300M, 1.4T."""
    device_hours: float | None = None
    """Hours times devices, where they are known, in place of --tokens."""
    utilisation: float | None = None
    """Share of the hardware's rate that is reached; the table has an assumption for each."""


@dataclass(frozen=True)
class Answer:
    """What is answered, and how."""

    fit: bool = False
    """The largest batch of MODEL that fits; without MODEL the largest preset."""
    json: bool = False
    """One JSON object in place of the lines."""


def plan(
    model: str | None = None,
    *overrides: str,
    where: Annotated[Where, Parameter(name="*")] = Where(),
    training: Annotated[Training, Parameter(name="*")] = Training(),  # noqa: B008
    site: Annotated[Site, Parameter(name="*")] = Site(),  # noqa: B008
    answer: Annotated[Answer, Parameter(name="*")] = Answer(),
) -> None:
    """Tell parameters, FLOPs, memory by component, time, energy, CO2e and cost of a training run.

    Nothing is trained, and no weights are read. Every assumption is told, with its source.

    Args:
        model: A preset (llama-7b, or 7B), the path or name of a checkpoint, or a recipe of
            puna tune or puna pretrain.
        overrides: key=value in place of a recipe's.
    """
    options = PlanOptions(
        hardware=where.hardware,
        ranks=where.ranks,
        sharded=where.sharded,
        tokens=where.tokens,
        device_hours=where.device_hours,
        utilisation=where.utilisation,
        site=site,
        training=training,
    )
    if model is None and not answer.fit:
        raise InputError(
            "name a model: a preset such as llama-7b, a checkpoint, or a recipe",
            fix="puna plan --fit tells the largest preset that fits",
        )
    if not answer.fit:
        assert model is not None
        found = plan_flow(model, overrides, options)
        lines = found.lines()
    else:
        found = (
            fitting_preset(options) if model is None else fitting_batch(model, overrides, options)
        )
        lines = fit_lines(found)
    print(json.dumps(found.to_dict(), indent=1) if answer.json else "\n".join(lines))
