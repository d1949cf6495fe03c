"""Every recipe parses into the configuration that its first key names."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from house.source import REPOSITORY
from puna.config import load_recipe, to_dict
from puna.errors import InputError

FOLDER = REPOSITORY / "recipes"

# The first key of a recipe -> the dataclass that the whole file is read into. A verb that takes
# recipes adds its line here.
CLASSES: dict[str, str] = {
    "models": "puna.store.locate:UserConfig",
    "title": "puna.flows.tune_recipe:TuneRecipe",
    "model": "puna.flows.tune_recipe:TuneRecipe",
    "steps": "puna.flows.curate_recipe:CurateRecipe",
    "corpus": "puna.flows.tokenize_recipe:TokenizeRecipe",
    "sources": "puna.flows.tokenize_recipe:TokenizeRecipe",
    "shards": "puna.flows.pretrain_recipe:PretrainRecipe",
}


def recipe_class(path: Path, classes: dict[str, str]) -> type:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(data, dict), f"{path.name} is empty, or no mapping"
    first = next(iter(data))
    assert first in classes, f"{path.name}: its first key {first!r} is not among {list(classes)}"
    module, _, name = classes[first].partition(":")
    return getattr(importlib.import_module(module), name)


def test_every_recipe_parses() -> None:
    recipes = sorted(FOLDER.rglob("*.y*ml"))
    if not recipes:
        assert not CLASSES, f"recipes are expected for {list(CLASSES)}, and there are none"
        pytest.skip("recipes/ holds no YAML yet: no verb takes a recipe so far")
    for path in recipes:
        load_recipe(path, recipe_class(path, CLASSES))


def test_recipes_are_yaml_or_prompts() -> None:
    kinds = {path.suffix for path in FOLDER.rglob("*") if path.is_file()}
    assert kinds <= {".yaml", ".txt", ".md"}, "a recipe of another kind would not be tested"


def test_the_quickstart_asks_three_prompts() -> None:
    lines = (FOLDER / "quickstart.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert all(line.strip() for line in lines)


@dataclass(frozen=True)
class Planted:
    """What a recipe of a test is read into."""

    planted: dict[str, int]


def test_a_recipe_is_read_into_the_class_of_its_first_key(tmp_path: Path) -> None:
    classes = {"planted": f"{__name__}:Planted"}
    path = tmp_path / "a.yaml"
    path.write_text("planted: {a: 1}\n")
    cls = recipe_class(path, classes)
    assert to_dict(load_recipe(path, cls)) == {"planted": {"a": 1}}
    path.write_text("planted: {a: b}\n")
    with pytest.raises(InputError, match=r"planted\.a: expected int"):
        load_recipe(path, recipe_class(path, classes))
    path.write_text("other: {}\n")
    with pytest.raises(AssertionError, match="its first key 'other' is not among"):
        recipe_class(path, classes)
