"""Which methods are compared, with which settings: one recipe for each, alike but for these."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from puna.config import from_dict, to_dict
from puna.errors import InputError
from puna.flows.tune_recipe import TuneRecipe, Variant
from puna.train import OptimConfig
from puna.tune import MethodConfig, method_config

METHODS = ("full", "top_layers", "lora", "dora", "adapter")
MOVES_WEIGHTS = ("full", "top_layers")
# Found for LoRA against full tuning: it learns best at about ten times the rate (Schulman et al.
# 2025, "LoRA Without Regret"). That it serves the other methods that add parameters, and those
# that move a part of the model's own, is our choice; a recipe's `compare` has the last word.
RATE_RATIO = 10.0


@dataclass(frozen=True)
class Entrant:
    """One method that takes part."""

    name: str
    recipe: TuneRecipe
    """What it alone is run by."""

    def told(self) -> str:
        """Its settings, in a line."""
        changed = to_dict(self.recipe.method)
        plain = to_dict(type(self.recipe.method)())
        own = [f"{key} {value}" for key, value in changed.items() if value != plain[key]]
        rate = self.recipe.train.optim.learning_rate
        method = [self.recipe.method.method] if self.recipe.method.method != self.name else []
        return ", ".join([*method, *own, f"learning rate {rate:.3g}"])


def entrants(
    recipe: TuneRecipe, names: Sequence[str], budget_seconds: float | None = None
) -> list[Entrant]:
    """A recipe for each name.

    Args:
        recipe: What they have in common, and `compare`, the settings of some.
        names: Of `recipe.compare`, or of methods.
        budget_seconds: Training time of each, in place of the recipe's epochs and steps.

    Raises:
        InputError: A name is unknown, comes twice or cannot be a folder's; or settings are wrong.
    """
    if not names:
        raise InputError("there is nothing to compare", fix=_known(recipe))
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InputError(f"{name!r} is named twice", fix="name each method once")
    return [Entrant(name, _recipe_of(recipe, name, budget_seconds)) for name in names]


def _recipe_of(recipe: TuneRecipe, name: str, budget_seconds: float | None) -> TuneRecipe:
    method, optim = _settings(recipe, name)
    train = replace(recipe.train, optim=optim)
    if budget_seconds is not None:
        train = replace(train, epochs=None, max_steps=None, max_seconds=budget_seconds)
    title = f"{recipe.title}: {name}" if recipe.title else None
    return replace(recipe, method=method, train=train, compare={}, title=title)


def _settings(recipe: TuneRecipe, name: str) -> tuple[MethodConfig, OptimConfig]:
    optim = recipe.train.optim
    if name in recipe.compare:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,60}", name):
            raise InputError(
                f"compare.{name}: cannot be the name of a folder",
                fix="use letters, digits, _ and -",
            )
        variant: Variant = recipe.compare[name]
        values = {**to_dict(optim), **variant.optim}
        return variant.method, from_dict(OptimConfig, values, f"compare.{name}.optim")
    if name == recipe.method.method:
        return recipe.method, optim
    if name not in METHODS:
        near = difflib.get_close_matches(name, [*recipe.compare, *METHODS], n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"there is no method {name!r} to compare", fix=guess + _known(recipe))
    return _alike(recipe.method, name), _rated(optim, recipe.method.method, name)


def _alike(model: MethodConfig, name: str) -> MethodConfig:
    """A method with the settings of another one, where it knows them."""
    plain = to_dict(method_config({"method": name}))
    shared = {
        key: value
        for key, value in to_dict(model).items()
        if key in plain and key != "method" and (value is not None or plain[key] is None)
    }
    return method_config({**shared, "method": name}, f"method {name}")


def _rated(optim: OptimConfig, model: str, name: str) -> OptimConfig:
    if (model in MOVES_WEIGHTS) == (name in MOVES_WEIGHTS):
        return optim
    ratio = 1 / RATE_RATIO if name in MOVES_WEIGHTS else RATE_RATIO
    return replace(optim, learning_rate=optim.learning_rate * ratio)


def _known(recipe: TuneRecipe) -> str:
    own = f"the recipe names {', '.join(recipe.compare)}; " if recipe.compare else ""
    return f"{own}methods are {', '.join(METHODS)}"


def trunk_folder(out: Path, name: str) -> Path:
    """Where a method keeps its trunk cache while it runs: its own, so that each pays for one."""
    return out / TRUNKS / name


TRUNKS, RECIPES = "trunks", "recipes"
